"""Counts in words."""

from __future__ import annotations


def plural(word: str, count: int) -> str:
    """The noun for so many, without the number: "image" for 1, else "images", "classes", "boxes", "probabilities"."""
    if count == 1:
        return word
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x")) else f"{word}s"


def number_of(count: int, word: str) -> str:
    """The number and the noun: "1 box", "1,234 boxes"."""
    return f"{count:,} {plural(word, count)}"
