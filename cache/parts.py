"""A part: the records of some tens of items in one immutable HDF5 file, written by one process and never reopened.

The file begins with a 512-byte HDF5 user block, a line of JSON that `head -c 512` shows: format, stage, key, part, the
length of what follows and its SHA-256. So every part proves by itself that it is whole. Inside, HDF5's fletcher32
guards each chunk, so that a flipped bit is an error on reading and never a wrong number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache.errors import CacheError, DamagedPart
from cache.files import write_atomically
from cache.schema import Record, Schema

FORMAT_VERSION = 1
USER_BLOCK = 512
CHUNK_BYTES = 1 << 19
COMPRESSIONS = ("none", "gzip", "zstd")


def part_name(index: int) -> str:
    """`part-00012.h5`."""
    return f"part-{index:05d}.h5"


def offsets_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where each item's rows begin and the last one's end: int64 [items + 1]."""
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))]).astype(np.int64)


def ids_array(item_ids: Sequence[str]) -> np.ndarray:
    """Ids as fixed-length UTF-8 bytes (variable-length strings live outside HDF5's checksums)."""
    encoded = [item_id.encode() for item_id in item_ids]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max([1, *map(len, encoded)])))


def part_bytes(
    schema: Schema,
    item_ids: Sequence[str],
    records: Sequence[Record],
    skipped: Mapping[str, str],
    compression: str = "none",
    digests: Sequence[str] = (),
) -> bytes:
    """The HDF5 file (what follows the user block) as bytes: same input, same bytes of data.

    `digests` says of each item what it was made from (the SHA-256 of its image file, say), if that is known.

    Built in memory, so that a full disk or a kill meets one plain write and not HDF5's own.
    """
    with h5py.File(
        "part", "w", driver="core", backing_store=False, libver=("v108", "v108"), userblock_size=USER_BLOCK
    ) as file:
        file.attrs["skipped"] = json.dumps(dict(skipped), ensure_ascii=False)
        write_dataset(file, f"{schema.item}_ids", ids_array(item_ids), "none")
        if digests:
            write_dataset(file, f"{schema.item}_sha256", ids_array(digests), "none")
        for prefix, columns in schema.ragged():
            lengths = [len(record[prefix + next(iter(columns))]) for record in records]
            write_dataset(file, f"{prefix}offsets", offsets_of(lengths), "none")
            for name, column in columns.items():
                blocks = [record[prefix + name] for record in records] or [column.zeros(0)]
                write_dataset(file, prefix + name, np.concatenate(blocks), compression)
        for name in schema.per_item:
            write_dataset(file, name, np.stack([record[name] for record in records]), compression)
        file.flush()
        return file.id.get_file_image()


