"""A small generated data set with a known answer: three domains that share one rule.

An item has a topic, a colour and a price band. Only its text shows the topic, only its picture the colour, and only
its price the band. A user's next item depends on the last item: each of the three classes is followed by one fixed
class of the same part, independently of the other two. Among the items of these classes, popularity decides. All
domains share the rule. Toy-Games has so few interactions that a model must transfer most of the rule from Toy-Books or
Toy-Music.
"""

from __future__ import annotations

import argparse
import re
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.vectors import write_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.files import replacing_folders
from recbole_xfer.prepare.pictures import FOLDER
from recbole_xfer.prepare.summary import Summary, describe

CLASSES = {"text": 16, "image": 3, "price": 3}
"""Parts of an item and their numbers of classes."""

PARTS = tuple(CLASSES)
FOLLOWED = 0.9  # probability that a part's rule decides; otherwise its class is drawn uniformly
NOISE = 0.1  # fraction of steps that follow popularity only
HOLES = {"text": 0.04, "image": 0.06, "price": 0.05}  # fraction of items without the part
COLD = 0.08  # fraction of items that occur only as a user's last item, so never in training
ITEMS = 960  # per domain: 20 share topic and colour, or topic and price; rankings have 10 items

WORDS_PER_TOPIC = 6
WORD_SIZE = 32  # dimension of a word's vector
PICTURE_SIZE = 8  # pixels in width and in height
PALETTE = np.array([[0.8, 0.3, 0.3], [0.3, 0.8, 0.3], [0.3, 0.3, 0.8]])
PRICE_BANDS = np.array([[2, 6], [12, 30], [60, 150]])


@dataclass(frozen=True)
class Size:
    """Numbers of a domain's users and of those in the other domains too, and the range of history lengths."""

    users: int
    shared: int
    shortest: int
    longest: int


DOMAINS = {
    "Toy-Books": Size(users=600, shared=240, shortest=8, longest=16),
    "Toy-Music": Size(users=600, shared=240, shortest=8, longest=16),
    "Toy-Games": Size(users=400, shared=160, shortest=3, longest=5),
}
"""The last domain is the target."""


@dataclass(frozen=True)
class ToyTruth:
    """The generated truth of one domain, including hidden classes.

    Attributes:
        item_ids: [N].
        classes: class of each part in the order of ``PARTS``, [N, 3].
        visible: whether the files show the part, bool [N, 3].
        popularity: probability of each item if nothing else is known, [N]; sums to 1.
        cold: whether the item occurs only as a user's last item, bool [N].
        rules: for each part, the probability that the column's class follows the row's, [K + 1, K + 1]; the last row
            and column stand for an unknown class.
        interactions: ``user_id``, ``item_id``, ``timestamp``, ordered by time.
    """

    item_ids: np.ndarray
    classes: np.ndarray
    visible: np.ndarray
    popularity: np.ndarray
    cold: np.ndarray
    rules: tuple[np.ndarray, ...]
    interactions: pd.DataFrame

    def oracle(self, history: Sequence[str], know: Collection[str] = PARTS) -> np.ndarray:
        """Returns the probability of each next item, [N], given the rule, the popularity and the parts ``know``.

        The oracle does not know a part that the files do not show. ``history`` has at least one item id; only the
        last matters.
        """
        return self._next(np.array([pd.Index(self.item_ids).get_loc(history[-1])]), know)[0]

    def best(self, know: Collection[str] = PARTS, k: int = 10) -> dict[str, float]:
        """Returns the oracle's recall and ndcg on every user's last item, ranked among all items."""
        log = self.interactions.sort_values("user_id", kind="stable")
        users = pd.Series(pd.Index(self.item_ids).get_indexer(log["item_id"])).groupby(log["user_id"].to_numpy())
        last, target = users.nth(-2).to_numpy(), users.nth(-1).to_numpy()
        scores = self._next(last, know)
        above = scores > scores[np.arange(len(target)), target][:, None]
        rank = 1 + above.sum(axis=1)
        gain = np.where(rank <= k, 1 / np.log2(rank + 1), 0)
        return {"recall": float((rank <= k).mean()), "ndcg": float(gain.mean())}

    def _next(self, last: np.ndarray, know: Collection[str]) -> np.ndarray:
        seen = self.visible & np.isin(PARTS, list(know))
        unknown = np.array(list(CLASSES.values()))
        return _next_item(last, np.where(seen, self.classes, unknown), self.popularity, self.rules)


