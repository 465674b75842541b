"""Reads every byte of a cache (plan, manifest, parts, view) and checks that it is what was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from cache.errors import CacheError, DamagedFile, DamagedManifest
from cache.layout import MANIFEST, VIEW, part_name
from cache.parts import check_place, verify_part
from cache.plan import Plan
from cache.reader import check_agreement, missing_part
from cache.state import CacheState
from cache.view import EARLIER_VERSION, view_fault
from cache.writer import set_aside

Result = TypeVar("Result")


@dataclass(frozen=True)
class Fault:
    """What is wrong with one file: `kind` is "damaged", "replaced" (a view from an earlier version) or "failed" (could
    not be read); `text` gives the file, what is wrong and what was done about it."""

    kind: str
    text: str


class Verification:
    """One full check of a cache. Damaged files are set aside; a damaged view is rewritten at once."""

    def __init__(self, state: CacheState) -> None:
        self.state = state
        self.folder = state.folder
        self.faults: list[Fault] = []

    def verify(self) -> list[Fault]:
        """Reads all files; returns the faults found."""
        plan = self.of(lambda: self.state.plan)
        manifest = self.of(lambda: self.state.recorded)
        if plan is not None and manifest is not None:
            self.of(lambda: check_agreement(self.folder, plan, manifest))
        indices = self.state.part_indices if plan is None else range(plan.part_count)
        digests = {
            part_name(index): self.of(partial(self.verify_part, plan, index, manifest is not None)) for index in indices
        }
        if plan is None or manifest is None or self.faults:
            return self.faults
        if digests != {part["name"]: part["sha256"] for part in manifest["parts"]}:
            self.damaged(DamagedManifest(self.folder / MANIFEST, "its SHA-256s do not match the parts"))
        else:
            self.of(lambda: self.verify_view(plan))
        return self.faults

    def of(self, read: Callable[[], Result]) -> Result | None:
        """What `read` returns; None, with a fault recorded unless it is missing, for a file that it cannot read."""
        try:
            return read()
        except FileNotFoundError:
            return None
        except DamagedFile as error:
            self.damaged(error)
        except CacheError as error:
            self.faults.append(Fault("failed", str(error)))
        return None

    def damaged(self, error: DamagedFile) -> None:
        """Sets a damaged file aside and records the fault."""
        there = error.path.exists()
        moved = set_aside(error)
        aside = f"set aside as {moved.name}" if there else "only this part will be recomputed"
        self.faults.append(Fault("damaged", f"{error.path}: {error.reason}; {aside}"))

    def verify_part(self, plan: Plan | None, index: int, complete: bool) -> str:
        """The SHA-256 of an intact part, checked to be the right one if there is a plan. Raises DamagedPart."""
        path = self.folder / part_name(index)
        try:
            header = verify_part(path)
        except FileNotFoundError:
            if not complete:
                raise
            raise missing_part(path) from None
        if plan is not None:
            check_place(path, header, plan.identity.stage, plan.key, index, len(plan.items_of(index)))
        return str(header["sha256"])

    def verify_view(self, plan: Plan) -> None:
        """Checks the view; rewrites it, with a fault recorded, if it is not what was written."""
        fault = view_fault(self.folder, plan, thorough=True)
        if fault is None:
            return
        self.state.write_view()
        kind = "replaced" if fault == EARLIER_VERSION else "damaged"
        self.faults.append(Fault(kind, f"{self.folder / VIEW}: {fault}; rewritten"))
