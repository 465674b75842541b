"""A part: the records of some tens of items in one immutable HDF5 file, written by one process and never reopened.

The file begins with a 512-byte HDF5 user block, a line of JSON that `head -c 512` shows: format, stage, key, part, the
length of what follows and its SHA-256. So every part proves by itself that it is whole, and which part of which cache
it is. Inside, HDF5's fletcher32 guards each chunk and HDF5 1.10's own checksums all else.

A process compares a part's SHA-256 before it first reads a column of it (`OpenPart`), so that a changed byte is an
error and never a wrong number; RCNN_TRUST_DISK=1 leaves that to `rcnn cache verify` and to HDF5's checksums.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from cache.errors import CacheError, DamagedPart, NewerVersion, first_line
from cache.files import Change, change_of, parse_json, patiently, state_of, unreadable, write_atomically
from cache.schema import Record, Schema

FORMAT_VERSION = 1  # a later format must have other names in its header: see read_header
HEADER_NAMES = {"format", "stage", "key", "part", "items", "compression", "bytes", "sha256"}
USER_BLOCK = 512
CHECKSUMMED_SUPERBLOCK = 3  # HDF5 1.10: since then all that HDF5 writes besides the data has a checksum
READ_BYTES = 1 << 22
KEPT_HEADERS = 1 << 14  # that a process remembers
TRUST_DISK = "RCNN_TRUST_DISK"
CHUNK_BYTES = 1 << 19
COMPRESSIONS = ("none", "gzip", "zstd")
HDF5_ERRORS = (OSError, KeyError, ValueError, RuntimeError)  # what h5py makes of HDF5's; no kind says "damaged"

Result = TypeVar("Result")


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

    `digests` gives for each item what it was made from (the SHA-256 of its image file, say), if that is known.

    Built in memory, so that a full disk or a kill interrupts one plain write, not HDF5's own.
    """
    with h5py.File(
        "part", "w", driver="core", backing_store=False, libver=("v110", "v110"), userblock_size=USER_BLOCK
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
    """h5py's options for a compression; CacheError if it needs a package that is not installed."""
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
    """The user block of a part, checked against the file's length (cheap: one small read).

    Raises FileNotFoundError, DamagedPart if it is not a part's header, CacheError if it is from a newer version or
    cannot be read.
    """

    def beginning() -> tuple[bytes, int]:
        with path.open("rb") as file:
            return file.read(USER_BLOCK), file.seek(0, os.SEEK_END)

    return parse_header(path, *patiently(path, beginning))


def header_of(path: Path) -> dict[str, Any]:
    """`read_header`, read again only if the file has changed."""
    return header_in(path, state_of(path))


@functools.lru_cache(maxsize=KEPT_HEADERS)
def header_in(path: Path, state: tuple[int, ...]) -> dict[str, Any]:
    """The header of the part `path`, whose `state` says whether it is still the same file."""
    return read_header(path)


def parse_header(path: Path, block: bytes, length: int) -> dict[str, Any]:
    """The header in a file's first 512 bytes; the file has `length` bytes. Raises DamagedPart or CacheError.

    A greater format is believed only with other names than ours: else a flipped bit of the number could hide a part.
    """
    try:
        header = parse_json(block)
        version, expected = header["format"], header["bytes"]
        newer = version > FORMAT_VERSION and set(header) != HEADER_NAMES
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedPart(path, "its first 512 bytes are not a part's header") from error
    if newer:
        raise NewerVersion(path, version)
    if set(header) != HEADER_NAMES:
        raise DamagedPart(path, "its header has changed since it was written")
    if length - USER_BLOCK != expected:
        raise DamagedPart(path, f"{length - USER_BLOCK} bytes of {expected}")
    return dict(header)


def check_place(path: Path, header: Mapping[str, Any], stage: str, key: str, part: int | None, items: int) -> None:
    """Raises DamagedPart if a header is not that of this part of this cache: it is another's, or a flipped bit has left
    it readable."""
    expected = {"format": FORMAT_VERSION, "stage": stage, "key": key, "part": part, "items": items}
    proof = {name: header.get(name) for name in ("compression", "bytes", "sha256")}
    other = [name for name in expected if name in header and header[name] != expected[name]]
    if other:
        told = ", ".join(f"{name} {header[name]!r} instead of {expected[name]!r}" for name in other)
        raise DamagedPart(path, f"its header says {told}")
    if header != {**expected, **proof} or proof["compression"] not in COMPRESSIONS:
        raise DamagedPart(path, "its header has changed since it was written")


# Verifying


VERIFIED: dict[tuple[int, int], Change] = {}  # (device, inode) of the files that this process has found right


def trusts_disk() -> bool:
    """Whether RCNN_TRUST_DISK=1 spares the SHA-256 on reading. Raises CacheError for another value than 0 and 1."""
    value = os.environ.get(TRUST_DISK, "")
    if value not in ("", "0", "1"):
        raise CacheError(f"{TRUST_DISK}={value}: may be 1 (parts are read without comparing their SHA-256) or 0")
    return value == "1"


def verify_part(path: Path) -> dict[str, Any]:
    """Reads every byte of a part and compares its SHA-256; returns the header.

    Raises FileNotFoundError, DamagedPart, CacheError if it is from a newer version or cannot be read.
    """

    def verified() -> dict[str, Any]:
        with path.open("rb") as file:
            return verify_descriptor(path, file.fileno())

    return patiently(path, verified)


def verify_descriptor(path: Path, descriptor: int) -> dict[str, Any]:
    """`verify_part` for an open file; the process remembers that the file, as long as it does not change, is sound."""
    state = os.fstat(descriptor)
    header = parse_header(path, os.pread(descriptor, USER_BLOCK, 0), state.st_size)
    digest, buffer, place = hashlib.sha256(), bytearray(READ_BYTES), USER_BLOCK
    while count := os.preadv(descriptor, [buffer], place):
        digest.update(memoryview(buffer)[:count])
        place += count
    if digest.hexdigest() != header["sha256"]:
        VERIFIED.pop((state.st_dev, state.st_ino), None)
        raise DamagedPart(path, "its SHA-256 does not match the recorded one")
    VERIFIED[state.st_dev, state.st_ino] = change_of(state)
    return header


class OpenPart:
    """A part open for reading; every access to damaged bytes raises DamagedPart.

    Opening compares the header with the part's place (stage, key, index, items). The SHA-256 is compared when the
    first column is read, once for a process and a file that does not change; offsets and ids, which opening reads, HDF5
    has checksummed. In a part from an earlier version, whose index of chunks has no checksum, it is compared
    on opening.
    """

    def __init__(self, path: Path, schema: Schema, stage: str, key: str, index: int, items: int) -> None:
        """Raises FileNotFoundError, DamagedPart, CacheError if the part cannot be read."""
        self.path = path
        self.schema = schema
        self.place = (stage, key, index, items)
        self.file: h5py.File | None = None
        self.has_digests = False
        header = read_header(path)
        check_place(path, header, *self.place)
        if header["compression"] == "zstd":
            zstd_plugin()
        try:
            self.offsets, self.item_ids = self.trying(self.open)
        except BaseException:
            self.close()
            raise

    def trying(self, read: Callable[[], Result]) -> Result:
        """What `read` returns. Where HDF5 fails, the file is read byte by byte: if it is not what was written, it is
        damaged; if it is, the failure passed (a network disk, memory) and `read` is tried once more.

        Raises FileNotFoundError, DamagedPart, CacheError.
        """
        try:
            return read()
        except HDF5_ERRORS:
            self.close()
            check_place(self.path, verify_part(self.path), *self.place)
        try:
            return read()
        except HDF5_ERRORS as error:
            self.close()
            if isinstance(error, OSError) and error.errno:
                raise unreadable(self.path, OSError(error.errno, os.strerror(error.errno))) from error
            raise CacheError(
                f"{self.path}: HDF5 cannot read it ({first_line(error)}) although its SHA-256 is correct; run the same "
                "command again, and if that does not help, install the version of h5py that wrote it"
            ) from error

    def open(self) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Opens the file; returns offsets of each ragged table and ids."""
        self.close()
        self.file = h5py.File(self.path, "r", driver="sec2")
        if not is_checksummed(self.descriptor):
            self.verify()
        offsets = {prefix: self.file[f"{prefix}offsets"][()] for prefix, _ in self.schema.ragged()}
        item_ids = tuple(one.decode() for one in self.file[f"{self.schema.item}_ids"][()])
        self.has_digests = f"{self.schema.item}_sha256" in self.file
        return offsets, item_ids

    @functools.cached_property
    def skipped(self) -> dict[str, str]:
        """The skipped items and why. Raises DamagedPart, CacheError if it cannot be read.

        HDF5 keeps texts of any length in a heap without a checksum, and searches some damaged heaps for ever.
        """

        def values() -> dict[str, str]:
            if self.file is None:
                self.open()
            assert self.file is not None
            self.verify()
            return dict(json.loads(self.file.attrs["skipped"]))

        return self.trying(values)

    @property
    def descriptor(self) -> int:
        """The file descriptor that HDF5 reads from."""
        assert self.file is not None
        return int(self.file.id.get_vfd_handle())

    def verify(self) -> None:
        """Compares the SHA-256 of the file that HDF5 has open, unless this process has and it has not changed since, or
        the disk is trusted. Raises DamagedPart, OSError."""
        if trusts_disk():
            return
        state = os.fstat(self.descriptor)
        if VERIFIED.get((state.st_dev, state.st_ino)) != change_of(state):
            check_place(self.path, verify_descriptor(self.path, self.descriptor), *self.place)

    def digest(self, position: int) -> str | None:
        """What the part's item number `position` was made from, None where that is not known."""
        name = f"{self.schema.item}_sha256"
        return bytes(self.read(name, position).item()).decode() or None if self.has_digests else None

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
        """`column[where]`. Raises DamagedPart, CacheError if it cannot be read."""

        def values() -> np.ndarray:
            if self.file is None:
                self.open()
            assert self.file is not None
            self.verify()
            return np.asarray(self.file[column][where])

        return self.trying(values)

    def close(self) -> None:
        """Closes the file."""
        if self.file is not None:
            self.file.close()
            self.file = None


def is_checksummed(descriptor: int) -> bool:
    """Whether HDF5 has a checksum for all that the file holds besides data."""
    return os.pread(descriptor, 1, USER_BLOCK + 8) >= bytes([CHECKSUMMED_SUPERBLOCK])
