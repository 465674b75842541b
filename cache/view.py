"""The one-file view: `data.h5` shows all parts as one HDF5 file.

Columns of floats and of characters (S1) are not copied: they are virtual datasets over the parts. If a part cannot be
opened (it was set aside, or the process has too many open files), HDF5 silently fills the gap, so the fill value is NaN
or the empty string. Integers and booleans have no such value; they are copied, compressed and with checksums. `Reader`
does not need the view.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache.errors import CacheError, DamagedPart
from cache.files import patiently
from cache.layout import VIEW, part_name
from cache.parts import (
    CHUNK_BYTES,
    USER_BLOCK,
    check_place,
    ids_array,
    offsets_of,
    read_header,
    verify_part,
    write_dataset,
    write_part,
)
from cache.plan import Plan
from cache.reader import Reader, Survey
from cache.schema import Column

ATTRIBUTES = "attributes"
EARLIER_VERSION = "it is from an earlier version, whose gaps read as zeros"
ALL_PARTS = None  # a view's header has this in place of the part's index
SIGNATURE = b"\x89HDF\r\n\x1a\n"
END_OF_FILE = slice(28, 36)  # the file's length in HDF5's superblock (version 2 or 3)
OTHER_FILES = 64  # allowance for files other than parts that the process has open


def write_view(reader: Reader, attributes: Mapping[str, Any] | None = None, survey: Survey | None = None) -> None:
    """Writes data.h5: copies of ids, offsets and integers, and the other columns as virtual datasets over the parts.

    Parts are named relative to the view, so the folder can be moved as a whole. Like a part, the file begins with a
    512-byte user block that holds its length and SHA-256. `attributes` become the file's attributes (default: those in
    the manifest); `survey`: the reader's, if already taken. Raises DamagedPart, DiskFull, CacheError.
    """
    schema, lengths = reader.schema, survey.lengths if survey else reader.all_lengths()
    firsts = [min(index * reader.part_size, len(reader)) for index in range(reader.part_count + 1)]
    with h5py.File(
        "view", "w", driver="core", backing_store=False, libver=("v110", "v110"), userblock_size=USER_BLOCK
    ) as file:
        write_dataset(file, f"{schema.item}_ids", ids_array(reader.item_ids), "none")
        bounds = dict.fromkeys(schema.per_item, firsts)
        for prefix, columns in schema.ragged():
            offsets = offsets_of(lengths[prefix])
            write_dataset(file, f"{prefix}offsets", offsets, "none")
            bounds |= {prefix + name: [int(offsets[first]) for first in firsts] for name in columns}
        columns = schema.columns()
        copied = {name: bounds[name] for name, column in columns.items() if not shows_gaps(column)}
        for name, column in columns.items():
            if name in copied:
                add_empty(file, name, column, bounds[name][-1])
            else:
                add_virtual(file, name, column, bounds[name])
        for index in range(reader.part_count if copied else 0):
            part = reader.open_part(index)
            for name, ends in copied.items():
                if ends[index + 1] > ends[index]:
                    file[name][ends[index] : ends[index + 1]] = part.read(name, slice(None))
        set_attributes(file, reader.manifest.get(ATTRIBUTES, {}) if attributes is None else attributes)
        file.flush()
        content = file.id.get_file_image()
    header = {"stage": reader.plan.identity.stage, "key": reader.key, "part": ALL_PARTS, "items": len(reader)}
    write_part(reader.folder / VIEW, {**header, "compression": "none"}, content)


def set_attributes(file: h5py.File, attributes: Mapping[str, Any]) -> None:
    """Sets a file's attributes: strings, numbers and lists of them; strings are read back as `str`."""
    for name, value in attributes.items():
        texts = isinstance(value, list | tuple) and all(isinstance(member, str) for member in value)
        file.attrs.create(name, value, dtype=h5py.string_dtype() if texts else None)


def shows_gaps(column: Column) -> bool:
    """Whether a value that no entry of the column has can show where a part cannot be opened: NaN among floats, the
    empty string among characters."""
    return np.dtype(column.dtype).kind in "fS"


def add_virtual(file: h5py.File, name: str, column: Column, bounds: list[int]) -> None:
    """Adds a virtual dataset; part i has rows bounds[i] to bounds[i + 1], NaN or empty if it cannot be opened."""
    layout = h5py.VirtualLayout((bounds[-1], *column.shape), column.dtype)
    for index, low, high in spans(bounds):
        layout[low:high] = h5py.VirtualSource(part_name(index), name, (high - low, *column.shape), column.dtype)
    is_float = np.dtype(column.dtype).kind == "f"
    gap = np.array(np.nan, column.dtype)[()] if is_float else None  # HDF5's own is the empty string
    file.create_virtual_dataset(name, layout, fillvalue=gap)


