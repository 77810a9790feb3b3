"""TransferDataset: RecBole's rows without its copies, joined domains, filters, and what is said of wrong files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recbole.config import Config
from recbole.data import create_dataset

from recbole_xfer.data.atomic import read_atomic_file
from recbole_xfer.data.dataset import TARGETS, TransferDataset
from recbole_xfer.data.loaders import make_dataset, make_loaders
from recbole_xfer.errors import XferError
from recbole_xfer.testing.data import config, settings, write_small

RECBOLE_KEYS = {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "train_neg_sample_args": None}


def rows_of(dataset: object) -> dict[str, np.ndarray]:
    rows = dataset[np.arange(len(dataset))]  # type: ignore[index, arg-type]
    lists = rows["item_id_list"].numpy()
    order = np.lexsort((rows["item_length"], rows["user_id"]))
    return {
        "user": rows["user_id"].numpy()[order],
        "item": rows["item_id"].numpy()[order],
        "length": rows["item_length"].numpy()[order],
        "list": lists[order],
    }


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "user", "mode": "full"}},
        {"eval_args": {"split": {"LS": "test_only"}, "order": "TO", "mode": "full"}},
        {"user_inter_num_interval": "[5,inf)", "item_inter_num_interval": "[8,inf)"},
        {"val_interval": {"timestamp": "[1400000050,inf)"}},
    ],
)
def test_rows_equal_recboles(tmp_path: Path, keys: dict) -> None:
    """The same users, targets and histories in the same parts, for every split and filter of RecBole's."""
    write_small(tmp_path)
    assert_rows_equal_recboles(tmp_path, keys)


def test_rows_of_a_split_by_time_equal_recboles(tmp_path: Path) -> None:
    folder = write_small(tmp_path)
    frame = pd.read_csv(folder / "Small.inter", sep="\t")
    frame["timestamp:float"] -= 1.4e9  # RecBole sorts by float32, to which these would be equal otherwise
    frame.to_csv(folder / "Small.inter", sep="\t", index=False)
    split = {"split": {"RS": [0.7, 0.1, 0.2]}, "order": "TO", "group_by": None, "mode": "full"}
    assert_rows_equal_recboles(tmp_path, {"eval_args": split})


def assert_rows_equal_recboles(tmp_path: Path, keys: dict) -> None:
    ours = TransferDataset(config(tmp_path, "SASRec", **keys)).build()
    theirs_config = Config("SASRec", "Small", config_dict={**settings(tmp_path, "SASRec"), **RECBOLE_KEYS, **keys})
    theirs = create_dataset(theirs_config).build()
    for part, expected in zip(ours, theirs, strict=True):
        if not len(expected):
            assert not len(part)
            continue
        for name, values in rows_of(expected).items():
            assert np.array_equal(rows_of(part)[name], values), name


def test_windows_hold_the_training_rows_and_nothing_of_validation_or_test(tmp_path: Path) -> None:
    write_small(tmp_path)
    train, valid, test = TransferDataset(config(tmp_path, window_stride=1)).build()
    batch = train.training_batch(np.arange(len(train.windows)))
    pairs = set()
    for user, items, targets in zip(batch["user_id"], batch["item_id_list"], batch[TARGETS], strict=True):
        for position in np.flatnonzero(targets):
            pairs.add((int(user), tuple(items[: position + 1].tolist()), int(targets[position])))
    rows = train[np.arange(len(train))]
    expected = {
        (int(user), tuple(history[:length].tolist()), int(item))
        for user, history, length, item in zip(
            rows["user_id"], rows["item_id_list"], rows["item_length"], rows["item_id"], strict=True
        )
    }
    assert pairs == expected
    held_out = np.concatenate([part.inter_feat[TransferDataset.ROW].numpy() for part in (valid, test)])
    first, end = train.target_ranges
    assert all(not ((first - 1 <= target) & (target < end)).any() for target in held_out)


ROLLING = {"split": {"HU": [8, 1, 1]}, "order": "TO", "group_by": "user", "mode": "full"}


