"""A part: the records of a few dozen items in one immutable HDF5 file, written by one process and never reopened.

The file begins with a 512-byte HDF5 user block, a line of JSON that `head -c 512` shows: format, stage, key, part, the
length of what follows and its SHA-256. So every part proves on its own that it is whole and which part of which cache
it is. Inside, HDF5's fletcher32 protects each chunk, and HDF5 1.10's own checksums everything else.

A process checks a part's SHA-256 before it first reads a column of it (`OpenPart`), so that a changed byte is an error
and never a wrong number; RCNN_TRUST_DISK=1 leaves that to `rcnn cache verify` and to HDF5's checksums.
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

FORMAT_VERSION = 1  # a later format must use other header names: see parse_header
HEADER_NAMES = {"format", "stage", "key", "part", "items", "compression", "bytes", "sha256"}
USER_BLOCK = 512
CHECKSUMMED_SUPERBLOCK = 3  # HDF5 1.10: from this version on, all metadata has checksums
READ_BYTES = 1 << 22
KEPT_HEADERS = 1 << 14  # headers kept in memory
TRUST_DISK = "RCNN_TRUST_DISK"
CHUNK_BYTES = 1 << 19
COMPRESSIONS = ("none", "gzip", "zstd")
HDF5_ERRORS = (OSError, KeyError, ValueError, RuntimeError)  # raised by h5py; none of them proves damage

Result = TypeVar("Result")


def offsets_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where each item's rows begin, then where the last item's end: int64 [items + 1]; `lengths` in rows."""
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
    """The HDF5 file (what follows the user block) as bytes; the same input gives the same bytes of data.

    `digests`: for each item, what it was made from (e.g. the SHA-256 of its image file), if known.

    Built in memory, so that a full disk or a kill interrupts a plain write and never HDF5's.
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
    """Writes one dataset, chunked by rows and checksummed; HDF5 cannot checksum an empty one."""
    if values.size == 0:
        file.create_dataset(name, data=values)
        return
    row_bytes = max(1, values[0].nbytes)
    chunk = (max(1, min(len(values), CHUNK_BYTES // row_bytes)), *values.shape[1:])
    file.create_dataset(name, data=values, chunks=chunk, fletcher32=True, **filter_options(compression))


def filter_options(compression: str) -> dict[str, Any]:
    """h5py's options for a compression. Raises CacheError if it needs a package that is not installed."""
    if compression == "none":
        return {}
    if compression == "gzip":
        return {"compression": "gzip", "compression_opts": 1}
    if compression == "zstd":
        return dict(zstd_plugin().Zstd(clevel=1))
    raise CacheError(f"compression '{compression}' is unknown; choose one of {', '.join(COMPRESSIONS)}")


def zstd_plugin() -> Any:
    """The package hdf5plugin, whose import enables zstd in HDF5, for writing and reading. Raises CacheError."""
    try:
        import hdf5plugin
    except ImportError as error:
        raise CacheError(
            "compression 'zstd' needs the package hdf5plugin; install it with `pip install 'rcnn[zstd]'`"
        ) from error
    return hdf5plugin


def write_part(path: Path, header: Mapping[str, Any], content: bytes, *, exclusive: bool = False) -> bool:
    """Writes a user block with `header`, then `content`, to `path` atomically.

    With `exclusive`, an existing part is left alone and False is returned.
    """
    digest = hashlib.sha256(content).hexdigest()
    described = {"format": FORMAT_VERSION, **header, "bytes": len(content), "sha256": digest}
    line = json.dumps(described, ensure_ascii=True).encode()
    if len(line) >= USER_BLOCK:
        raise CacheError(f"{path}: the part's header is {len(line)} bytes, over {USER_BLOCK}; this is a bug")
    return write_atomically(path, [line.ljust(USER_BLOCK - 1) + b"\n", content], exclusive=exclusive)


def read_header(path: Path) -> dict[str, Any]:
    """The header in a part's user block, checked against the file's length (cheap: one small read).

    Raises FileNotFoundError, DamagedPart if it is not a part's header, NewerVersion, CacheError if it cannot be read.
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
    """The header of the part `path`; `state`, part of the memoisation's key, changes with the file."""
    return read_header(path)


