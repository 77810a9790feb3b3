"""Files of joined domains: other formats, filters, and the error for each mistake."""

from pathlib import Path

import numpy as np
import pytest

from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build, describe
from recbole_xfer.testing.data import config, write_joined, write_small


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "The folder .*Wrong does not exist"),
        ("", "is empty"),
        ("user_id:token\titem_id:token\ttimestamp:float\n", "no rows"),
        ("user_id:token,item_id:token,timestamp:float\nu,i,1\n", r"is not separated by '\\t'.*--field_separator"),
        ("user_id:token\tuser_id:token\ttimestamp:float\nu\ti\t1\n", "has the column 'user_id' twice"),
        (
            "user_id:token\titem_id:token\ttimestamp:token\nu\ti\t1\n",
            "'timestamp:token' of the header must be 'timestamp:float'",
        ),
        (
            "user_id:token\titem_id:token\ttimestamp:float\nu\ti\t1\nu\tj\t1\t2\n",
            "line 3: there are 4 values for the 3",
        ),
        ("user_id:token\titem_id:token\ttimestamp:float\nu\ti\t1\nü\tj\t1\n", "line 3: the text is not utf-8"),
        ("user_id\titem_id\ttimestamp\nu\ti\t1\n", "column 'user_id' of the header has no type"),
        ("user_id:text\titem_id:token\ttimestamp:float\nu\ti\t1\n", "unknown type 'text'"),
        ("user_id:token\titem_id:token\tdate:float\nu\ti\t1\n", "no column 'timestamp'"),
        ("user_id:token\titem_id:token\ttimestamp:float\nu\ti\tMonday\n", "line 2: 'Monday' in column 'timestamp'"),
        ("user_id:token\titem_id:token\ttimestamp:float\nu\ti\tinf\n", "line 2: column 'timestamp' is infinite"),
        ("user_id:token\titem_id:token\ttimestamp:float\nu\ti\t\n", "user u with item i has no timestamp"),
        ("user_id:token\titem_id:token\ttimestamp:float\nu\ti\t1\nv\ti\t1\n", "no user with two training interactions"),
    ],
)
def test_invalid_interactions(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "Wrong").mkdir()
        (tmp_path / "Wrong" / "Wrong.inter").write_text(content, encoding="latin-1")
    with pytest.raises(XferError, match=message):
        TransferDataset(config(tmp_path, "SASRec", "Wrong")).build()


@pytest.mark.parametrize(
    ("encoding", "keys"),
    [
        ("utf-8-sig", {}),  # as spreadsheets write
        ("utf-16", {"encoding": "utf-16"}),
        ("latin-1", {"encoding": "latin-1"}),
        ("utf-8", {"field_separator": ","}),
        ("utf-8", {"ITEM_ID_FIELD": "asin", "TIME_FIELD": "when"}),
    ],
)
def test_other_formats_of_files(tmp_path: Path, encoding: str, keys: dict) -> None:
    folder = write_small(tmp_path)
    usual = TransferDataset(config(tmp_path))
    prices = usual.features.price
    for kind in ("inter", "item"):
        file = folder / f"Small.{kind}"
        text = file.read_text()
        for column, key in (("item_id", "ITEM_ID_FIELD"), ("timestamp", "TIME_FIELD")):
            text = text.replace(f"{column}:", f"{keys.get(key, column)}:")
        file.write_text(text.replace("\t", keys.get("field_separator", "\t")), encoding=encoding)
    made = TransferDataset(config(tmp_path, **keys))
    assert made.item_tokens.tolist() == usual.item_tokens.tolist()
    assert np.array_equal(made.features.price, prices, equal_nan=True)


def test_required_column_that_is_not_loaded(tmp_path: Path) -> None:
    write_small(tmp_path)
    inter = ["user_id", "item_id", "timestamp"]
    for keys, column in (
        ({"load_col": {"inter": inter[:2]}}, "'timestamp' of .*Small.inter"),
        ({"unload_col": {"inter": ["timestamp"]}, "load_col": None}, "'timestamp' of .*Small.inter"),
        ({"load_col": {"inter": inter, "item": ["price"]}}, "'item_id' of .*Small.item"),
    ):
        with pytest.raises(XferError, match=f"The column {column} is required. Do not leave it out of load_col"):
            TransferDataset(config(tmp_path, **keys))


def test_quotation_marks_are_letters(tmp_path: Path) -> None:
    """The issue's example: two of 483 fields that begin with one made 183 rows of them."""
    rows = [f"u{row % 40}\ti{row % 25}\t{row}" for row in range(483)]
    for row in (100, 400):
        rows[row] = rows[row].replace("\ti", '\t"i')
    (tmp_path / "Quoted").mkdir()
    header = "user_id:token\titem_id:token\ttimestamp:float"
    (tmp_path / "Quoted" / "Quoted.inter").write_text("\n".join([header, *rows]))
    items = ["item_id:token\ttext:token_seq", '"i0\tone', *(f"i{item}\ttwo" for item in range(25)), '"i1\tthree']
    (tmp_path / "Quoted" / "Quoted.item").write_text("\n".join(items))
    dataset = TransferDataset(config(tmp_path, "SASRec", "Quoted", load_col=None))
    assert dataset.inter_num == 483
    assert set(dataset.item_tokens[1:]) == {*(f"i{item}" for item in range(25)), '"i0', '"i1'}