def test_rolling_prediction_ranks_the_last_five_records_of_held_out_users(tmp_path: Path) -> None:
    """Each from all records before it; training users are trained to their last record (RETR, appendix D)."""
    folder = write_small(tmp_path, users=60)
    made = TransferDataset(config(tmp_path, "RETR", eval_args=ROLLING, held_out_targets=5))
    log = pd.read_csv(folder / "Small.inter", sep="\t").sort_values("timestamp:float")
    tokens = {field: made.field2token_id[field] for field in ("user_id", "item_id")}
    log["user"], log["item"] = (log[f"{field}:token"].map(ids) for field, ids in tokens.items())
    records = log.groupby("user")["item"].apply(list).to_dict()
    parts = made.build()
    users = [set(part.inter_feat["user_id"].tolist()) for part in parts]
    assert users[0] | users[1] | users[2] == {user for user, items in records.items() if len(items) > 1}
    assert sum(map(len, users)) == len(set.union(*users)) and len(users[1]) <= 6 and len(users[2]) <= 6
    for part, of_part, ranked in zip(parts, users, (None, 5, 5), strict=True):
        rows = part[np.arange(len(part))]
        lists = [row[row > 0].tolist() for row in rows["item_id_list"]]
        found = sorted(zip(rows["user_id"].tolist(), lists, rows["item_id"].tolist(), strict=True))
        expected = []
        for user in of_part:
            items = records[user]
            first = 1 if ranked is None else max(len(items) - ranked, 1)
            expected += [(user, items[max(at - 10, 0) : at], items[at]) for at in range(first, len(items))]
        assert found == sorted(expected)
    assert {int(user) for user in parts[0].training_batch(np.arange(len(parts[0].windows)))["user_id"]} == users[0]


def test_the_held_out_users_are_those_of_every_seed(tmp_path: Path) -> None:
    write_small(tmp_path)
    rows = []
    for seed in (1, 2):
        test = TransferDataset(config(tmp_path, "RETR", eval_args=ROLLING, held_out_targets=5, seed=seed)).build()[2]
        rows.append(test.inter_feat[TransferDataset.ROW].tolist())
    assert rows[0] == rows[1]


def test_models_without_sequences_are_tested_on_the_same_rows(tmp_path: Path) -> None:
    write_small(tmp_path)
    with_sequences = make_dataset(config(tmp_path, "SASRec")).build()
    without = make_dataset(config(tmp_path, "BPR")).build()
    for ours, theirs in zip(with_sequences[1:], without[1:], strict=True):
        pairs = [
            set(zip(*(part.inter_feat[f].tolist() for f in ("user_id", "item_id")), strict=True))
            for part in (ours, theirs)
        ]
        assert pairs[0] == pairs[1]


def test_joined_domains_keep_items_apart_and_users_together(tmp_path: Path) -> None:
    write_small(tmp_path, "A", users=30, seed=1)
    write_small(tmp_path, "B", users=40, seed=2)
    joined = TransferDataset(config(tmp_path, dataset="A+B", histories="across"))
    alone = [TransferDataset(config(tmp_path, dataset=name)) for name in "AB"]
    assert joined.item_num - 1 == sum(dataset.item_num - 1 for dataset in alone)
    assert joined.user_num == max(dataset.user_num for dataset in alone)
    tokens, domains = joined.item_tokens, joined.item_domain
    assert set(tokens[1:][domains[1:] == 1]) == set(alone[1].item_tokens[1:])
    text = alone[1].features.text
    for token in alone[1].item_tokens[1:]:
        row = np.flatnonzero((tokens == token) & (domains == 1))[0]
        own = alone[1].token2id("item_id", token)
        assert np.array_equal(joined.features.text.values[row], text.values[own])
        assert joined.features.text.present[row] == text.present[own]


def test_histories_per_domain_do_not_mix_domains(tmp_path: Path) -> None:
    write_small(tmp_path, "A", seed=1)
    write_small(tmp_path, "B", seed=2)
    train = TransferDataset(config(tmp_path, dataset="A+B")).build()[0]
    data = train.sequences
    domains = train.item_domain[data.items]
    assert all(len(set(domains[a:b])) == 1 for a, b in zip(data.starts, data.ends, strict=True))


def test_seen_items_are_the_whole_history_but_the_target(tmp_path: Path) -> None:
    write_small(tmp_path)
    test = TransferDataset(config(tmp_path, "SASRec", MAX_ITEM_LIST_LENGTH=3)).build()[2]
    rows = test[np.arange(len(test))]
    row, item = test.seen_items(rows)
    data = test.sequences
    for number, target in enumerate(rows[TransferDataset.ROW].tolist()):
        start = data.starts[data.history_of(np.array([target]))[0]]
        expected = set(data.items[start:target]) - {data.items[target]}
        assert set(item[row == number].tolist()) == expected


def test_loaders_serve_full_and_sampled_ranking(tmp_path: Path) -> None:
    write_small(tmp_path)
    for mode in ("full", "uni5", "pop5"):
        split = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": mode}
        settings = config(tmp_path, "SASRec", eval_args=split)
        _, valid, _ = make_loaders(settings, make_dataset(settings))
        assert len(next(iter(valid))) == 4


