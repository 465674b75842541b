"""Every byte of a cache read and compared with what was written: plan, manifest, parts, view."""

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
from cache.view import OF_BEFORE, view_fault
from cache.writer import set_aside

Result = TypeVar("Result")


@dataclass(frozen=True)
class Fault:
    """What is wrong with one file: `kind` is "damaged", "replaced" (a view of an earlier version) or "failed" (it could
    not be read); `text` names the file and says what is wrong and what became of it."""

    kind: str
    text: str


class Verification:
    """A cache of which every byte is read. What is damaged is set aside; a view is written again at once."""

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
        """What `read` returns; None for a file that is not there, or that is damaged or could not be read."""
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
        """Sets a damaged file aside."""
        there = error.path.exists()
        moved = set_aside(error)
        aside = f"set aside as {moved.name}" if there else "only this file will be made again"
        self.faults.append(Fault("damaged", f"{error.path}: {error.reason}; {aside}"))

    def verify_part(self, plan: Plan | None, index: int, complete: bool) -> str:
        """The SHA-256 of a part that is what was written, in its place if there is a plan that tells."""
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
        """Reads the view; writes it again if it is not what was written."""
        fault = view_fault(self.folder, plan, thorough=True)
        if fault is None:
            return
        self.state.write_view()
        kind = "replaced" if fault == OF_BEFORE else "damaged"
        self.faults.append(Fault(kind, f"{self.folder / VIEW}: {fault}; written again"))