def test_domain_whose_preparation_was_killed(tmp_path: Path) -> None:
    write_small(tmp_path)
    (tmp_path / ".unfinished.x" / "complete" / "Small").mkdir(parents=True)
    with pytest.raises(XferError, match="The preparation of .*Small was interrupted, or is still running"):
        TransferDataset(config(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Small+", "a name is empty; write a name before and after each '\\+'"),
        ("/tmp/Small", "is not the name of a folder; set the path to this folder with data_path"),
        ("x" * 240, "has 240 bytes; shorten it"),
        (" Small", "' Small' begins or ends with a blank"),
        ("Small\n", r"'Small\\n' begins or ends with a blank"),
    ],
)
def test_names_that_no_domain_can_have(tmp_path: Path, name: str, message: str) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match=f"This cannot be the name of a domain: .*{message}"):
        TransferDataset(config(tmp_path, dataset=name))


def test_long_row_is_found_despite_a_short_row(tmp_path: Path) -> None:
    file = write_small(tmp_path) / "Small.item"
    file.write_text("item_id:token\ttext:token_seq\tprice:float\tx:float\ni0\tred\t7\t5\t4\ni1\tblue\t2\n")
    with pytest.raises(XferError, match=r"Small.item, line 2: there are 5 values for the 4 columns"):
        _ = TransferDataset(config(tmp_path)).features


def test_word_in_a_sequence_of_numbers(tmp_path: Path) -> None:
    file = write_small(tmp_path) / "Small.item"
    file.write_text("item_id:token\tsize:float_seq\ni0\t1 2\ni1\t1 two\n")
    with pytest.raises(XferError, match=r"Small.item, line 3: '1 two' in column 'size' is not a list of numbers"):
        TransferDataset(config(tmp_path, load_col=None))


@pytest.mark.parametrize("place", ["dataset", "my data"])
def test_a_command_that_makes_vectors_names_the_folder_of_the_domains(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_small(Path(place))
    for file in folder.glob("*.parquet"):
        file.unlink()
    option = "" if place == "dataset" else " --data_path='my data'"
    with pytest.raises(XferError, match=f"`recbole-xfer encode --dataset=Small{option}`"):
        _ = TransferDataset(config(Path(place), "UniSRec")).features


def test_unknown_encoding(tmp_path: Path) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match="encoding=klingon is unknown to Python"):
        TransferDataset(config(tmp_path, encoding="klingon"))


def test_prices_that_are_not_numbers(tmp_path: Path) -> None:
    file = write_small(tmp_path) / "Small.item"
    file.write_text(file.read_text().replace("price:float", "price:token"))
    with pytest.raises(XferError, match="Write 'price:float' in the header"):
        _ = TransferDataset(config(tmp_path)).features


def test_infinite_price(tmp_path: Path) -> None:
    file = write_small(tmp_path) / "Small.item"
    file.write_text("item_id:token\tprice:float\ni0\t3\ni1\tinf\n")
    with pytest.raises(XferError, match="Small.item, line 3: column 'price' is infinite"):
        _ = TransferDataset(config(tmp_path)).features


def test_missing_vectors_name_the_remedy(tmp_path: Path) -> None:
    folder = write_small(tmp_path)
    for kind, remedy in (("image", "Put pictures into .*, or add your own"), ("text", "recbole-xfer encode")):
        (folder / f"Small.{kind}.parquet").unlink()
        with pytest.raises(XferError, match=f"no {kind} .*Small.{kind}.parquet.*{remedy}") as error:
            _ = TransferDataset(config(tmp_path, modalities=[kind])).features
        assert "prepare table" not in str(error.value)


def test_missing_dataset_names_the_command_that_makes_it(tmp_path: Path) -> None:
    for name, command in (
        ("CJ-Deli", "prepare completejourney"),
        ("Toy-Games", "prepare toy"),
        ("Mine", "prepare table"),
    ):
        with pytest.raises(XferError, match=command):
            TransferDataset(config(tmp_path, dataset=name))


def test_missing_inter_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "Empty").mkdir()
    with pytest.raises(XferError, match="Empty.inter does not exist"):
        TransferDataset(config(tmp_path, dataset="Empty"))


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"timestamp": [5]}, r"val_interval.timestamp=\[5\] is invalid: it must be an interval such as '\[5,inf\)'"),
        ({"user_id": "[0,5)"}, r"val_interval.user_id=\[0,5\) is invalid: it must be a list of the values to keep"),
        ({"rating": "[3,5]"}, "val_interval: Small has no column 'rating', or load_col leaves it out"),
    ],
)
def test_filter_that_does_not_fit_the_column(tmp_path: Path, kept: dict, message: str) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match=message):
        TransferDataset(config(tmp_path, val_interval=kept))


def test_filter_that_removes_all_users(tmp_path: Path) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match="Filtering removes all users of Small"):
        TransferDataset(config(tmp_path, user_inter_num_interval="[500,inf)"))


def test_joining_a_domain_with_itself(tmp_path: Path) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match="different domains"):
        TransferDataset(config(tmp_path, dataset="Small+Small"))


@pytest.mark.parametrize("keys", [{}, {"histories": "per_domain"}], ids=str)
@pytest.mark.parametrize("model", ["Pop", "SASRec"])
def test_a_join_says_how_many_users_its_domains_share(tmp_path: Path, model: str, keys: dict[str, str]) -> None:
    write_joined(tmp_path, ["A", "B"])
    files = [(tmp_path / name / f"{name}.inter").read_text().splitlines()[1:] for name in "AB"]
    a, b = ({line.split("\t")[0] for line in lines} for lines in files)
    experiment = build(config(tmp_path, model, "A+B", **keys))
    assert describe(experiment).startswith(f"{len(a | b)} users ({len(a & b)} in several domains), 24 items")
