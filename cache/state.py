"""The state of a cache (missing, partial, damaged or complete), for code that runs, awaits, lists or repairs caches.

A `CacheState` is a snapshot: the folder is listed once and each file is read once, when first needed. Taking it changes
nothing; to see later changes, take another.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from cache.errors import DamagedFile, DamagedManifest, DamagedPart, NewerVersion
from cache.files import as_cache_error
from cache.identity import Identity, differences
from cache.layout import ASIDE, MANIFEST, PLAN, VIEW, index_set_aside, names_in, part_index
from cache.manifest import finished_caches, read_manifest
from cache.plan import Plan, read_plan
from cache.reader import Reader, check_agreement, missing_part
from cache.view import view_fault, write_view

MISSING, PARTIAL, DAMAGED, FOREIGN, NEWER, COMPLETE = (
    "missing", "partial", "damaged", "foreign", "newer", "complete"
)  # fmt: skip


class CacheState:
    """The state of the cache in `folder`, which should have this `key` (None: any).

    Unless stated otherwise, everything raises CacheError for a file that cannot be read and NewerVersion for one from a
    newer version; a missing file is not an error.
    """

    def __init__(self, folder: Path, key: str | None = None) -> None:
        self.folder = folder
        self.key = key

    # What is there

    @cached_property
    def names(self) -> frozenset[str]:
        """The names in the folder."""
        return names_in(self.folder)

    @cached_property
    def part_indices(self) -> tuple[int, ...]:
        """The indices of the parts that exist, from their names."""
        return tuple(sorted(index for index in map(part_index, self.names) if index is not None))

    @property
    def exists(self) -> bool:
        """Whether there is a cache, finished or not, possibly without its plan."""
        return bool(self.part_indices or {PLAN, MANIFEST} & self.names)

    @property
    def finished(self) -> bool:
        """Whether there is a manifest, intact or not."""
        return MANIFEST in self.names

    @cached_property
    def plan(self) -> Plan | None:
        """The cache's items and columns; None if there is no plan. Raises DamagedPlan."""
        try:
            return read_plan(self.folder)
        except FileNotFoundError:
            return None

    @property
    def sound_plan(self) -> Plan | None:
        """The plan; None if it is missing or damaged."""
        try:
            return self.plan
        except DamagedFile:
            return None

    @cached_property
    def recorded(self) -> dict[str, Any] | None:
        """The manifest as written, not checked against the parts as `manifest` is. Raises DamagedManifest."""
        return read_manifest(self.folder / MANIFEST)

    # Whether it is complete

    @property
    def complete(self) -> bool:
        """Whether everything is there and consistent; False for a damaged cache."""
        return self.manifest is not None

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The manifest of a complete cache; None if it is not complete."""
        return self.verdict[0]

    @property
    def damage(self) -> DamagedFile | None:
        """What keeps a finished cache from being complete: a file that is not what was written, or a missing part.

        An unfinished cache is not checked for damage; resuming it finds any.
        """
        return self.verdict[1]

    @cached_property
    def verdict(self) -> tuple[dict[str, Any] | None, DamagedFile | None]:
        """(`manifest`, `damage`)."""
        try:
            manifest = self.recorded
            if manifest is None:
                return None, None
            self.check(manifest)
        except DamagedFile as error:
            return None, error
        return (None if self.plan is None else manifest), None

    def check(self, manifest: dict[str, Any]) -> None:
        """Raises DamagedFile unless manifest, plan and the headers of all parts agree."""
        path = self.folder / MANIFEST
        if self.key not in (None, manifest["key"]):
            raise DamagedManifest(path, f"it is the manifest of another cache, {manifest['key']}")
        if self.plan is None:
            return
        check_agreement(self.folder, self.plan, manifest)
        for index, part in enumerate(manifest["parts"]):
            try:
                header = self.plan.header(self.folder, index)
            except FileNotFoundError as error:
                raise missing_part(self.folder / part["name"]) from error
            if header["sha256"] != part["sha256"]:
                raise DamagedManifest(path, f"its SHA-256 for {part['name']} differs from the one in the part itself")

    @cached_property
    def view_fault(self) -> str | None:
        """What is wrong with the one-file view of a complete cache; None if nothing is."""
        return view_fault(self.folder, self.plan) if self.complete and self.plan is not None else None

    @property
    def view(self) -> Path:
        """The path of the one-file view."""
        return self.folder / VIEW

    def write_view(self) -> None:
        """Rewrites the one-file view of a complete cache. Raises DamagedFile, DiskFull."""
        with Reader(self.folder) as reader:
            write_view(reader)

    # Progress

    @cached_property
    def parts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(the indices of the intact parts, those of the parts that are damaged or were set aside as damaged)."""
        plan = self.sound_plan
        if plan is None:
            return (), ()
        whole, damaged = set(), {index for index in map(index_set_aside, self.names) if index is not None}
        for index in self.part_indices:
            try:
                if index < plan.part_count:
                    plan.header(self.folder, index)
                    whole.add(index)
            except FileNotFoundError:
                pass
            except DamagedPart:
                damaged.add(index)
        return tuple(sorted(whole)), tuple(sorted(damaged - whole))

    @property
    def items(self) -> int:
        """The number of items in the plan; 0 without an intact plan."""
        return 0 if self.sound_plan is None else len(self.sound_plan.item_ids)

    @property
    def items_done(self) -> int:
        """The number of items in intact parts."""
        plan = self.sound_plan
        return 0 if plan is None else sum(len(plan.items_of(index)) for index in self.parts[0])

    @property
    def missing_parts(self) -> list[int] | None:
        """The indices of the missing parts; None without an intact plan."""
        plan = self.sound_plan
        return None if plan is None else sorted(set(range(plan.part_count)) - set(self.part_indices))

    # Summary

    @property
    def condition(self) -> str:
        """MISSING, PARTIAL, DAMAGED, FOREIGN (another cache's), NEWER (from a newer version) or COMPLETE."""
        return self.diagnosis[0]

    @property
    def fault(self) -> str:
        """What is wrong, as a clause: "damaged plan.json (it is not valid JSON)"; empty if nothing is."""
        return self.diagnosis[1]

    @cached_property
    def diagnosis(self) -> tuple[str, str]:
        """(`condition`, `fault`)."""
        try:
            if self.plan is None:
                return self.without_plan()
            if self.key not in (None, self.plan.key):
                return FOREIGN, f"its {PLAN} belongs to another cache, {self.plan.key}; delete the folder"
            whole, damaged = self.parts
            all_there = len(whole) == self.plan.part_count
            if all_there and self.damage is not None:
                raise self.damage
            if all_there and self.complete:
                fault = self.view_fault
                return (DAMAGED, f"damaged {VIEW} ({fault})") if fault else (COMPLETE, "")
        except DamagedFile as error:
            return DAMAGED, f"damaged {error.path.name} ({error.reason})"
        except NewerVersion as error:
            return NEWER, str(error).partition(": ")[2]
        if damaged:
            return DAMAGED, f"damaged part{'s' if len(damaged) > 1 else ''} {', '.join(map(str, damaged))}"
        return PARTIAL, f"{self.absent(MANIFEST)}; the next run writes it" if all_there else ""

    def without_plan(self) -> tuple[str, str]:
        """`diagnosis` of a folder that has no plan."""
        if not self.part_indices:
            return MISSING, ""
        count = len(self.part_indices)
        parts = "1 part exists" if count == 1 else f"{count} parts exist"
        return DAMAGED, f"{self.absent(PLAN)}, but {parts}; the next run rewrites it and keeps the parts that match"

    def absent(self, name: str) -> str:
        """A clause that a file is missing, and where it was moved if it was set aside."""
        prefix = f"{name}{ASIDE}"
        aside = sorted((other for other in self.names if other.startswith(prefix)), key=lambda name: (len(name), name))
        return f"no {name}" + (f" (a damaged one was set aside as {aside[-1]})" if aside else "")


def caches_in(root: Path) -> Iterator[CacheState]:
    """The caches in `root`/STAGE/, complete or not, including those without a plan."""
    for folder in sorted(root.glob("*/*")):
        state = CacheState(folder)
        if folder.is_dir() and state.exists:
            yield state


def remove_cache(folder: Path) -> None:
    """Deletes a cache, manifest first: a cache without parts must not look complete. Raises CacheError."""
    try:
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder)
    except OSError as error:
        raise as_cache_error(folder, error) from error


def nearest_relative(
    parent: Path, wanted: Identity, related: Callable[[Mapping[str, Any]], bool] = lambda manifest: True
) -> tuple[list[str], dict[str, Any]] | None:
    """How a cache yet to be made differs, in words, from the most similar finished one in `parent`, and the manifest of
    that one; None if there is none. Only caches whose manifest is `related` are considered."""
    relatives = [
        (differences(Identity.from_json(manifest), wanted), manifest)
        for _, manifest in finished_caches(parent)
        if related(manifest)
    ]
    return min(relatives, key=lambda relative: len(relative[0]), default=None)
