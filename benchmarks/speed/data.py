"""Random data with the size and shape of a real data set, the same for every benchmark."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SHORTEST, LONGEST = 5, 30
POPULARITY_SPREAD = 1.18


class PantryLike(NamedTuple):
    """Histories, and the vectors and prices of their items. Item ids start at 1; id 0 is padding and has zeros.

    The items of user u, in order of time, are `history[offsets[u]:offsets[u + 1]]`.
    """

    history: NDArray[np.int64]  # [interactions]
    offsets: NDArray[np.int64]  # [users + 1]
    text: NDArray[np.float32]  # [items + 1, text width]
    image: NDArray[np.float32]  # [items + 1, image width]
    price: NDArray[np.float32]  # [items + 1], dollars


def history_lengths(users: int, interactions: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draws lengths [users] that sum to `interactions`, as in Amazon Pantry: 5 to 30, half of them at most 7.

    Raises ValueError if no such lengths have that sum.
    """
    if not SHORTEST * users <= interactions <= LONGEST * users:
        raise ValueError(f"{users} users have {SHORTEST * users} to {LONGEST * users} interactions, not {interactions}")
    excess = interactions / users - SHORTEST
    lengths = SHORTEST - 1 + generator.geometric(1 / (1 + excess), users)
    lengths = lengths.clip(SHORTEST, LONGEST)
    # The sum is close now: adding or removing single interactions makes it exact.
    while missing := interactions - int(lengths.sum()):
        free = np.flatnonzero(lengths < LONGEST if missing > 0 else lengths > SHORTEST)
        lengths[generator.choice(free, min(abs(missing), len(free)), replace=False)] += np.sign(missing)
    return lengths


def pantry_like(
    users: int = 12_608,
    items: int = 4_926,
    interactions: int = 109_007,
    seed: int = 0,
    text_size: int = 768,
    image_size: int = 1_024,
) -> PantryLike:
    """Draws histories with the lengths and the item popularity of Amazon Pantry, and random item features."""
    generator = np.random.default_rng(seed)
    offsets = np.zeros(users + 1, dtype=np.int64)
    np.cumsum(history_lengths(users, interactions, generator), out=offsets[1:])
    popularity = generator.lognormal(sigma=POPULARITY_SPREAD, size=items)
    history = 1 + generator.choice(items, interactions, p=popularity / popularity.sum())
    text = generator.standard_normal((items + 1, text_size), dtype=np.float32)
    image = generator.standard_normal((items + 1, image_size), dtype=np.float32)
    price = generator.lognormal(mean=2, size=items + 1).astype(np.float32)
    text[0], image[0], price[0] = 0, 0, 0
    return PantryLike(history, offsets, text, image, price)


def prefix_rows(
    history: NDArray[np.int64], offsets: NDArray[np.int64], rows: int, length: int, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Draws training rows as RecBole's augmentation makes them: one for each prefix of a history and its next item.

    The last two items of a history are left out, for validation and test. Returns the prefixes [rows, length],
    padded with 0 on the right, their lengths [rows] and the next items [rows]. Raises ValueError if there are
    fewer than `rows` prefixes.
    """
    owners = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    place = np.arange(len(history)) - offsets[owners]
    targets = np.flatnonzero((place > 0) & (place < np.diff(offsets)[owners] - 2))
    targets = np.random.default_rng(seed).choice(targets, rows, replace=False)
    lengths = np.minimum(place[targets], length)
    columns = np.arange(length)
    source = targets[:, None] - lengths[:, None] + columns
    inside = columns < lengths[:, None]
    prefixes = np.where(inside, history[np.where(inside, source, 0)], 0)
    return prefixes, lengths, history[targets]
