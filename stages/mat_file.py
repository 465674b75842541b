"""Reading cell arrays, structures, numbers and text from MATLAB files of level 5 ("MAT-File Format", versions 5 to 7).

The published boxes of selective search, CPMC's regions and SBD's masks are in this format. SciPy's reader crashes the
process on some damaged files. Terms as in that document: a file is a sequence of data elements, each a tag (type,
number of bytes) followed by its bytes, padded to a multiple of eight.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Container, Iterator
from typing import Any

import numpy as np

HEADER = 128
MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, TEXT = 1, 2, 4
NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
    16: "u1", 17: "u2", 18: "u4",
}  # fmt: skip
"""NumPy's names for the element types; 16 to 18 are text in UTF-8, UTF-16 and UTF-32."""
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
COMPLEX, LOGICAL = 0x800, 0x200
HDF5 = b"\x89HDF\r\n\x1a\n"
LARGEST = 1 << 31
"""Bytes of the largest variable in files of versions 6 and 7; one that claims more is damaged, or made to fill the
memory."""
ENCODINGS = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
DEEPEST = 8


def read_variables(raw: bytes, names: Container[str]) -> dict[str, Any]:
    """The variables with these `names` in a file's bytes: a list for a cell array (in MATLAB's column-major order), a
    list of dicts by field for an array of structures, str for text, an array [rows, columns, ...] for numbers, of bool
    for logical values, None for anything else.

    Raises ValueError for bytes that are not a complete file of this format.
    """
    order = {b"IM": "<", b"MI": ">"}.get(raw[126:HEADER])
    if order is None or len(raw) < HEADER:
        raise ValueError("it has no .mat header of version 5 to 7")
    variables: dict[str, Any] = {}
    for kind, content in elements(memoryview(raw)[HEADER:], order):
        inner = [(kind, content)]
        if kind == COMPRESSED:
            inner = list(elements(memoryview(decompressed(content)), order))
        for inner_kind, matrix in inner:
            if inner_kind == MATRIX:
                name, value = variable(matrix, order, names, DEEPEST)
                if name in names:
                    variables[name] = value
    return variables


def is_version_7_3(raw: bytes) -> bool:
    """Whether a file's bytes are those of version 7.3, which is HDF5 and not read here."""
    return raw.startswith(b"MATLAB 7.3") or HDF5 in (raw[:8], raw[512:520])


def decompressed(content: memoryview) -> bytes:
    """The decompressed bytes. Raises ValueError."""
    stream = zlib.decompressobj()
    try:
        whole = stream.decompress(content, LARGEST)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not stream.eof:
        raise ValueError(
            "a variable has more than 2 GiB" if len(whole) == LARGEST else "a compressed variable is incomplete"
        )
    return whole


def elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """The type and the bytes of each data element. Raises ValueError if one is longer than what is left."""
    place = 0
    while place < len(content):
        if len(content) - place < 8:
            raise ValueError("it ends inside the tag of an element")
        kind, size = (int(number) for number in np.frombuffer(content[place : place + 8], f"{order}u4"))
        start, end = place + 8, place + 8 + size
        place = end if kind == COMPRESSED else end + -end % 8
        if kind >> 16:  # a small element, with its bytes in the tag
            kind, size = kind & 0xFFFF, kind >> 16
            start, end, place = start - 4, start - 4 + size, start
            if size > 4:
                raise ValueError("a small element has more than four bytes")
        if end > len(content):
            raise ValueError("it ends inside an element")
        yield kind, content[start:end]


def variable(content: memoryview, order: str, names: Container[str] | None, depth: int) -> tuple[str, Any]:
    """The name and value of a matrix element; the value only if the name is in `names` (None: any name)."""
    parts = elements(content, order)
    try:
        flags = numbers(*next(parts), order)
        shape = [int(side) for side in numbers(*next(parts), order)]
        name = bytes(next(parts)[1]).decode("ascii", "replace")
        if names is not None and name not in names:
            return name, None
        kind, count = int(flags[0]) & 0xFF, math.prod(shape)
        if not shape or min(shape) < 0:
            raise ValueError(f"an array has shape {shape}")
        if kind == CELL:
            if depth == 0 or count > len(content):
                raise ValueError(f"a cell array has {count} cells or is nested too deeply")
            return name, [variable(next(parts)[1], order, None, depth - 1)[1] for _ in range(count)]
        if kind == STRUCT:
            length = int(numbers(*next(parts), order)[0])
            packed = bytes(next(parts)[1])
            if length < 1 or depth == 0 or count * (len(packed) // length) > len(content):
                raise ValueError(f"an array has {count} structures, is nested too deeply, or has no names of fields")
            fields = [
                packed[at : at + length].split(b"\0")[0].decode("ascii", "replace")
                for at in range(0, len(packed), length)
            ]
            return name, [
                {field: variable(next(parts)[1], order, None, depth - 1)[1] for field in fields} for _ in range(count)
            ]
        if kind == TEXT:
            return name, text(*next(parts), order)
        if kind in CLASSES and not int(flags[0]) & COMPLEX:
            values = numbers(*next(parts), order)
            if len(values) != count:
                raise ValueError(f"an array of shape {shape} has {len(values)} numbers")
            logical = bool(int(flags[0]) & LOGICAL)
            return name, values.astype("?" if logical else CLASSES[kind]).reshape(shape, order="F")
    except (StopIteration, IndexError) as error:
        raise ValueError("an array ends too early") from error
    return name, None


def numbers(kind: int, content: memoryview, order: str) -> np.ndarray:
    """The numbers of an element, as an array [n]. Raises ValueError."""
    if kind not in NUMBERS:
        raise ValueError(f"an element has type {kind} instead of numbers")
    return np.frombuffer(content, f"{order}{NUMBERS[kind]}")


def text(kind: int, content: memoryview, order: str) -> str:
    """The text of an element, in column-major order. Raises ValueError."""
    if kind in ENCODINGS:
        suffix = "" if kind == 16 else "-le" if order == "<" else "-be"
        return bytes(content).decode(ENCODINGS[kind] + suffix)
    return "".join(chr(code) for code in numbers(kind, content, order).astype(np.int64) if 0 < code < 0x110000)
