"""Good files spoilt: bits, cuts, splices, odd words in text, odd values in trees of JSON."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

PLACES = 1 << 20
Mutation = tuple[str, int, int, int]

HUGE, DEEP = "@huge@", "@deep@"
ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 2, 1.5, -0.0, 1e308, float("inf"), float("nan"), 2**31, 2**63, -(2**63), 10**30, HUGE,
    "", " ", "0", "nan", "\ud800", "a\nb", "\x00", "../../x", "x" * 300, "名前", "=1+1", [], {}, [None], [[]],
    {"a": None}, DEEP, [1, 2, 3], ["x"],
]  # fmt: skip


def mutations(most: int = 4) -> st.SearchStrategy[list[Mutation]]:
    """What `mutated` does to a file: kinds, places (of PLACES), lengths and choices."""
    place, number = st.integers(0, PLACES), st.integers(0, 1 << 16)
    kinds = st.sampled_from(["flip", "cut", "drop", "repeat", "word", "byte", "splice", "zeros"])
    return st.lists(st.tuples(kinds, place, number, number), min_size=1, max_size=most)


def mutated(content: bytes, wanted: Sequence[Mutation], words: Sequence[bytes], other: bytes = b"") -> bytes:
    """The content after the mutations; `words` are inserted or put in the place of others, `other` is spliced in."""
    spoilt = bytearray(content)
    for kind, place, length, choice in wanted:
        at = place * len(spoilt) // (PLACES + 1)
        span = 1 + length % max(1, min(len(spoilt), 64 if choice % 2 else 4096))
        if kind == "flip" and spoilt:
            spoilt[at] ^= 1 << (choice % 8)
        elif kind == "byte" and spoilt:
            spoilt[at] = choice % 256
        elif kind == "cut":
            del spoilt[at:]
        elif kind == "drop":
            del spoilt[at : at + span]
        elif kind == "repeat":
            spoilt[at:at] = spoilt[at : at + span]
        elif kind == "zeros":
            spoilt[at : at + span] = bytes(len(spoilt[at : at + span]))
        elif kind == "word" and words:
            word = words[choice % len(words)]
            if length % 2:
                spoilt[at:at] = word
            else:
                start, end = word_around(spoilt, at)
                spoilt[start:end] = word
        elif kind == "splice" and other:
            cut = choice * len(other) // (1 << 16)
            spoilt[at:] = other[cut:]
    return bytes(spoilt)


def written(path: Path, content: bytes) -> Path:
    """The file with this content."""
    path.write_bytes(content)
    return path


def word_around(text: bytes | bytearray, at: int) -> tuple[int, int]:
    """Where the word (or number, or quoted text without spaces) begins and ends that has a place in a text."""
    ends = b" \t\r\n<>=,[]{}:\"'"
    start = end = at
    while start > 0 and text[start - 1] not in ends:
        start -= 1
    while end < len(text) and text[end] not in ends:
        end += 1
    return start, end


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values in a tree of JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for name, one in inner for found in paths_of(one, (*path, name)))]


def mutated_json(good: Any, most: int = 3) -> st.SearchStrategy[bytes]:
    """`mutated_tree` as JSON."""
    return mutated_tree(good, most).map(as_json)


@st.composite
def mutated_tree(draw: st.DrawFn, good: Any, most: int = 3) -> Any:
    """The tree with odd values in some places, or some of its values missing or there twice."""
    tree = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, most))):
        path = draw(st.sampled_from(paths_of(tree)))
        kind, value = draw(st.sampled_from(["put", "put", "put", "drop", "twice"])), draw(st.sampled_from(ODD_VALUES))
        if not path:
            tree = copy.deepcopy(value) if kind == "put" else tree
            continue
        home = tree
        for name in path[:-1]:
            home = home[name]
        if kind == "put":
            home[path[-1]] = copy.deepcopy(value)
        elif kind == "drop":
            del home[path[-1]]
        elif isinstance(home, list):
            home.append(copy.deepcopy(home[path[-1]]))
    return tree


def as_json(tree: Any) -> bytes:
    """The tree as JSON, with a number of 5,000 digits and lists within lists in the places of HUGE and DEEP."""
    text = json.dumps(tree)
    return text.replace(f'"{HUGE}"', "9" * 5000).replace(f'"{DEEP}"', "[" * 3000 + "]" * 3000).encode()
