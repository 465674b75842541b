"""The state of a cache (missing, partial, damaged or complete), for all that run, wait for, list or repair caches.

A `CacheState` is what one look finds: the folder is listed once, and each file is read once, when something is asked
that it answers. Nothing is changed by looking; whoever wants to know what is there later looks again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
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
    """The state of the cache in `folder`, which should have this `key` (None: whichever it has).

    Unless it is said otherwise, everything raises CacheError for what cannot be read, NewerVersion for what a newer
    version wrote, and is no error for what is not there.
    """

    def __init__(self, folder: Path, key: str | None = None) -> None:
        self.folder = folder
        self.key = key

    # What is there

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all that the folder holds."""
        return names_in(self.folder)

    @cached_property
    def part_indices(self) -> tuple[int, ...]:
        """The indices of the parts that are there, by their names."""
        return tuple(sorted(index for index in map(part_index, self.names) if index is not None))

    @property
    def exists(self) -> bool:
        """Whether there is a cache, finished or not, perhaps without its plan."""
        return bool(self.part_indices or {PLAN, MANIFEST} & self.names)

    @property
    def finished(self) -> bool:
        """Whether there is a manifest, sound or not."""
        return MANIFEST in self.names

    @cached_property
    def plan(self) -> Plan | None:
        """What the cache is to hold. Raises DamagedPlan."""
        try:
            return read_plan(self.folder)
        except FileNotFoundError:
            return None

    @property
    def sound_plan(self) -> Plan | None:
        """The plan, None also for a damaged one."""
        try:
            return self.plan
        except DamagedFile:
            return None

    @cached_property
    def recorded(self) -> dict[str, Any] | None:
        """The manifest as it stands; whether it is true, `manifest` says. Raises DamagedManifest."""
        return read_manifest(self.folder / MANIFEST)

    # Whether it is complete

    @property
    def complete(self) -> bool:
        """Whether all is there and fits together; False for a damaged cache."""
        return self.manifest is not None

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The manifest of a complete cache, None if it is not complete."""
        return self.verdict[0]

    @property
    def damage(self) -> DamagedFile | None:
        """What keeps a finished cache from being complete: a file that is not what was written, or a lost part.

        An unfinished cache is not checked for damage: resuming it finds any.
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
        """Raises DamagedFile unless manifest, plan and the headers of all parts fit together."""
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
        """What is wrong with the one-file view of a complete cache, None if nothing is."""
        return view_fault(self.folder, self.plan) if self.complete and self.plan is not None else None

    @property
    def view(self) -> Path:
        """The path of the one-file view."""
        return self.folder / VIEW

    def write_view(self) -> None:
        """Writes the one-file view of a complete cache again. Raises DamagedFile, DiskFull."""
        with Reader(self.folder) as reader:
            write_view(reader)

    # How far it is

    @cached_property
    def parts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The indices of the parts that are whole, and of those that are damaged or were set aside as damaged."""
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
        """How many items the cache is to hold; 0 without a plan that can be read."""
        return 0 if self.sound_plan is None else len(self.sound_plan.item_ids)

    @property
    def items_done(self) -> int:
        """How many items there are in whole parts."""
        plan = self.sound_plan
        return 0 if plan is None else sum(len(plan.items_of(index)) for index in self.parts[0])

    @property
    def missing_parts(self) -> list[int] | None:
        """The indices of the parts that are not there, None without a plan that can be read."""
        plan = self.sound_plan
        return None if plan is None else sorted(set(range(plan.part_count)) - set(self.part_indices))

    # All of it in a word

    @property
    def condition(self) -> str:
        """MISSING, PARTIAL, DAMAGED, FOREIGN (another cache's), NEWER (a newer version's) or COMPLETE."""
        return self.diagnosis[0]

    @property
    def fault(self) -> str:
        """What is wrong, as a clause for people: "damaged plan.json (it is not valid JSON)"; empty if nothing is."""
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
        there = "1 part is there" if count == 1 else f"{count} parts are there"
        return DAMAGED, f"{self.absent(PLAN)}, but {there}; the next run writes it again and keeps what fits"

    def absent(self, name: str) -> str:
        """That a file is not there, and where it went if it was set aside."""
        aside = sorted(
            (other for other in self.names if other.startswith(f"{name}{ASIDE}")), key=lambda one: (len(one), one)
        )
        return f"no {name}" + (f" (a damaged one was set aside as {aside[-1]})" if aside else "")


def caches_in(root: Path) -> Iterator[CacheState]:
    """The caches in the folders of stages in `root`, complete or not, also those whose plan was lost."""
    for folder in sorted(root.glob("*/*")):
        state = CacheState(folder)
        if folder.is_dir() and state.exists:
            yield state


def remove_cache(folder: Path) -> None:
    """Deletes a cache, its manifest first: what lacks a part is not complete. Raises CacheError."""
    try:
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder)
    except OSError as error:
        raise as_cache_error(folder, error) from error


def nearest_relative(parent: Path, wanted: Identity) -> list[str]:
    """How a cache that is to be made differs from the finished one in `parent` that differs least, in words."""
    found = [differences(Identity.from_json(manifest), wanted) for _, manifest in finished_caches(parent)]
    return min(found, key=len, default=[])