def toy_truth(name: str = "Toy-Games", seed: int = 0) -> ToyTruth:
    """Generates the truth of a domain; ``prepare_toy`` writes its files for the same seed."""
    rng = np.random.default_rng([seed, list(DOMAINS).index(name)])
    classes = np.stack([rng.permutation(np.arange(ITEMS) % count) for count in CLASSES.values()], axis=1)
    popularity = rng.permutation((1 + np.arange(ITEMS)) ** -0.3)
    popularity /= popularity.sum()
    cold = rng.random(ITEMS) < COLD
    item_ids = np.array([f"{name[4].lower()}{number:03}" for number in range(ITEMS)], dtype=object)
    visible = rng.random((ITEMS, len(PARTS))) >= list(HOLES.values())
    rules = _rules(seed)
    size = DOMAINS[name]
    lengths = rng.integers(size.shortest, size.longest + 1, size.users)
    histories = _histories(lengths, classes, popularity, cold, rules, rng)
    return ToyTruth(
        item_ids=item_ids,
        classes=classes,
        visible=visible,
        popularity=popularity,
        cold=cold,
        rules=rules,
        interactions=_interactions(name, item_ids, histories, lengths, rng),
    )


def run(args: argparse.Namespace) -> list[Summary]:
    """Writes the domains; returns what is in each."""
    return [describe(folder) for folder in prepare_toy(args.output, seed=args.seed)]


def prepare_toy(output: Path, seed: int = 0) -> list[Path]:
    """Writes the three domains, with texts, prices, pictures and the vectors of texts and pictures.

    Args:
        output: the folder that holds the domains.
        seed: equal seeds give equal files.

    Returns:
        The domains' folders; the target, Toy-Games, is the last.

    Raises:
        XferError: if a picture of the user's own has the name of a generated one.
    """
    output = Path(output)
    with replacing_folders(output, _is_generated) as temporary:
        for name in DOMAINS:
            _write(temporary, name, toy_truth(name, seed), seed)
        for new in temporary.glob(f"*/{FOLDER}/*"):
            old = output / new.relative_to(temporary)
            if old.exists() and not _is_generated(old):
                raise XferError(f"{old} is not a generated picture. Move it elsewhere, or set another --output.")
    return [output / name for name in DOMAINS]


def _is_generated(path: Path) -> bool:
    """Whether a file is a picture that this module wrote, by its name, its format and its size."""
    if path.parent.name != FOLDER or not re.fullmatch(r"[bmg]\d{3}\.png", path.name):
        return False
    with path.open("rb") as file:
        start = file.read(24)
    return start[:8] == b"\x89PNG\r\n\x1a\n" and start[16:] == struct.pack(">2I", PICTURE_SIZE, PICTURE_SIZE)


def _rules(seed: int) -> tuple[np.ndarray, ...]:
    """A rule for each part: its classes follow one another in a circle."""
    rng = np.random.default_rng([seed, len(DOMAINS)])
    rules = []
    for count in CLASSES.values():
        circle = rng.permutation(count)
        rule = np.full((count + 1, count + 1), 1 / count)
        rule[:count, :count] = (1 - FOLLOWED) / count
        rule[circle, np.roll(circle, -1)] += FOLLOWED
        rules.append(rule)
    return tuple(rules)