def parse_header(path: Path, block: bytes, length: int) -> dict[str, Any]:
    """The header in `block`, a file's first 512 bytes; the file has `length` bytes. Raises DamagedPart, NewerVersion.

    A higher format counts as newer only if its header's names differ from ours; otherwise a flipped bit in the number
    could pass for a newer version.
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
    """Raises DamagedPart unless a header belongs to this part of this cache; a header with a flipped bit may still be
    readable."""
    expected = {"format": FORMAT_VERSION, "stage": stage, "key": key, "part": part, "items": items}
    free = {name: header.get(name) for name in ("compression", "bytes", "sha256")}
    wrong = [name for name in expected if name in header and header[name] != expected[name]]
    if wrong:
        contradictions = ", ".join(f"{name} {header[name]!r} instead of {expected[name]!r}" for name in wrong)
        raise DamagedPart(path, f"its header says {contradictions}")
    if header != {**expected, **free} or free["compression"] not in COMPRESSIONS:
        raise DamagedPart(path, "its header has changed since it was written")


# Verifying


VERIFIED: dict[tuple[int, int], Change] = {}  # by (device, inode): the files that this process has found intact


def trusts_disk() -> bool:
    """Whether RCNN_TRUST_DISK=1 skips the SHA-256 on reading. Raises CacheError for a value other than 0 and 1."""
    value = os.environ.get(TRUST_DISK, "")
    if value not in ("", "0", "1"):
        raise CacheError(f"{TRUST_DISK}={value}: must be 1 (read parts without checking their SHA-256) or 0")
    return value == "1"


def verify_part(path: Path) -> dict[str, Any]:
    """Reads every byte of a part and checks its SHA-256; returns the header.

    Raises FileNotFoundError, DamagedPart, NewerVersion, CacheError if it cannot be read.
    """

    def verified() -> dict[str, Any]:
        with path.open("rb") as file:
            return verify_descriptor(path, file.fileno())

    return patiently(path, verified)


def verify_descriptor(path: Path, descriptor: int) -> dict[str, Any]:
    """`verify_part` for an open file; VERIFIED remembers that it is intact for as long as it does not change."""
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

    Opening checks that the header belongs to this part (stage, key, index, items). The SHA-256 is checked when the
    first column is read, once per process unless the file changes; offsets and ids, which are read on opening, have
    HDF5's checksums. A part from an earlier version, whose chunk index has no checksum, is checked on opening.
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
        """Calls `read`. If HDF5 fails, the whole file is verified: if it is intact, the failure may have been a passing
        one (a network disk, memory) and `read` is called once more.

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
        """Opens the file; returns (the offsets of each ragged table, int64 [items + 1], by prefix; the item ids)."""
        self.close()
        self.file = h5py.File(self.path, "r", driver="sec2")
        if not is_checksummed(self.descriptor):
            self.verify()
        offsets = {prefix: self.file[f"{prefix}offsets"][()] for prefix, _ in self.schema.ragged()}
        item_ids = tuple(item_id.decode() for item_id in self.file[f"{self.schema.item}_ids"][()])
        self.has_digests = f"{self.schema.item}_sha256" in self.file
        return offsets, item_ids

    @functools.cached_property
    def skipped(self) -> dict[str, str]:
        """The skipped items, each with the reason. Raises DamagedPart, CacheError if it cannot be read.

        The SHA-256 is checked first: HDF5 keeps variable-length strings in a heap without a checksum and never returns
        from searching some damaged heaps.
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
        """Checks the SHA-256 of the file that HDF5 has open, unless this process has done so and it has not changed
        since, or the disk is trusted. Raises DamagedPart, OSError."""
        if trusts_disk():
            return
        state = os.fstat(self.descriptor)
        if VERIFIED.get((state.st_dev, state.st_ino)) != change_of(state):
            check_place(self.path, verify_descriptor(self.path, self.descriptor), *self.place)

    def digest(self, position: int) -> str | None:
        """The digest of what the item at `position` in the part was made from; None if unknown."""
        name = f"{self.schema.item}_sha256"
        return bytes(self.read(name, position).item()).decode() or None if self.has_digests else None

    def record(self, position: int, columns: Sequence[str]) -> Record:
        """The `columns` of the item at `position` in the part."""
        return {name: self.read(name, self.span(name, position)) for name in columns}

    def span(self, column: str, position: int) -> slice | int:
        """The item's rows in `column`: a slice, or `position` itself in a column with one row per item."""
        prefix = self.schema.prefix_of(column)
        if prefix is None:
            return position
        offsets = self.offsets[prefix]
        return slice(int(offsets[position]), int(offsets[position + 1]))

    def read(self, column: str, where: Any) -> np.ndarray:
        """`column[where]`, in the column's dtype. Raises DamagedPart, CacheError if it cannot be read."""

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
    """Whether HDF5's superblock version implies checksums for all metadata."""
    return os.pread(descriptor, 1, USER_BLOCK + 8) >= bytes([CHECKSUMMED_SUPERBLOCK])
