"""Cleans the texts of items and joins them."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import lru_cache

TAG = re.compile(r"</?[A-Za-z][^<>]*>|<!--[^<>]*-->")
ROUNDS = 3
"""How often entities are resolved at most: texts contain such as ``&amp;amp;``."""


def clean(text: str) -> str:
    """One line without HTML entities and tags."""
    if "&" in text:
        for _ in range(ROUNDS):
            text = html.unescape(text)
    if "<" in text:
        text = TAG.sub(" ", text)
    return " ".join(text.split())


def joined(phrases: Sequence[str], separator: str = " ") -> str:
    """Joins cleaned phrases; leaves out one that the text so far contains as whole words, whatever its capitals.

    The phrases after the first, such as categories and brands, are taken to repeat from item to item.
    """
    text, so_far = "", ""
    for place, phrase in enumerate(phrases):
        cleaned, lower = _cached(phrase) if place else _cleaned(phrase)
        if cleaned and not (lower in so_far and _contains(so_far, lower)):
            text = f"{text}{separator}{cleaned}" if text else cleaned
            so_far = f"{so_far}{separator}{lower}"
    return text


def _cleaned(phrase: str) -> tuple[str, str]:
    cleaned = clean(phrase)
    return cleaned, cleaned.lower()


_cached = lru_cache(2**16)(_cleaned)


def _contains(text: str, phrase: str) -> bool:
    start = text.find(phrase)
    while start >= 0:
        end = start + len(phrase)
        if not text[start - 1 : start].isalnum() and not text[end : end + 1].isalnum():
            return True
        start = text.find(phrase, start + 1)
    return False