def test_sampled_ranking_without_sequences_heeds_the_batch_size(tmp_path: Path) -> None:
    write_small(tmp_path)
    modes = {"valid": "uni4", "test": "full"}
    split = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": modes}
    settings = config(tmp_path, "BPR", eval_args=split, eval_batch_size=20)
    _, valid, test = make_loaders(settings, make_dataset(settings))
    assert max(len(batch[0]) for batch in valid) == 20
    assert len(test) == 1  # as many as their scores of all items fit into memory
    assert settings["eval_batch_size"] == 20


@pytest.mark.parametrize("keys", [{"loss_type": "BPR"}, {"eval_args": {"mode": "uni5"}}])
def test_no_negative_against_the_only_item(tmp_path: Path, keys: dict) -> None:
    write_small(tmp_path, items=1, holes=False)
    made = config(tmp_path, "SASRec", topk=[1], **keys)
    with pytest.raises(XferError, match="Small has one item, so that no negative can be drawn"):
        make_loaders(made, make_dataset(made))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not there"),
        ("", "is empty"),
        ("user_id:token\titem_id:token\ttimestamp:float\n", "no rows"),
        ("user_id:token,item_id:token,timestamp:float\nu,i,1\n", r"is not separated by '\\t'.*--field_separator"),
        ("user_id:token\tuser_id:token\ttimestamp:float\nu\ti\t1\n", "has the column 'user_id' twice"),
        ("user_id:token\titem_id:token\ttimestamp:token\nu\ti\t1\n", "'timestamp:token' .* must be 'timestamp:float'"),
        (
            "user_id:token\titem_id:token\ttimestamp:float\nu\ti\t1\nu\tj\t1\t2\n",
            "line 3: there are 4 values for the 3",
        ),
        ("user_id:token\titem_id:token\ttimestamp:float\nu\ti\t1\nü\tj\t1\n", "line 3: this is not utf-8 text"),
        ("user_id\titem_id\ttimestamp\nu\ti\t1\n", "column 'user_id' of the header has no type"),
        ("user_id:text\titem_id:token\ttimestamp:float\nu\ti\t1\n", "unknown type 'text'"),
        ("user_id:token\titem_id:token\tdate:float\nu\ti\t1\n", "no column 'timestamp'"),
        ("user_id:token\titem_id:token\ttimestamp:float\nu\ti\tMonday\n", "line 2: 'Monday' in column 'timestamp'"),
        ("user_id:token\titem_id:token\ttimestamp:float\nu\ti\tinf\n", "line 2: column 'timestamp' is infinite"),
        ("user_id:token\titem_id:token\ttimestamp:float\nu\ti\t\n", "user u with item i has no timestamp"),
        ("user_id:token\titem_id:token\ttimestamp:float\nu\ti\t1\nv\ti\t1\n", "no user with two training interactions"),
    ],
)
def test_wrong_interactions_are_explained(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "Wrong").mkdir()
        (tmp_path / "Wrong" / "Wrong.inter").write_text(content, encoding="latin-1")
    with pytest.raises(XferError, match=message):
        TransferDataset(config(tmp_path, "SASRec", "Wrong")).build()


@pytest.mark.parametrize(
    ("encoding", "keys"),
    [
        ("utf-8-sig", {}),  # as spreadsheets write it
        ("utf-16", {"encoding": "utf-16"}),
        ("latin-1", {"encoding": "latin-1"}),
        ("utf-8", {"field_separator": ","}),
        ("utf-8", {"ITEM_ID_FIELD": "asin", "TIME_FIELD": "when"}),
    ],
)
def test_files_may_be_written_otherwise(tmp_path: Path, encoding: str, keys: dict) -> None:
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


def test_a_column_that_is_needed_and_not_read(tmp_path: Path) -> None:
    write_small(tmp_path)
    inter = ["user_id", "item_id", "timestamp"]
    for keys, column in (
        ({"load_col": {"inter": inter[:2]}}, "'timestamp' of .*Small.inter"),
        ({"unload_col": {"inter": ["timestamp"]}, "load_col": None}, "'timestamp' of .*Small.inter"),
        ({"load_col": {"inter": inter, "item": ["price"]}}, "'item_id' of .*Small.item"),
    ):
        with pytest.raises(XferError, match=f"The column {column} is needed. Do not leave it out of load_col"):
            TransferDataset(config(tmp_path, **keys))


