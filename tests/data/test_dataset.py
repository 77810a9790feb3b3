"""TransferDataset: RecBole's rows without its copies, joined domains and loaders."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recbole.config import Config
from recbole.data import create_dataset

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
def test_rows_equal_those_of_recbole(tmp_path: Path, keys: dict) -> None:
    """Equal users, targets and histories in equal parts, for every split and filter of RecBole."""
    write_small(tmp_path)
    assert_rows_equal_recboles(tmp_path, keys)


def test_rows_of_a_split_by_time_equal_those_of_recbole(tmp_path: Path) -> None:
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


def test_windows_contain_only_the_training_rows(tmp_path: Path) -> None:
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
    """Each by all previous records; training users are trained up to their last record (RETR, appendix D)."""
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


def test_held_out_users_do_not_depend_on_the_seed(tmp_path: Path) -> None:
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


def test_joined_domains_separate_items_and_share_users(tmp_path: Path) -> None:
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


def test_seen_items_are_the_history_before_the_target(tmp_path: Path) -> None:
    write_small(tmp_path)
    test = TransferDataset(config(tmp_path, "SASRec", MAX_ITEM_LIST_LENGTH=3)).build()[2]
    rows = test[np.arange(len(test))]
    row, item = test.seen_items(rows)
    data = test.sequences
    for number, target in enumerate(rows[TransferDataset.ROW].tolist()):
        start = data.starts[data.history_of(np.array([target]))[0]]
        expected = set(data.items[start:target])
        assert set(item[row == number].tolist()) == expected


def test_loaders_support_full_and_sampled_ranking(tmp_path: Path) -> None:
    write_small(tmp_path)
    for mode in ("full", "uni5", "pop5"):
        split = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": mode}
        settings = config(tmp_path, "SASRec", eval_args=split)
        _, valid, _ = make_loaders(settings, make_dataset(settings))
        assert len(next(iter(valid))) == 4


def test_ranking_without_sequences_respects_the_batch_size(tmp_path: Path) -> None:
    write_small(tmp_path)
    modes = {"valid": "uni4", "test": "full"}
    split = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": modes}
    settings = config(tmp_path, "BPR", eval_args=split, eval_batch_size=20)
    _, valid, test = make_loaders(settings, make_dataset(settings))
    assert max(len(batch[0]) for batch in valid) == 20
    assert max(len(batch[0]) for batch in test) == 20
    assert settings["eval_batch_size"] == 20


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"loss_type": "BPR"}, "Small has one item, so no negative can be drawn"),
        ({"eval_args": {"mode": "uni5"}}, "eval_args.mode=uni5 needs 5 negatives, but Small has 1 items"),
    ],
)
def test_negatives_need_two_items(tmp_path: Path, keys: dict, message: str) -> None:
    write_small(tmp_path, items=1, holes=False)
    made = config(tmp_path, "SASRec", topk=[1], **keys)
    with pytest.raises(XferError, match=message):
        make_loaders(made, make_dataset(made))
