"""Fills a cache from any number of processes at once, each of which may be killed at any moment."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache.adoption import Adoption, write_item_keys
from cache.claims import Claims, process_start, withdraw
from cache.errors import CacheError, DamagedFile, DamagedPart, DamagedPlan
from cache.files import (
    as_cache_error,
    is_temporary,
    read_bytes,
    read_json,
    write_atomically,
    write_json,
    writer_of,
)
from cache.identity import Identity
from cache.layout import ADOPTED, ASIDE, CHECKPOINT, CLAIMS, MANIFEST, PART, PLAN, names_in, part_index, part_name
from cache.manifest import read_manifest, write_manifest
from cache.parts import OpenPart, part_bytes, read_header, write_part
from cache.plan import Plan, plan_in, read_plan, write_plan
from cache.reader import Reader
from cache.schema import Record, Schema
from cache.view import ATTRIBUTES, write_view

log = logging.getLogger(__name__)

ID_PATTERN = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]+")  # no control characters or surrogates


@dataclass(frozen=True)
class Part:
    """Some consecutive items of a cache: the unit of work, retry, atomicity and parallelism."""

    index: int
    item_ids: tuple[str, ...]

    @property
    def name(self) -> str:
        """The part's file name."""
        return part_name(self.index)


@dataclass(frozen=True)
class Shard:
    """`index` of `count`, counted from 1: shard 3/16 makes every sixteenth part, starting with the third."""

    index: int = 1
    count: int = 1

    @staticmethod
    def parse(text: str) -> Shard:
        """A shard written "3/16". Raises CacheError for anything else."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise CacheError(f"shard '{text}' must be written I/N with 1 <= I <= N, for example 3/16")
        return Shard(int(match[1]), int(match[2]))

    def has(self, part: int) -> bool:
        """Whether the part with this index (from 0) belongs to the shard."""
        return part % self.count == self.index - 1


class Checkpoint:
    """Arrays from which a long-running part resumes after a kill; deleted once the part is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Replaces the checkpoint, atomically. Raises DiskFull or CacheError."""
        import io

        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **dict(arrays))
        content = buffer.getvalue()
        write_atomically(self.path, [hashlib.sha256(content).digest(), content])

    def load(self) -> dict[str, np.ndarray] | None:
        """The last checkpoint; None if there is none or it is not what was saved. Raises CacheError if it cannot be
        read."""
        import io

        try:
            content = read_bytes(self.path)
        except FileNotFoundError:
            return None
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            return None
        with np.load(io.BytesIO(content[32:]), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


class Writer:
    """A cache being filled. Can be pickled: a copy in another process writes parts but holds no claims."""

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        item_ids: Sequence[str],
        schema: Schema,
        *,
        part_size: int = 16,
        shard: Shard | None = None,
        compression: str = "none",
        adoption: Adoption | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        """Opens or creates the cache in `folder`. Records in `adoption` are copied instead of computed.
        `digests`: by item id, what the item is made from, stored in the parts.

        The first process fixes the part size, and the others adopt it. Raises CacheError if the folder belongs to
        another identity or a newer version, or if an id is empty, repeated, or has control characters or surrogates.
        """
        check_ids(item_ids, schema.item)
        self.folder = Path(folder)
        self.identity = identity
        self.schema = schema
        self.shard = shard or Shard()
        self.compression = compression
        self.adoption = adoption or Adoption({})
        self.digests = digests or {}
        self.item_ids = tuple(item_ids)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.plan = self.agree_on_plan(part_size)
        self.part_size = self.plan.part_size
        self.parts = tuple(Part(index, self.plan.items_of(index)) for index in range(self.plan.part_count))
        self.claims: Claims | None = Claims(self.folder / CLAIMS)
        self.own_claim = self.claims.text  # so that a copy can withdraw this process's claims
        self.given: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "claims": None}

    def agree_on_plan(self, part_size: int) -> Plan:
        """The plan that the first process wrote. If there is none, or a damaged one, writes ours, with the part size of
        the existing parts."""
        ours = Plan(self.identity, self.item_ids, self.schema, part_size)
        while True:
            try:
                present = read_plan(self.folder)
                if not present.sealed:
                    check_unsealed(self.folder, present, ours)
            except FileNotFoundError:
                fitting = replace(ours, part_size=part_size_that_fits(self.folder, ours))
                if write_plan(self.folder, fitting):
                    return fitting
                continue
            except DamagedPlan as error:
                moved = set_aside(error)
                log.warning("%s: damaged (%s); set aside as %s and rewritten", error.path, error.reason, moved.name)
                continue
            path = self.folder / PLAN
            if present.key != ours.key or present.item_ids != ours.item_ids:
                raise CacheError(f"{path}: is the plan of another cache; delete the folder {self.folder} and run again")
            if present.schema.as_json() != ours.schema.as_json():
                raise CacheError(
                    f"{path}: its columns differ from those of this version of {self.identity.stage}; delete the folder"
                )
            return present

    # Progress

    def is_written(self, part: Part) -> bool:
        """Whether the part has been written. Raises DamagedPart if it is truncated or corrupted."""
        try:
            self.header(part)
        except FileNotFoundError:
            return False
        return True

    def header(self, part: Part) -> dict[str, Any]:
        """The header of a part. Raises as `Plan.header`."""
        return self.plan.header(self.folder, part.index)

    def unfinished(self) -> list[Part]:
        """The missing parts of the whole cache, not only of this shard. Raises DamagedPart."""
        return [part for part in self.parts if not self.is_written(part)]

    def unfinished_here(self) -> list[Part]:
        """The missing parts of this shard. Raises DamagedPart."""
        return [part for part in self.parts if self.shard.has(part.index) and not self.is_written(part)]

    @property
    def remaining_items(self) -> int:
        """How many items of this shard are still to be computed: the total of a progress bar."""
        return sum(len(self.adoption.missing(part.item_ids)) for part in self.unfinished_here())

    def adopted(self) -> dict[str, int]:
        """How many items of this shard's unfinished parts are copied from each cache, by its folder's name."""
        if not self.adoption.places:
            return {}
        return self.adoption.counts([item_id for part in self.unfinished_here() for item_id in part.item_ids])

    def free(self) -> list[Part]:
        """The missing parts of this shard that no live process is working on."""
        assert self.claims is not None
        claims = self.folder / CLAIMS
        return [part for part in self.unfinished_here() if self.claims.owner_is_dead(claims / part.name)]

    # The work

    def claim(self) -> Iterator[Part]:
        """The shard's missing parts that no live process is working on, each claimed as it is yielded.

        Never waits: parts that other processes hold are left to them (see `wait`). A yielded part lists only the items
        to compute; a part whose records can all be copied is written here. Raises as `Adoption.records`.
        """
        if self.claims is None:
            raise CacheError("a copy of a Writer cannot claim parts; this is a bug")
        for part in self.unfinished_here():
            if part.index in self.given or not self.claims.try_claim(part.name):
                continue
            if self.is_written(part):
                self.claims.release(part.name)
                continue
            self.given.add(part.index)
            left = replace(part, item_ids=self.adoption.missing(part.item_ids))
            if left.item_ids:
                yield left
            else:
                self.write(left, [])

    def copy_parts(self) -> None:
        """Writes the unclaimed parts whose records can all be copied."""
        for part in self.claim():
            self.given.discard(part.index)
            if self.claims is not None:
                self.claims.release(part.name)

    def write(self, part: Part, records: Sequence[Record], skipped: Mapping[str, str] | None = None) -> None:
        """Writes a part atomically. `skipped` maps item ids to the reason why their record is empty.

        The records of items that `claim` left out are copied. Raises CacheError for a record that does not match the
        schema, DiskFull, and as `Adoption.records`.
        """
        if len(records) != len(part.item_ids):
            raise CacheError(f"{part.name}: {len(records)} records for {len(part.item_ids)} items; this is a bug")
        whole, copied_from = self.parts[part.index], {}
        if part.item_ids != whole.item_ids:
            computed = set(part.item_ids)
            copied = [item_id for item_id in whole.item_ids if item_id not in computed]
            copied_from = self.adoption.counts(copied)
            by_id = {**dict(self.adoption.records(copied)), **dict(zip(part.item_ids, records, strict=True))}
            part, records = whole, [by_id[item_id] for item_id in whole.item_ids]
        for item_id, record in zip(part.item_ids, records, strict=True):
            self.schema.check(record, item_id)
        digests = [self.digests.get(item_id, "") for item_id in part.item_ids] if self.digests else []
        content = part_bytes(self.schema, part.item_ids, records, skipped or {}, self.compression, digests)
        header = {
            "stage": self.identity.stage,
            "key": self.identity.key,
            "part": part.index,
            "items": len(records),
            "compression": self.compression,
        }
        note = self.note_of_adopted(part)
        if copied_from:
            write_json(note, copied_from, durable=False)
        else:
            note.unlink(missing_ok=True)
        self.put(part, header, content)
        self.checkpoint(part).path.unlink(missing_ok=True)
        if self.claims is not None:
            self.claims.release(part.name)
        else:
            withdraw(self.folder / CLAIMS / part.name, self.own_claim)

    def note_of_adopted(self, part: Part) -> Path:
        """The file that records which caches a part's records were copied from, until the manifest does."""
        return self.folder / f"{ADOPTED}{part.index:05d}.json"

    def put(self, part: Part, header: Mapping[str, Any], content: bytes) -> None:
        """Writes a part unless it exists: while this process was stopped, another may have taken over, written the part
        and deleted this one's temporary file. Raises DiskFull or CacheError."""
        path = self.folder / part.name
        try:
            if write_part(path, header, content, exclusive=True):
                return
            self.header(part)
        except (DamagedPart, FileNotFoundError):
            write_part(path, header, content)
        except CacheError:
            if not self.is_written(part):
                raise

    def checkpoint(self, part: Part) -> Checkpoint:
        """The part's checkpoint, for stages whose parts take minutes."""
        return Checkpoint(self.folder / f"{CHECKPOINT}{part.index:05d}.npz")

    def wait(self, tell: Callable[[int], None], seconds: float = 0.5) -> bool:
        """Waits until a part of this shard that another process holds is written or free again; False if none is left.

        `tell(n)` is called once, with the number of parts waited for.
        """
        assert self.claims is not None
        waiting = self.unfinished_here()
        if not waiting:
            return False
        self.given -= {part.index for part in waiting}
        tell(len(waiting))
        while True:
            left = self.unfinished_here()
            if len(left) < len(waiting):
                return bool(left)
            if any(self.claims.owner_is_dead(self.folder / CLAIMS / part.name) for part in left):
                return True
            time.sleep(seconds)

    def release(self) -> None:
        """Releases the claims and closes the caches that records were copied from; to be called in any case."""
        self.adoption.close()
        if self.claims is not None:
            self.claims.close()
            with contextlib.suppress(OSError):
                (self.folder / CLAIMS).rmdir()

    # The end

    def finish(
        self,
        record: Mapping[str, Any],
        summarise: Callable[[Reader], Any] | None = None,
        item_keys: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Writes the one-file view and, last, the manifest, which includes `record` (versions, command line, times).

        `item_keys`, by item id, let later caches reuse records (`cache.adoption`).

        Returns the manifest. If several processes finish at once, one may delete what another is writing; the manifest
        that exists is then returned. Raises DamagedPart, CacheError if a part is missing.
        """
        try:
            return self.write_end(record, summarise, item_keys)
        except DamagedFile:
            raise
        except CacheError:
            manifest = read_manifest(self.folder / MANIFEST)
            if manifest is None:
                raise
            return manifest

    def write_end(
        self,
        record: Mapping[str, Any],
        summarise: Callable[[Reader], Any] | None,
        item_keys: Mapping[str, str] | None,
    ) -> dict[str, Any]:
        """The work of `finish`, after checking every byte of the parts unless the disk is trusted."""
        headers = [self.header(part) for part in self.parts]
        reader = Reader(self.folder, require_complete=False)
        survey = reader.survey()
        write_view(reader, record.get(ATTRIBUTES, {}), survey)
        parts = [
            {"name": part.name, **{name: header[name] for name in ("items", "bytes", "sha256")}}
            for part, header in zip(self.parts, headers, strict=True)
        ]
        manifest = {
            **self.identity.as_json(),
            "key": self.identity.key,
            **record,
            "items": len(self.item_ids),
            "rows": int(survey.lengths[""].sum()) if "" in survey.lengths else 0,
            "bytes": sum(header["bytes"] for header in headers),
            "skipped": dict(survey.skipped),
            "summary": summarise(reader) if summarise else {},
            "parts": parts,
        }
        if copied := self.copied():
            manifest["adopted"] = copied
        if item_keys:
            write_item_keys(self.folder, self.identity.key, item_keys)
        write_manifest(self.folder / MANIFEST, manifest)
        self.sweep()
        return manifest

    def copied(self) -> dict[str, int]:
        """How many items were copied from each cache, by its folder's name, from the notes beside the parts."""
        total: Counter[str] = Counter()
        for part in self.parts:
            with contextlib.suppress(FileNotFoundError):
                total.update(read_json(self.note_of_adopted(part)))
        return dict(total.most_common())

    def sweep(self) -> None:
        """Deletes leftovers once all parts exist: checkpoints, claims, and the temporary files of dead processes.

        Another host's temporary files are kept, except those of parts: their writer will find the part done.
        """
        for name in os.listdir(self.folder):
            if is_temporary(name):
                host, process = writer_of(name)
                here = host == socket.gethostname()
                leftover = process_start(process) is None if here else name.startswith(PART)
            else:
                leftover = name.startswith((CHECKPOINT, ADOPTED))
            if leftover:
                (self.folder / name).unlink(missing_ok=True)
        claims = self.folder / CLAIMS
        with contextlib.suppress(OSError):
            for name in os.listdir(claims):
                (claims / name).unlink(missing_ok=True)
            claims.rmdir()


def check_ids(item_ids: Sequence[str], item: str) -> None:
    """Raises CacheError for an id that is empty, repeated, or has control characters or surrogates."""
    if not item_ids:
        raise CacheError(f"there is no {item} to process; check the dataset's split or list of ids")
    seen: set[str] = set()
    for item_id in item_ids:
        if not ID_PATTERN.fullmatch(item_id) or item_id in seen:
            raise CacheError(f"{item} id {item_id!r} is repeated, empty or has a control character; ids must be unique")
        seen.add(item_id)


def part_size_that_fits(folder: Path, plan: Plan) -> int:
    """The part size of the existing parts; the plan's if there are none.

    It follows from the ids in one intact part: part i begins with item i × size. Raises CacheError if it cannot be
    read.
    """
    positions = {item_id: position for position, item_id in enumerate(plan.item_ids)}
    for path in sorted((folder / name for name in names_in(folder) if part_index(name) is not None), reverse=True):
        with contextlib.suppress(DamagedPart, FileNotFoundError):
            header = read_header(path)
            index, items = header["part"], header["items"]
            part = OpenPart(path, plan.schema, plan.identity.stage, plan.key, index, items)
            try:
                part.trying(part.verify)
                first = positions.get(part.item_ids[0], -1)
            finally:
                part.close()
            sizes = (first // index,) if index else (plan.part_size, items)
            for size in sizes:
                if size > 0 and replace(plan, part_size=size).items_of(index) == part.item_ids:
                    return size
    return plan.part_size


def check_unsealed(folder: Path, present: Plan, ours: Plan) -> None:
    """Raises DamagedPlan if `present`, a plan of this cache without a SHA-256, contradicts the parts."""
    if present.key == ours.key and present.part_size != part_size_that_fits(folder, present):
        raise DamagedPlan(folder / PLAN, "its part size does not match that of the parts")


def is_sound_plan(path: Path) -> bool:
    """Whether the file holds a plan with the right SHA-256."""
    try:
        return plan_in(path, ()).sealed
    except (DamagedPlan, FileNotFoundError):
        return False


def set_aside(error: DamagedFile) -> Path:
    """Moves a damaged file out of the way, so that only this file is rebuilt; returns its new path.

    Before a part, the manifest is deleted: a cache that lacks a part must not look complete. Raises CacheError if the
    folder cannot be written to.
    """
    folder, path = error.path.parent, error.path
    try:
        if isinstance(error, DamagedPart):
            (folder / MANIFEST).unlink(missing_ok=True)
        number = 0
        while (moved := path.with_name(f"{path.name}{ASIDE}{number}")).exists():
            number += 1
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, moved)
        if isinstance(error, DamagedPlan) and is_sound_plan(moved):  # another process had already rewritten it
            with contextlib.suppress(FileExistsError):
                os.link(moved, path)
            moved.unlink()
    except OSError as refused:
        raise as_cache_error(path, refused) from refused
    return moved