def write_dataset(file: h5py.File, name: str, values: np.ndarray, compression: str) -> None:
    """One dataset, chunked by rows and checksummed; HDF5 cannot checksum what is empty."""
    if values.size == 0:
        file.create_dataset(name, data=values)
        return
    row_bytes = max(1, values[0].nbytes)
    chunk = (max(1, min(len(values), CHUNK_BYTES // row_bytes)), *values.shape[1:])
    file.create_dataset(name, data=values, chunks=chunk, fletcher32=True, **filter_options(compression))


def filter_options(compression: str) -> dict[str, Any]:
    """h5py's words for a compression; CacheError if it needs a package that is not there."""
    if compression == "none":
        return {}
    if compression == "gzip":
        return {"compression": "gzip", "compression_opts": 1}
    if compression == "zstd":
        return dict(zstd_plugin().Zstd(clevel=1))
    raise CacheError(f"compression '{compression}' is unknown; it may be one of {', '.join(COMPRESSIONS)}")


def zstd_plugin() -> Any:
    """The package that teaches HDF5 zstd, for writing and for reading."""
    try:
        import hdf5plugin
    except ImportError as error:
        raise CacheError(
            "compression 'zstd' needs the package hdf5plugin; install it with `pip install 'rcnn[zstd]'`"
        ) from error
    return hdf5plugin


def write_part(path: Path, header: Mapping[str, Any], content: bytes, *, exclusive: bool = False) -> bool:
    """Writes `content` under the final name `path`, whole or not at all, behind a user block with `header`.

    With `exclusive`, a part that is there stays as it is, and False is returned.
    """
    digest = hashlib.sha256(content).hexdigest()
    described = {"format": FORMAT_VERSION, **header, "bytes": len(content), "sha256": digest}
    line = json.dumps(described, ensure_ascii=True).encode()
    if len(line) >= USER_BLOCK:
        raise CacheError(f"{path}: the part's header is {len(line)} bytes, over {USER_BLOCK}; this is a bug")
    return write_atomically(path, [line.ljust(USER_BLOCK - 1) + b"\n", content], exclusive=exclusive)


def read_header(path: Path) -> dict[str, Any]:
    """The user block of a part, checked against the file's length (cheap: one small read). Raises DamagedPart."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(USER_BLOCK))
            length = file.seek(0, 2) - USER_BLOCK
        version, expected = header["format"], header["bytes"]
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedPart(path, "its first 512 bytes are not a part's header") from error
    if version > FORMAT_VERSION:
        raise CacheError(f"{path}: written by a newer version (format {version}); update rcnn, or use another --work")
    if length != expected:
        raise DamagedPart(path, f"{length} bytes of {expected}")
    return header


def check_place(path: Path, header: Mapping[str, Any], stage: str, key: str, part: int, items: int) -> None:
    """Raises DamagedPart if a header is not that of this part of this cache (a flipped bit can leave it readable)."""
    expected = {"format": FORMAT_VERSION, "stage": stage, "key": key, "part": part, "items": items}
    proof = {name: header.get(name) for name in ("compression", "bytes", "sha256")}
    if header != {**expected, **proof} or proof["compression"] not in COMPRESSIONS:
        raise DamagedPart(path, "its header is not the one it was written with")


def verify_part(path: Path) -> dict[str, Any]:
    """Reads every byte of a part and compares its SHA-256; returns the header. Raises DamagedPart."""
    header = read_header(path)
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            file.seek(USER_BLOCK)
            while block := file.read(1 << 22):
                digest.update(block)
    except OSError as error:
        raise DamagedPart(path, f"cannot be read: {error.strerror}") from error
    if digest.hexdigest() != header["sha256"]:
        raise DamagedPart(path, "its SHA-256 is not the one it was written with")
    return header


class OpenPart:
    """A part open for reading; every access to damaged bytes raises DamagedPart."""

    def __init__(self, path: Path, schema: Schema) -> None:
        if read_header(path).get("compression") == "zstd":
            zstd_plugin()
        self.path = path
        self.schema = schema
        try:
            self.file = h5py.File(path, "r")
            self.offsets = {prefix: self.file[f"{prefix}offsets"][()] for prefix, _ in schema.ragged()}
            self.item_ids = tuple(one.decode() for one in self.file[f"{schema.item}_ids"][()])
            self.skipped: dict[str, str] = json.loads(self.file.attrs["skipped"])
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise DamagedPart(path, first_line(error)) from error

    def digest(self, position: int) -> str | None:
        """What the part's item number `position` was made from, None where that is not known."""
        name = f"{self.schema.item}_sha256"
        return bytes(self.read(name, position).item()).decode() or None if name in self.file else None

    def record(self, position: int, columns: Sequence[str]) -> Record:
        """The `columns` of the part's item number `position`."""
        return {name: self.read(name, self.span(name, position)) for name in columns}

    def span(self, column: str, position: int) -> slice | int:
        """Where the item's rows are in `column`."""
        prefix = self.schema.prefix_of(column)
        if prefix is None:
            return position
        offsets = self.offsets[prefix]
        return slice(int(offsets[position]), int(offsets[position + 1]))

    def read(self, column: str, where: Any) -> np.ndarray:
        """`column[where]`."""
        try:
            return np.asarray(self.file[column][where])
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise DamagedPart(self.path, first_line(error)) from error

    def close(self) -> None:
        """Closes the file."""
        self.file.close()


def first_line(error: Exception) -> str:
    """A library's error in a few words."""
    return str(error).strip("'\"").splitlines()[0][:120] if str(error) else type(error).__name__