def _next_item(
    last: np.ndarray, classes: np.ndarray, popularity: np.ndarray, rules: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Probability of each item after each of ``last``, [B, N]."""
    follows = np.prod([rule[own[last]][:, own] for rule, own in zip(rules, classes.T, strict=True)], axis=0)
    weights = follows * popularity
    return (1 - NOISE) * weights / weights.sum(axis=1, keepdims=True) + NOISE * popularity


def _histories(
    lengths: np.ndarray,
    classes: np.ndarray,
    popularity: np.ndarray,
    cold: np.ndarray,
    rules: tuple[np.ndarray, ...],
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws every user's items [users, longest], step by step for all users at once."""
    steps = [_draw(np.tile(popularity * ~cold, (len(lengths), 1)), rng)]
    for step in range(1, lengths.max()):
        not_yet = cold & (step < lengths - 1)[:, None]  # [users, N]
        steps.append(_draw(np.where(not_yet, 0, _next_item(steps[-1], classes, popularity, rules)), rng))
    return np.stack(steps, axis=1)


def _interactions(
    name: str, item_ids: np.ndarray, histories: np.ndarray, lengths: np.ndarray, rng: np.random.Generator
) -> pd.DataFrame:
    """The first ``lengths`` items of each user's history, about one per day, ordered by time."""
    shared = DOMAINS[name].shared
    users = np.array([f"u{n:03}" if n < shared else f"u{n:03}{name[4].lower()}" for n in range(len(lengths))])
    user, step = np.nonzero(np.arange(histories.shape[1]) < lengths[:, None])
    day = 86_400  # seconds
    start = 1_600_000_000 + rng.integers(0, 30 * day, len(lengths))
    time = start[user] + step * day + rng.integers(0, day // 2, len(user))
    table = pd.DataFrame({"user_id": users[user], "item_id": item_ids[histories[user, step]], "timestamp": time})
    return table.sort_values("timestamp", kind="stable", ignore_index=True)


def _draw(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws one column per row, in proportion to its weight."""
    total = weights.cumsum(axis=1)
    return (total < rng.random((len(weights), 1)) * total[:, -1:]).sum(axis=1)


def _write(output: Path, name: str, truth: ToyTruth, seed: int) -> Path:
    rng = np.random.default_rng([seed, len(DOMAINS) + 1, list(DOMAINS).index(name)])
    topic, colour, band = truth.classes.T
    has_text, has_picture, has_price = truth.visible.T
    texts, text_vectors = _texts(topic, rng)
    noise = rng.normal(0, 0.2, (ITEMS, PICTURE_SIZE, PICTURE_SIZE, 3))
    pictures = np.uint8(255 * np.clip(PALETTE[colour][:, None, None] + noise, 0, 1))
    prices = np.round(rng.uniform(*PRICE_BANDS[band].T), 2)
    items = pd.DataFrame(
        {
            "item_id": truth.item_ids,
            "text": np.where(has_text, texts, ""),
            "price": np.where(has_price, prices, np.nan),
        }
    )
    folder = write_domain(output, name, truth.interactions, items)
    ids = truth.item_ids
    write_vectors(
        folder / f"{name}.text.parquet",
        ids[has_text],
        text_vectors[has_text].astype(np.float32),
        encoder="toy words",
        source="mean of the vectors of the text's words",
    )
    _write_pictures(folder / FOLDER, ids[has_picture], pictures[has_picture])
    write_vectors(
        folder / f"{name}.image.parquet",
        ids[has_picture],
        pictures[has_picture].reshape(-1, PICTURE_SIZE * PICTURE_SIZE * 3).astype(np.float32) / 255,
        encoder="toy pixels",
        source="pixels of the pictures in images/",
    )
    return folder


def _texts(topic: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Three different words of the topic's vocabulary for each item, [N], and the mean of their vectors, [N, D]."""
    fixed = np.random.default_rng(0)
    syllables = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
    pairs = fixed.choice(len(syllables) ** 2, size=(CLASSES["text"], WORDS_PER_TOPIC), replace=False)
    words = np.array(syllables)[pairs // len(syllables)] + np.array(syllables)[pairs % len(syllables)]
    vectors = fixed.normal(size=(*words.shape, WORD_SIZE))
    chosen = rng.random((len(topic), WORDS_PER_TOPIC)).argsort(axis=1)[:, :3]
    texts = [" ".join(row) for row in words[topic[:, None], chosen]]
    return np.array(texts, dtype=object), vectors[topic[:, None], chosen].mean(axis=1)


def _write_pictures(folder: Path, ids: np.ndarray, pictures: np.ndarray) -> None:
    """``<folder>/<item id>.png`` for each of ``pictures`` [N, H, W, 3]."""
    from PIL import Image  # here, because only this function needs it

    folder.mkdir()
    for name, picture in zip(ids, pictures, strict=True):
        Image.fromarray(picture).save(folder / f"{name}.png")
