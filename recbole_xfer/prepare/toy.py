"""A small made-up set with a known right answer: three domains, one rule, and what each part of an item tells.

An item has a topic, a colour and a price band. Only its text tells the topic, only its picture the colour, only its
price the band. A user's next item depends on the last one: each of the three classes is followed by one certain
class of its kind (``RULES``), independently of the other two; among the items of those classes the choice goes by
popularity. The rule is the same in all domains. Toy-Games has so few interactions that a learner must bring most
of the rule from Toy-Books or Toy-Music.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_xfer.data.vectors import write_vectors
from recbole_xfer.files import replacing
from recbole_xfer.prepare.domain import write_domain

CLASSES = {"text": 16, "image": 3, "price": 3}
"""Parts of an item, and how many classes each tells apart."""

PARTS = tuple(CLASSES)
FOLLOWED = 0.9  # how often a part's rule decides; else its class is drawn evenly
NOISE = 0.1  # share of steps that follow popularity alone
HOLES = {"text": 0.04, "image": 0.06, "price": 0.05}  # share of items where the part is missing
COLD = 0.08  # share of items that are only ever a user's last item, so never in training
ITEMS = 960  # of each domain: 20 share topic and colour, or topic and price, and the 10 best are looked at

WORDS_PER_TOPIC = 6
WORD_SIZE = 32  # dimension of a word's vector
PICTURE_SIZE = 8  # pixels in width and in height
PALETTE = np.array([[0.8, 0.3, 0.3], [0.3, 0.8, 0.3], [0.3, 0.3, 0.8]])
PRICE_BANDS = np.array([[2, 6], [12, 30], [60, 150]])


@dataclass(frozen=True)
class Size:
    """A domain's users, how many of them are in the other domains too, and how long their histories are."""

    users: int
    shared: int
    shortest: int
    longest: int


DOMAINS = {
    "Toy-Books": Size(users=600, shared=240, shortest=8, longest=16),
    "Toy-Music": Size(users=600, shared=240, shortest=8, longest=16),
    "Toy-Games": Size(users=400, shared=160, shortest=3, longest=5),
}
"""The last one is the target."""


@dataclass(frozen=True)
class ToyTruth:
    """All that is known of one domain, hidden classes included.

    Attributes:
        item_ids: [N].
        classes: of each part in the order of ``PARTS``, [N, 3].
        visible: whether the files tell the part, bool [N, 3].
        popularity: how likely an item is when nothing else is known; sums to 1, [N].
        cold: whether the item is only ever a user's last one, bool [N].
        rules: of each part, [K + 1, K + 1]: how likely the class of the column follows that of the row; the last
            row and column stand for an unknown class.
        interactions: ``user_id``, ``item_id``, ``timestamp``, in the order of time.
    """

    item_ids: np.ndarray
    classes: np.ndarray
    visible: np.ndarray
    popularity: np.ndarray
    cold: np.ndarray
    rules: tuple[np.ndarray, ...]
    interactions: pd.DataFrame

    def oracle(self, history: Sequence[str], know: Collection[str] = PARTS) -> np.ndarray:
        """How likely each item is next, [N], for one who knows the rule, the popularity, and the parts ``know``.

        Where the files do not tell a part of an item, the oracle does not know it either. ``history`` holds item ids,
        at least one; only the last one matters.
        """
        return self._next(np.array([pd.Index(self.item_ids).get_loc(history[-1])]), know)[0]

    def best(self, know: Collection[str] = PARTS, k: int = 10) -> dict[str, float]:
        """The oracle's recall and ndcg on every user's last item, ranked among all items."""
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
    """The truth behind the files that ``prepare_toy`` writes for a domain with the same seed."""
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


def prepare_toy(output: Path, seed: int = 0) -> list[Path]:
    """Writes the three domains, with texts, prices, pictures and the vectors of texts and pictures.

    Args:
        output: the folder that holds the domains.
        seed: equal seeds make equal files.

    Returns:
        The domains' folders; the target, Toy-Games, is the last.
    """
    return [_write(Path(output), name, toy_truth(name, seed), seed) for name in DOMAINS]


def _rules(seed: int) -> tuple[np.ndarray, ...]:
    """A rule for each part: its classes follow each other in one circle."""
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
    """How likely each item is after each of ``last``, [B, N]."""
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
    """Every user's items [users, longest], drawn step by step for all users at once."""
    steps = [_draw(np.tile(popularity * ~cold, (len(lengths), 1)), rng)]
    for step in range(1, lengths.max()):
        not_yet = cold & (step < lengths - 1)[:, None]  # [users, N]
        steps.append(_draw(np.where(not_yet, 0, _next_item(steps[-1], classes, popularity, rules)), rng))
    return np.stack(steps, axis=1)


def _interactions(
    name: str, item_ids: np.ndarray, histories: np.ndarray, lengths: np.ndarray, rng: np.random.Generator
) -> pd.DataFrame:
    """The first ``lengths`` items of each user's history, about one a day, in the order of time."""
    shared = DOMAINS[name].shared
    users = np.array([f"u{n:03}" if n < shared else f"u{n:03}{name[4].lower()}" for n in range(len(lengths))])
    user, step = np.nonzero(np.arange(histories.shape[1]) < lengths[:, None])
    day = 86_400  # seconds
    start = 1_600_000_000 + rng.integers(0, 30 * day, len(lengths))
    time = start[user] + step * day + rng.integers(0, day // 2, len(user))
    table = pd.DataFrame({"user_id": users[user], "item_id": item_ids[histories[user, step]], "timestamp": time})
    return table.sort_values("timestamp", kind="stable", ignore_index=True)


def _draw(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column of each row, by its weight."""
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
    _write_pictures(folder / "images", ids[has_picture], pictures[has_picture])
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
    from PIL import Image  # here, because only this step needs it

    shutil.rmtree(folder, ignore_errors=True)
    with replacing(folder) as temporary:
        temporary.mkdir()
        for name, picture in zip(ids, pictures, strict=True):
            Image.fromarray(picture).save(temporary / f"{name}.png")
