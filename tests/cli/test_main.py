"""The command line from a user's view: output, exit status, one sentence for each error."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_xfer import quick_start, stages
from recbole_xfer.cli.main import main
from recbole_xfer.quick_start import run
from recbole_xfer.testing.data import settings, write_small


def keys(root: Path, model: str = "ANT") -> list[str]:
    return [f"--{key}={value}" for key, value in settings(root, model).items()]


def test_run_prints_metrics_and_protocol(in_tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_small(in_tmp_path)
    assert main(["--model=ANT", "--dataset=Small", *keys(in_tmp_path)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    for words in (
        "ANT (scratch) on Small",
        "ndcg@10",
        "leave one out",
        "all 25 items",
        "history kept",
        "seed 2020",
    ):
        assert words in output


def test_pretrain_then_adapt(in_tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_small(in_tmp_path)
    write_small(in_tmp_path, "A", seed=1)
    assert main(["pretrain", "--model=ANT", "--source=A", "--pretrain_epochs=1", *keys(in_tmp_path)]) == 0
    folder = capsys.readouterr().out.strip()
    assert main(["adapt", "--model=ANT", "--dataset=Small", f"--pretrained={folder}", *keys(in_tmp_path)]) == 0
    assert "ANT (relearn) on Small" in capsys.readouterr().out


def test_the_options_of_recbole_s_own_script_work(in_tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_small(in_tmp_path)
    options = ["-m", "Pop", "-d", "Small", *keys(in_tmp_path, "Pop")]
    for command in (options, ["run", *options]):
        assert main(command) == 0
        assert "Pop on Small" in capsys.readouterr().out


def test_compare_prints_table_and_verdict_and_trains_nothing_twice(
    in_tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small(in_tmp_path)
    write_small(in_tmp_path, "A", seed=1)
    plan = in_tmp_path / "plan.yaml"
    plan.write_text(
        "dataset: Small\nsource: A\nseeds: [1, 2]\nepochs: 1\ntopk: [5, 10]\nMAX_ITEM_LIST_LENGTH: 10\n"
        f"data_path: {in_tmp_path}\nrows:\n- model: Pop\n- {{model: ANT, adaptation: scratch, hidden_size: 16}}\n"
        "- {model: ANT, adaptation: relearn, hidden_size: 16, pretrain_epochs: 1}\n"
    )
    assert main(["compare", str(plan), "--result=table.json"]) == 0
    output = capsys.readouterr().out
    assert "±" in output
    assert "Transfer from A" in " ".join(output.split())
    table = json.loads((in_tmp_path / "table.json").read_text())
    assert len(table["runs"]) == 6
    assert set(table["summary"]) == {"Pop", "ANT (scratch)", "ANT (relearn)"}

    monkeypatch.setattr(stages, "fit", None)  # the second call trains nothing
    assert main(["compare", str(plan), "--result=again.json"]) == 0
    assert json.loads((in_tmp_path / "again.json").read_text()) == table
    assert main(["compare", str(plan), "--result=one.json", "--seeds=[2]"]) == 0
    assert json.loads((in_tmp_path / "one.json").read_text())["runs"] == table["runs"][1::2]


def test_evaluate_measures_finished_runs_again(in_tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_small(in_tmp_path)
    folders = [
        run(model, "Small", overrides=settings(in_tmp_path, model) | {"seed": seed}).folder
        for model in ("SASRec", "Pop")
        for seed in (1, 2)
    ]
    before = {folder: (Path(folder) / "result.json").read_bytes() for folder in folders}
    assert main(["evaluate", *folders, "--mask_history=True", "--topk=[3]", "--result=table.json"]) == 0
    assert main(["evaluate", *folders, "--eval_args={'mode': 'uni5'}", "--topk=[3]"]) == 0  # a space in a value
    table = json.loads((in_tmp_path / "table.json").read_text())
    assert "history masked" in table["measured"] and "seeds 1, 2" in table["measured"]
    assert set(table["summary"]["SASRec"]) == {"recall@3", "ndcg@3"}
    assert {folder: (Path(folder) / "result.json").read_bytes() for folder in folders} == before
    wider = run("SASRec", "Small", overrides=settings(in_tmp_path, "SASRec") | {"seed": 1, "hidden_size": 32}).folder
    labels = [result.label for result in quick_start.evaluate([*folders, wider]).results]
    assert labels == ["SASRec hidden_size=16", "SASRec hidden_size=16", "Pop", "Pop", "SASRec hidden_size=32"]
    again = quick_start.evaluate(folders[:1]).results[0]
    assert json.loads(before[folders[0]]) == again.as_dict()
    capsys.readouterr()
    assert main(["evaluate", folders[0], str(in_tmp_path)]) == 0
    assert f"{in_tmp_path} is skipped: it has no finished run." in capsys.readouterr().err
    assert main(["evaluate", str(in_tmp_path), "saved"]) == 2
    assert f"No finished run is in {in_tmp_path}, saved. Name the folders of finished" in capsys.readouterr().err


def test_evaluate_stops_at_the_first_run_that_cannot_be_compared(
    in_tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small(in_tmp_path)
    keys = settings(in_tmp_path, "Pop")
    first, second = (run("Pop", "Small", overrides=keys | {"seed": seed}).folder for seed in (1, 2))
    other = run("Pop", "Small", overrides=keys | {"topk": [3], "valid_metric": "NDCG@3"}).folder
    loaded, load = [], quick_start.load
    monkeypatch.setattr(quick_start, "load", lambda folder, keys: [loaded.append(folder), load(folder, keys)][1])
    assert main(["evaluate", first, other, second]) == 2
    assert "different metrics" in capsys.readouterr().err
    assert loaded == [first, other]


def test_config_files_are_given_in_one_option_or_several(in_tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_small(in_tmp_path)
    (in_tmp_path / "a.yaml").write_text(f"dataset: Small\nmodel: Pop\ntopk: [7]\ndata_path: {in_tmp_path}\n")
    (in_tmp_path / "b.yaml").write_text("topk: [3]\nvalid_metric: NDCG@3\n")
    for arguments in (["--config_files=a.yaml b.yaml"], ["--config_files=a.yaml", "--config_files=b.yaml"]):
        assert main(arguments) == 0
        assert "recall@3" in capsys.readouterr().out


def test_compare_and_evaluate_read_config_files(in_tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_small(in_tmp_path)
    Path("shared.yaml").write_text(f"dataset: Small\ntopk: [7]\nvalid_metric: NDCG@7\ndata_path: {in_tmp_path}\n")
    Path("plan.yaml").write_text("rows: [{model: Pop}]\n")
    assert main(["compare", "plan.yaml", "--config_files=shared.yaml"]) == 0
    assert "recall@7" in capsys.readouterr().out
    Path("shorter.yaml").write_text("topk: [3]\nvalid_metric: NDCG@3\n")
    (run,) = Path("saved").glob("Pop-Small-*")
    assert main(["evaluate", str(run), "--config_files=shorter.yaml"]) == 0
    assert "recall@3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=ANT", "--dataset=Nowhere"], "Nowhere does not exist"),
        (["--model=ANT", "--dataset=Small", "--learning_rat=1"], "Did you mean 'learning_rate'"),
        (["--model=Nothing", "--dataset=Small"], "does not exist"),
        (["--model=ANT", "--dataset=Small", "epochs=3"], "Write keys as --key=value"),
        (["--model=ANT", "--dataset=Small", "--mod=RETR"], "Did you mean"),  # no abbreviations
        (["--model=ANT", "--dataset=Small", "--epochs"], "has no value"),
        (["--model=ANT", "--dataset=Bare"], "has no text and no image and no price"),
        (["--model=ANT", "--dataset=Small", "--modalities=['sound']"], "must be a list of some of text, image, price"),
        (["adapt", "--model=ANT", "--dataset=Small", "--pretrained=nowhere"], "has no trained model"),
        (["compare", "nowhere.yaml"], "nowhere.yaml is missing"),
        (["prepare", "toy", "--nothing=1"], "is not an option of prepare"),
    ],
)
def test_an_error_in_the_input_is_one_sentence_and_status_2(
    in_tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    write_small(in_tmp_path)
    (in_tmp_path / "Bare").mkdir()
    inter = (in_tmp_path / "Small" / "Small.inter").read_text()
    (in_tmp_path / "Bare" / "Bare.inter").write_text(inter)
    runs = arguments[0].startswith("--") or arguments[0] == "adapt"
    assert main([*arguments, *([f"--data_path={in_tmp_path}", "--topk=[5]"] if runs else [])]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("plan", "option", "message"),
    [
        ("dataset: Small\nrows: [{model: Pop}]", "--seed=7", "seed=7 is invalid in a comparison. Set the seeds of all"),
        ("dataset: Small\nrows: [{model: Pop, seed: 7}]", "--seeds=[7]", "seed=7 is invalid in a comparison"),
        ("dataset: Small\nrows: [{model: Pop}]", "--seeds=7", "seeds=7 is invalid: it must be a list of integers"),
        ("dataset: Small\nrows: [{model: Pop}]", "--seeds=[]", "seeds=[] is invalid: it must be a list of integers"),
        ("dataset: Small\nrows: 5", "--seeds=[7]", "plan.yaml: 'rows' must be a list with a 'model' in each entry"),
        ("dataset: Small\nrows: [{epochs: 1}]", "--seeds=[7]", "'rows' must be a list with a 'model' in each entry"),
        ("dataset: [A, B]\nrows: [{model: Pop}]", "--seeds=[7]", "dataset=['A', 'B'] is invalid: it must be a name"),
        ("rows: [{model: Pop}]", "--seeds=[7]", "plan.yaml lacks the key 'dataset'"),
        (
            "dataset: Small\nhiden_size: 8\nrows: [{model: Pop}, {model: SASRec}]",
            "--seeds=[7]",
            "Unknown key 'hiden_size'. Did you mean 'hidden_size'?",
        ),
        ("dataset: Small\nrows: [{model: Pop}]", "--hidden_size=8", "Unknown key 'hidden_size'."),
        ("dataset: Small\nrows: [{model: Pop, hidden_size: 8}]", "--seeds=[7]", "Unknown key 'hidden_size'."),
        ("dataset: Small\nrows: [{model: Popp}]", "--epochs=1", "The model 'Popp' does not exist. Did you mean 'Pop'?"),
    ],
)
def test_compare_rejects_an_invalid_plan(
    in_tmp_path: Path, capsys: pytest.CaptureFixture, plan: str, option: str, message: str
) -> None:
    Path("plan.yaml").write_text(plan)
    assert main(["compare", "plan.yaml", option]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_module_is_named_without_guessing_its_package(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def needs_faiss(**_: object) -> None:
        raise ModuleNotFoundError(name="faiss")  # its package has another name: faiss-cpu

    monkeypatch.setattr(quick_start, "run", needs_faiss)
    assert main(["--model=NCL", "--dataset=Small"]) == 2
    assert "needs the Python module faiss. Install the package that provides it." in capsys.readouterr().err


def test_the_line_of_an_invalid_price_is_named(in_tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_small(in_tmp_path)
    for price in ("$12.99", "12,99"):
        (folder / "Small.item").write_text(f"item_id:token\tprice:float\ni1\t3.5\ni2\t{price}\n")
        assert main(["--model=ANT", "--dataset=Small", f"--data_path={in_tmp_path}", "--topk=[5]"]) == 2
        assert f"line 3: '{price}' in column 'price' is not a number" in capsys.readouterr().err


def test_the_script_runs_in_a_clone_without_installation(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "run_recbole_xfer.py"
    done = subprocess.run(
        [sys.executable, str(script), "--model=ANT", "--dataset=Nowhere"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "error: " in done.stderr and "Traceback" not in done.stderr
