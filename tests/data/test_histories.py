"""Flat histories, their windows and splits."""

import numpy as np
import pytest

from recbole_xfer.data.histories import Sequences, gather, prefixes, ranges, windows
from recbole_xfer.data.splits import by_ratio, held_out_users, leave_one_out, split
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


def test_an_unknown_split_names_the_known_ones() -> None:
    with pytest.raises(XferError, match="valid_and_test, valid_only, test_only or none"):
        split(sequences(), {"split": {"LS": "both"}, "order": "TO"}, held_out_targets=1)
