"""Counts in words."""

from __future__ import annotations


def plural(word: str, count: int) -> str:
    """The noun for so many, without the number: "image" for 1, else "images", "classes", "boxes"."""
    if count == 1:
        return word
    return f"{word}es" if word.endswith(("s", "x")) else f"{word}s"


def number_of(count: int, word: str) -> str:
    """The number and the noun: "1 box", "1,234 boxes"."""
    return f"{count:,} {plural(word, count)}"