def add_empty(file: h5py.File, name: str, column: Column, rows: int) -> None:
    """Adds an integer dataset of `rows` rows, to be filled in later."""
    shape = (rows, *column.shape)
    if 0 in shape:
        file.create_dataset(name, shape, column.dtype)
        return
    row_bytes = np.dtype(column.dtype).itemsize * int(np.prod(column.shape, dtype=np.int64))
    chunk = (max(1, min(rows, CHUNK_BYTES // row_bytes)), *column.shape)
    file.create_dataset(
        name, shape, column.dtype, chunks=chunk, compression="gzip", compression_opts=1, shuffle=True, fletcher32=True
    )


def spans(bounds: list[int]) -> Iterator[tuple[int, int, int]]:
    """(part index, first row, last row + 1) of the parts that have rows."""
    for index in range(len(bounds) - 1):
        if bounds[index + 1] > bounds[index]:
            yield index, bounds[index], bounds[index + 1]


# Whether a view is what was written


def view_fault(folder: Path, plan: Plan, *, thorough: bool = False) -> str | None:
    """What is wrong with the view of a complete cache (missing, truncated, another cache's); None if nothing is.

    With `thorough`, every byte is read. A view from an earlier version, which has no SHA-256 and shows zeros for a part
    that cannot be opened, is a fault only then. Raises CacheError if it cannot be read.
    """
    path = folder / VIEW
    try:
        if not thorough and is_from_earlier_version(path):
            return None
        header = verify_part(path) if thorough else read_header(path)
        check_place(path, header, plan.identity.stage, plan.key, ALL_PARTS, len(plan.item_ids))
    except FileNotFoundError:
        return "the file is missing"
    except DamagedPart as error:
        return EARLIER_VERSION if is_from_earlier_version(path) else error.reason
    return None


def is_from_earlier_version(path: Path) -> bool:
    """Whether the file is a complete view from an earlier version: HDF5 from the first byte."""

    def beginning() -> tuple[bytes, int]:
        with path.open("rb") as file:
            return file.read(END_OF_FILE.stop), file.seek(0, os.SEEK_END)

    head, length = patiently(path, beginning)
    return head.startswith(SIGNATURE) and int.from_bytes(head[END_OF_FILE], "little") == length


# Opening a view, or another file with virtual datasets


@contextlib.contextmanager
def open_view(path: Path) -> Iterator[h5py.File]:
    """Opens an HDF5 file for reading, checked so that its virtual datasets have no gaps.

    Raises CacheError if a source file is missing or the process cannot open all of them at once; OSError if HDF5
    cannot open the file itself.
    """
    raise_file_limit()
    with h5py.File(path, "r") as file:
        check_sources(path, sources_of(file))
        yield file


def sources_of(file: h5py.File) -> set[str]:
    """The names of the virtual datasets' source files, as stored."""
    sources: set[str] = set()

    def look(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset) and node.is_virtual:
            sources.update(source.file_name for source in node.virtual_sources())

    file.visititems(look)
    return sources - {"."}


def check_sources(path: Path, sources: set[str]) -> None:
    """Raises CacheError unless all `sources`, relative to `path`, exist and can be open at once."""
    missing = sorted(name for name in sources if not (path.parent / name).exists())
    if missing:
        others = f" and {len(missing) - 1} others" if missing[1:] else ""
        verb = "do" if missing[1:] else "does"
        raise CacheError(f"{path}: shows {missing[0]}{others}, which {verb} not exist; run the recipe again")
    limit = file_limit()
    if limit is not None and len(sources) + OTHER_FILES > limit:
        raise CacheError(
            f"{path}: shows {len(sources)} files, but this process can open only {limit}; raise the limit "
            "(`ulimit -n`), or read the cache with `cache.open`, which opens one at a time"
        )


def raise_file_limit() -> None:
    """Raises this process's soft limit on open files to the hard limit."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def file_limit() -> int | None:
    """How many files this process can open; None if there is no limit."""
    with contextlib.suppress(ImportError):
        import resource

        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return None if soft == resource.RLIM_INFINITY else soft
    return None
