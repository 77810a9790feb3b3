"""Flat histories, their windows and splits."""

import numpy as np
import pytest

from recbole_xfer.data.histories import Sequences, gather, prefixes, ranges, windows
from recbole_xfer.data.splits import (
    Ranges,
    by_part,
    by_ratio,
    describe,
    held_out_users,
    leave_one_out,
    split,
    untrained_parts,
)
from recbole_xfer.errors import XferError


def histories(seed: int = 0, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.random.default_rng(seed).integers(1, 30, count)
    ends = np.cumsum(lengths)
    return ends - lengths, ends


@pytest.mark.parametrize("size", [1, 2, 5, 10])
def test_windows_train_every_target_once_with_a_long_past(size: int) -> None:
    starts, ends = histories()
    for stride in range(1, size + 1):
        cut = windows(starts, ends, size, stride)
        targets = ranges(cut.start + cut.skip + 1, cut.start + cut.length + 1)
        assert sorted(targets) == list(ranges(starts + 1, ends))
        assert cut.length.max() <= size
        history = np.searchsorted(starts, targets, side="right") - 1
        past = targets - np.repeat(cut.start, cut.targets)
        assert (past >= np.minimum(targets - starts[history], size - stride + 1)).all()


def test_windows_of_stride_one_give_every_target_the_past_of_its_prefix() -> None:
    starts, ends = histories(1)
    cut, rows = windows(starts, ends, 5, 1), prefixes(starts, ends, 5)
    pasts = {
        target: target - start
        for start, skip, length in zip(cut.start, cut.skip, cut.length, strict=True)
        for target in range(start + skip + 1, start + length + 1)
    }
    assert pasts == dict(zip(rows.start + rows.length, rows.length, strict=True))


def test_gather_pads_on_the_right() -> None:
    rows = gather(np.arange(10, 20), np.array([0, 4]), np.array([3, 1]))
    assert rows.tolist() == [[10, 11, 12], [14, 0, 0]]


def test_histories_are_grouped_in_order_and_separated_by_domain() -> None:
    users, items = np.array([2, 1, 2, 2, 1]), np.array([5, 6, 7, 8, 9])
    together = Sequences.from_interactions(users, items)
    assert together.items.tolist() == [6, 9, 5, 7, 8]
    assert together.users.tolist() == [1, 2]
    separate = Sequences.from_interactions(users, items, np.array([0, 0, 1, 0, 0]))
    assert [separate.items[a:b].tolist() for a, b in zip(separate.starts, separate.ends, strict=True)] == [
        [6, 9],
        [5, 8],
        [7],
    ]
    assert separate.users.tolist() == [1, 2, 2]


def sequences(seed: int = 0) -> Sequences:
    starts, ends = histories(seed)
    users = np.repeat(np.arange(1, len(starts) + 1), ends - starts)
    return Sequences.from_interactions(users, np.arange(1, ends[-1] + 1))


def test_splits_never_overlap_and_cover_every_target() -> None:
    data = sequences()
    splits = [leave_one_out(data, mode) for mode in ("valid_and_test", "valid_only", "test_only")]
    splits += [by_ratio(data, [8, 1, 1], by_user) for by_user in (True, False)]
    for parts in splits:
        targets = np.concatenate([ranges(*part) for part in parts])
        assert sorted(targets) == list(ranges(data.starts + 1, data.ends))


def test_leave_one_out_tests_the_last_item() -> None:
    data = sequences()
    train, valid, test = leave_one_out(data, "valid_and_test")
    long = data.ends - data.starts >= 4
    assert (test[0][long] == data.ends[long] - 1).all()
    assert (valid[0][long] == data.ends[long] - 2).all()
    assert (train[1][long] == data.ends[long] - 2).all()


def test_held_out_users_are_never_trained() -> None:
    data = sequences()
    train, valid, test = held_out_users(data, [6, 2, 2], 2)
    groups = [set(np.flatnonzero(first < end)) for first, end in (train, valid, test)]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert all(groups)
    assert max(np.subtract(*test[::-1])) == 2
    longer = (data.ends - data.starts > 1).sum()
    assert abs(len(groups[0]) - 0.6 * longer) <= 3  # users with one record have no target


SPLITS = [{"LS": "valid_and_test"}, {"LS": "valid_only"}, {"RS": [8, 1, 1]}, {"NU": 0.2}, {"HU": [6, 2, 2]}]


def shared(kind: dict, train_share: float) -> list[Ranges]:
    return split(sequences(), {"split": kind, "order": "TO", "group_by": "user"}, 2, train_share)


def users_with(part: Ranges) -> set[int]:
    """The histories with targets in a part; each user has one."""
    return set(np.flatnonzero(part[0] < part[1]).tolist())


@pytest.mark.parametrize("kind", SPLITS, ids=str)
def test_a_share_of_users_is_trained_and_validated_and_test_targets_stay(kind: dict) -> None:
    whole, before = shared(kind, 1), [set(), set()]
    for share in (0.1, 0.3, 0.5, 0.9):
        parts = shared(kind, share)
        assert np.array_equal(ranges(*parts[2]), ranges(*whole[2]))
        for number in (0, 1):
            kept = users_with(parts[number])
            assert before[number] <= kept <= users_with(whole[number])
            assert abs(len(kept) - share * len(users_with(whole[number]))) <= 6
            targets = [ranges(*of[number]) for of in (whole, parts)]
            mine = sequences().history_of(targets[0])
            assert np.array_equal(targets[0][np.isin(mine, list(kept))], targets[1])  # a user's targets stay together
            before[number] = kept
        if "HU" not in kind:
            assert users_with(parts[1]) <= users_with(parts[0])


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_a_share_of_users_trains_those_that_are_not_new(share: float) -> None:
    ours, theirs = shared(SPLITS[0], share), shared({"NU": round(1 - share, 1)}, 1)
    assert all(np.array_equal(ranges(*a), ranges(*b)) for a, b in zip(ours, theirs, strict=True))


def test_a_split_by_files_has_the_same_share_of_users() -> None:
    data = sequences()
    parts = np.zeros(len(data.items), dtype=int)
    for number, part in enumerate(shared(SPLITS[0], 1), start=1):
        parts[data.order[ranges(*part)]] = number
    users = np.empty(len(parts), dtype=int)
    users[data.order] = data.users[data.history_of(np.arange(len(parts)))]
    ours = by_part(data, untrained_parts(users, parts, 1 - 0.3))
    for found, wanted in zip(ours, shared(SPLITS[0], 0.3), strict=True):
        assert np.array_equal(ranges(*found), ranges(*wanted))


def test_everything_is_trained_if_nothing_is_held_out() -> None:
    args = {"split": {"LS": "none"}, "order": "TO"}
    train, *_ = split(sequences(), args, 1, train_share=0.1)
    assert len(ranges(*train)) == len(sequences().items) - len(sequences())
    assert describe(args, 1, train_share=0.1) == "nothing held out"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ({"LS": "valid_and_test"}, "leave one out by time, 0.5% of the users trained"),
        ({"NU": 0.2}, "leave one out by time, 0.2 of users new, 0.5% of the others trained"),
        ({"HU": [8, 1, 1]}, "last 2 items of each, 0.5% of the training and validation users used"),
    ],
)
def test_the_description_of_a_split_has_the_share(kind: dict, text: str) -> None:
    assert describe({"split": kind}, 2, 0.005).endswith(text)
    assert "%" not in describe({"split": kind}, 2, 1.0)


def test_an_unknown_split_names_the_known_ones() -> None:
    with pytest.raises(XferError, match="valid_and_test, valid_only, test_only or none"):
        split(sequences(), {"split": {"LS": "both"}, "order": "TO"}, held_out_targets=1)