def test_a_quotation_mark_that_does_not_close(tmp_path: Path) -> None:
    """However long what follows it is, and where a row lacks a value besides."""
    rows = "u\ti\t1\n" * 40_000
    (tmp_path / "Wrong").mkdir()
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    (tmp_path / "Wrong" / "Wrong.inter").write_text(f'{header}u\ti\nu\t"i\t1\n{rows}')
    with pytest.raises(XferError, match="Wrong.inter cannot be read: .*EOF inside string"):
        TransferDataset(config(tmp_path, "SASRec", "Wrong"))


def test_a_row_too_long_is_found_beside_one_too_short(tmp_path: Path) -> None:
    file = write_small(tmp_path) / "Small.item"
    file.write_text("item_id:token\ttext:token_seq\tprice:float\tx:float\ni0\tred\t7\t5\t4\ni1\tblue\t2\n")
    with pytest.raises(XferError, match=r"Small.item, line 2: there are 5 values for the 4 columns"):
        _ = TransferDataset(config(tmp_path)).features


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_lines_may_end_in_any_way_and_lack_last_values(tmp_path: Path, end: str) -> None:
    file = tmp_path / "D.item"
    for rows in (["i0\tred\t7", "i1\t\t"], ["i0\tred\t7", "i1"], ['i0\t"red\t"\t7', "i1"]):
        lines = (end or "\n").join(["item_id:token\ttext:token\tprice:float", *rows])
        file.write_bytes((lines + end).encode())
        assert read_atomic_file(file)["price"].tolist() == pytest.approx([7, np.nan], nan_ok=True)


def test_a_sequence_of_numbers_with_a_word_in_it(tmp_path: Path) -> None:
    file = write_small(tmp_path) / "Small.item"
    file.write_text("item_id:token\tsize:float_seq\ni0\t1 2\ni1\t1 two\n")
    with pytest.raises(XferError, match=r"Small.item, line 3: '1 two' in column 'size' is no list of numbers"):
        TransferDataset(config(tmp_path, load_col=None))


def test_an_encoding_that_there_is_not(tmp_path: Path) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match="encoding=klingon is none that Python knows"):
        TransferDataset(config(tmp_path, encoding="klingon"))


def test_prices_that_are_no_numbers(tmp_path: Path) -> None:
    file = write_small(tmp_path) / "Small.item"
    file.write_text(file.read_text().replace("price:float", "price:token"))
    with pytest.raises(XferError, match="Write 'price:float' in the header"):
        _ = TransferDataset(config(tmp_path)).features


def test_an_infinite_price(tmp_path: Path) -> None:
    file = write_small(tmp_path) / "Small.item"
    file.write_text("item_id:token\tprice:float\ni0\t3\ni1\tinf\n")
    with pytest.raises(XferError, match="Small.item, line 3: column 'price' is infinite"):
        _ = TransferDataset(config(tmp_path)).features


def test_missing_vectors_name_what_makes_them(tmp_path: Path) -> None:
    folder = write_small(tmp_path)
    for kind, remedy in (("image", "come from you, as a file with"), ("text", "recbole-xfer encode")):
        (folder / f"Small.{kind}.parquet").unlink()
        with pytest.raises(XferError, match=f"no {kind} .*Small.{kind}.parquet.*{remedy}") as told:
            _ = TransferDataset(config(tmp_path, modalities=[kind])).features
        assert "prepare table" not in str(told.value)


def test_a_missing_dataset_names_the_command_that_makes_it(tmp_path: Path) -> None:
    for name, command in (
        ("CJ-Deli", "prepare completejourney"),
        ("Toy-Games", "prepare toy"),
        ("Mine", "prepare table"),
    ):
        with pytest.raises(XferError, match=command):
            TransferDataset(config(tmp_path, dataset=name))


def test_a_missing_inter_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "Empty").mkdir()
    with pytest.raises(XferError, match="Empty.inter is missing"):
        TransferDataset(config(tmp_path, dataset="Empty"))


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"timestamp": [5]}, r"val_interval.timestamp=\[5\] is invalid: it must be an interval such as '\[5,inf\)'"),
        ({"user_id": "[0,5)"}, r"val_interval.user_id=\[0,5\) is invalid: it must be a list of the values to keep"),
        ({"rating": "[3,5]"}, "val_interval: Small has no column 'rating', or load_col leaves it out"),
    ],
)
def test_a_filter_that_a_column_cannot_have(tmp_path: Path, kept: dict, message: str) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match=message):
        TransferDataset(config(tmp_path, val_interval=kept))


def test_no_user_left_after_filtering(tmp_path: Path) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match="No user of Small is left after filtering"):
        TransferDataset(config(tmp_path, user_inter_num_interval="[500,inf)"))


def test_joining_a_domain_with_itself(tmp_path: Path) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match="different domains"):
        TransferDataset(config(tmp_path, dataset="Small+Small"))
