"""Finds what is probably wrong in a domain's files; each finding is a sentence that says what to do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from recbole_xfer.check.domain import Domain

MILLISECONDS = 1e11
"""Times above this are not seconds: this many are the year 5138."""

DAYS = (19000101, 21001231)
"""Between these numbers are days that are written without separators."""

EARLIEST = 631152000
"""The year 1990; few logs of interactions are older."""

MANY = 100
"""A price or a history that is this many times the median is suspicious."""

CONSTANT = 0.1
"""Share of a vector's entries that are the same for all items from which it is suspicious."""

TIED = 0.2
"""Share of interactions at the same time as another one of the user that is suspicious."""

MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|&[a-zA-Z]+;|&#\d+;")


def suspicions(domain: Domain, now: float | None = None) -> list[str]:
    """Returns what is suspicious in a domain, one sentence each.

    Args:
        domain: as read.
        now: seconds since 1970; the present by default.
    """
    present = time.time() if now is None else now
    return [
        *_missing(domain),
        *_swapped(domain),
        *_alike("user", domain.user),
        *_alike("item", domain.item),
        *_unlisted(domain),
        *_repeated_rows(domain),
        *_times(domain, present),
        *_long_histories(domain),
        *_texts(domain),
        *_prices(domain),
        *_vectors(domain),
    ]


def _missing(domain: Domain) -> Iterator[str]:
    for name, column in (("user", domain.user), ("item", domain.item)):
        if column.isna().any():
            yield (
                f"Interactions without a {name}, or with a word such as NA that is read as missing: "
                f"{column.isna().sum():,}. Remove the rows, or rename the id."
            )


def _swapped(domain: Domain) -> Iterator[str]:
    """Users whose ids the .item file lists, and items that it does not list."""
    if len(domain.items):
        users, items = (column.isin(domain.items.index).mean() for column in (domain.user, domain.item))
        if users > 0.5 > items:
            yield "user_id and item_id are probably swapped: the .item file lists the users. Swap the columns."


def _alike(name: str, column: pd.Series) -> Iterator[str]:
    """Ids that differ only in case or blanks."""
    ids = pd.Series(column.dropna().unique()).astype(str)
    same = ids.str.split().str.join(" ").str.casefold()
    groups = ids.groupby(same.to_numpy()).agg(list)
    groups = groups[groups.str.len() > 1]
    if len(groups):
        first, second = groups.iloc[0][:2]
        yield (
            f"Ids of {name}s that differ from another one only in case or blanks: {groups.str.len().sum():,}, such as "
            f"{first!r} and {second!r}. Write one {name}'s id the same way."
        )


def _unlisted(domain: Domain) -> Iterator[str]:
    if len(domain.items):
        unlisted = domain.counts.index.difference(domain.items.index)
        if len(unlisted):
            yield (
                f"Items with interactions that are not in the .item file: {len(unlisted):,} of {len(domain.counts):,}, "
                f"such as {unlisted[0]!r}. They have no features."
            )


def _repeated_rows(domain: Domain) -> Iterator[str]:
    if domain.time is not None:
        rows = pd.DataFrame({"user": domain.user, "item": domain.item, "time": domain.time})
        repeated = int(rows.duplicated().sum())
        if repeated:
            yield (
                f"Interactions that repeat a row with the same user, item and time: {repeated:,}. Remove them unless a "
                f"user can interact twice at once."
            )


def _times(domain: Domain, now: float) -> Iterator[str]:
    times = domain.time
    if times is not None and _are_days(times):
        yield f"The times are probably days, such as {times.iloc[0]:.0f}. Prepare them with --time_format '%Y%m%d'."
    if times is None or not domain.dated:
        return
    if times.max() > MILLISECONDS:
        yield f"The times are probably milliseconds ({times.max():.0f}). Divide them by 1,000."
        return
    if (times > now).any():
        last = pd.Timestamp(times.max(), unit="s")
        yield f"Interactions in the future: {(times > now).sum():,}, up to {last:%Y-%m-%d}. Check the times."
    if (times < EARLIEST).any():
        yield f"Interactions before 1990: {(times < EARLIEST).sum():,}. Check the times."
    share = float(pd.DataFrame({"user": domain.user, "time": times}).duplicated(keep=False).mean())
    if share > TIED:
        yield (
            f"{share:.0%} of the interactions have the time of another one of the same user; their order is that of "
            f"the file. Use more exact times if there are any."
        )


def _are_days(times: pd.Series) -> bool:
    """Whether all numbers are days such as 20241231."""
    if not times.between(*DAYS).all():
        return False
    return bool(pd.to_datetime(times.astype(np.int64), format="%Y%m%d", errors="coerce").notna().all())


def _long_histories(domain: Domain) -> Iterator[str]:
    lengths = domain.user.value_counts()
    longest, median = int(lengths.iloc[0]), float(lengths.median())
    if longest == 1:
        yield "Each user has one interaction, so no model can be trained. Check that users are no orders or sessions."
    if longest > MANY * median:
        yield (
            f"The user {lengths.index[0]!r} has {longest:,} interactions, where the median user has {median:g}. It may "
            f"be a program."
        )


def _texts(domain: Domain) -> Iterator[str]:
    if not domain.present("text"):
        return
    texts = domain.listed["text"].dropna().astype(str)
    shared = texts.value_counts()
    shared = shared[shared > 1]
    if len(shared):
        yield (
            f"Texts that another item has, too: {shared.sum():,} of {len(texts):,}, such as {_short(shared.index[0])} "
            f"of {shared.iloc[0]:,} items. Models that read texts alone cannot distinguish these items; with "
            f"--item_embedding=True they learn to."
        )
    markup = texts[texts.str.contains(MARKUP)]
    if len(markup):
        yield (
            f"Texts with HTML: {len(markup):,} of {len(texts):,}, such as that of item {markup.index[0]!r}, "
            f"{_short(markup.iloc[0])}. Remove it before encoding."
        )


def _prices(domain: Domain) -> Iterator[str]:
    if not domain.present("price"):
        return
    prices = domain.listed["price"].dropna()
    checks: list[tuple[Callable[[pd.Series], pd.Series], str]] = [
        (lambda price: price < 0, "negative"),
        (lambda price: price == 0, "0"),
        (lambda price: price > MANY * prices.median(), f"more than {MANY} times the median of {prices.median():g}"),
    ]
    for is_odd, words in checks:
        odd = prices[is_odd(prices)]
        if len(odd):
            yield (
                f"Prices that are {words}: {len(odd):,} of {len(prices):,}, such as {odd.iloc[0]:g} of item "
                f"{odd.index[0]!r}. Leave a wrong price empty."
            )


def _vectors(domain: Domain) -> Iterator[str]:
    for modality, table in domain.vectors.items():
        rows = np.ascontiguousarray(table.values[np.flatnonzero(table.present)])
        distinct = len(np.unique(rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))))
        if distinct == 1 < len(rows):
            yield f"All {modality} vectors are equal. Encode the items again."
        elif not rows.any(axis=1).all():
            count = int((~rows.any(axis=1)).sum())
            yield f"Zero {modality} vectors: {count:,}. Remove their rows, so that the items count as missing."
        constant = int((np.ptp(rows, axis=0) == 0).sum())
        if CONSTANT * rows.shape[1] < constant < rows.shape[1]:
            yield f"Entries that are the same in all {modality} vectors: {constant:,} of {rows.shape[1]:,}."


def _short(text: str, length: int = 60) -> str:
    return repr(text if len(text) <= length else f"{text[:length]}...")
