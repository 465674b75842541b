"""`rcnn cache`: list all caches, read every byte of them, delete what no recipe refers to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cache import CacheError, DamagedFile, DamagedManifest, Reader, set_aside
from cache.manifest import MANIFEST, read_manifest
from cache.parts import check_place, part_name, verify_part
from cache.plan import PLAN, Plan, read_plan
from cache.reader import check_agreement, missing_part
from cache.view import OF_BEFORE, VIEW, view_fault, write_view
from rcnn_cli.running.runner import counted, plural, size
from stages.contract.errors import StageError

Result = TypeVar("Result")


def cache_folders(work: Path) -> Iterator[Path]:
    """The folders of all caches, complete or not, also those whose plan was lost."""
    for folder in sorted((work / "caches").glob("*/*")):
        if (folder / PLAN).exists() or (folder / MANIFEST).exists() or any(folder.glob("part-*.h5")):
            yield folder


def folder_bytes(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def list_caches(work: Path, now: float) -> str:
    """A line for each cache: state, when it was finished (or last written to) and how long before `now` (seconds since
    the epoch) that was, folder, size."""
    lines = []
    for folder in cache_folders(work):
        manifest, broken = None, False
        try:
            manifest = read_manifest(folder / MANIFEST)
        except DamagedManifest:
            broken = True
        if manifest is not None:
            state, content = "complete", counted(manifest)
            written = datetime.fromisoformat(manifest["finished"]).timestamp()
        else:
            state, content = "damaged" if broken else "partial", size(folder_bytes(folder))
            written = max(path.stat().st_mtime for path in folder.rglob("*"))
        at = datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d %H:%M")
        lines.append(f"{state:<8}  {at}  {age(now - written):<14}  {folder.relative_to(work)}  ({content})")
    return "\n".join(lines) or f"{work}: no caches yet; `rcnn run RECIPE` makes them"


def age(seconds: float) -> str:
    """How long ago something was, in the largest unit that it fills: "3 days ago"."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {plural(unit, count)} ago"
    return "just now"


def verify_caches(work: Path, graph: Any | None, say: Callable[[str], None]) -> int:
    """Reads every byte of all caches, or of the graph's; sets damaged files aside; returns how many files were damaged
    or could not be read."""
    folders = list(cache_folders(work))
    if graph is not None:
        wanted = {graph.folder(node) for node in graph.nodes.values()}
        folders = [folder for folder in folders if folder in wanted]
    damaged = unread = 0
    for folder in folders:
        verification = Verification(folder, say)
        verification.verify()
        damaged += verification.damaged
        unread += verification.unread
        if not verification.damaged + verification.unread:
            say(f"sound    {folder.relative_to(work)}")
    advice = "; run the recipe again to mend them" if damaged else ""
    not_read = f", {unread} could not be read" if unread else ""
    say(f"{len(folders)} caches read, {damaged} damaged {plural('file', damaged)}{not_read}{advice}")
    return damaged + unread


class Verification:
    """One cache of which every byte is read: plan, manifest, parts, view. `damaged` and `unread` count files."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say
        self.damaged = 0
        self.unread = 0

    def verify(self) -> None:
        """Verifies all files; what is damaged is named and set aside, a view is written again at once."""
        plan = self.of(lambda: read_plan(self.folder))
        manifest = self.of(lambda: read_manifest(self.folder / MANIFEST))
        if plan is not None and manifest is not None:
            self.of(lambda: check_agreement(self.folder, plan, manifest))
        names = sorted(path.name for path in self.folder.glob("part-?????.h5"))
        if plan is not None:
            names = [part_name(index) for index in range(plan.part_count)]
        digests = {
            name: self.of(partial(self.verify_part, self.folder / name, plan, index, manifest is not None))
            for index, name in enumerate(names)
        }
        if plan is None or manifest is None or self.damaged or self.unread:
            return
        if digests != {part["name"]: part["sha256"] for part in manifest["parts"]}:
            self.tell(DamagedManifest(self.folder / MANIFEST, "it names other SHA-256s than those of the parts"))
            return
        self.of(lambda: self.verify_view(plan))

    def of(self, read: Callable[[], Result]) -> Result | None:
        """What `read` returns; None for a file that is not there, is damaged or could not be read, which is said."""
        try:
            return read()
        except FileNotFoundError:
            return None
        except DamagedFile as error:
            self.tell(error)
        except CacheError as error:
            self.unread += 1
            self.say(f"failed   {error}")
        return None

    def tell(self, error: DamagedFile) -> None:
        """Sets a damaged file aside and says so."""
        self.damaged += 1
        there = error.path.exists()
        moved = set_aside(error)
        aside = f"set aside as {moved.name}" if there else "it alone will be recomputed"
        self.say(f"damaged  {error.path}: {error.reason}; {aside}")

    def verify_part(self, path: Path, plan: Plan | None, index: int, complete: bool) -> str:
        """The SHA-256 of a part that is what was written, in its place if there is a plan that tells."""
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
        """Reads the view; writes it again, and says so, if it is not what was written."""
        fault = view_fault(self.folder, plan, thorough=True)
        if fault is None:
            return
        with Reader(self.folder) as reader:
            write_view(reader)
        self.damaged += fault != OF_BEFORE
        self.say(f"{'replaced' if fault == OF_BEFORE else 'damaged '} {self.folder / VIEW}: {fault}; written again")


def collect_garbage(
    work: Path,
    recipes: Sequence[Path],
    load_graphs: Callable[[Path], Iterable[Any]],
    say: Callable[[str], None],
    confirm: Callable[[], bool],
) -> None:
    """Lists what none of the recipes (or grids) refers to, asks, deletes. A recipe that cannot be read stops it."""
    paths = list(recipes) or sorted(Path("recipes").glob("*.toml"))
    if not paths:
        raise StageError("rcnn cache gc: there is no recipe in recipes/; name the recipes whose caches are to be kept")
    kept: set[Path] = set()
    for path in paths:
        try:
            for graph in load_graphs(path):
                kept |= {graph.folder(node).resolve() for node in graph.nodes.values()}
        except (StageError, CacheError) as error:
            raise StageError(
                f"{error}; nothing was deleted: name only the recipes whose caches are to be kept"
            ) from error
    unused = [folder for folder in cache_folders(work) if folder.resolve() not in kept]
    for folder in unused:
        say(f"{size(folder_bytes(folder)):>10}  {folder.relative_to(work)}")
    if not unused:
        say(f"{work}: every cache is in use by {', '.join(str(path) for path in paths)}")
    elif confirm():
        for folder in unused:
            (folder / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(folder)
        say(f"{len(unused)} caches deleted")
