"""`rcnn cache`: lists all caches, reads every byte of them, deletes those that no recipe refers to."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cache import CacheError, CacheState, DamagedManifest, caches_in, remove_cache
from cache.verification import Verification
from rcnn_cli.recipes.graph import CACHES
from rcnn_cli.running.runner import counted, size
from stages.contract.errors import StageError
from stages.plurals import number_of, plural


def all_caches(work: Path) -> list[CacheState]:
    """All caches of a work folder, complete or not."""
    return list(caches_in(work / CACHES))


def folder_bytes(folder: Path) -> int:
    """The total size in bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def list_caches(work: Path, now: float) -> str:
    """One line per cache: state, when it was finished (or last written to) and how long before `now` (seconds since
    the epoch) that was, folder, size."""
    lines = []
    for cache in all_caches(work):
        state, content = "damaged", size(folder_bytes(cache.folder))
        manifest = None
        with contextlib.suppress(DamagedManifest):
            manifest = cache.recorded
            state = "partial" if manifest is None else "damaged" if cache.missing_parts else "complete"
        if manifest is not None:
            content = counted(manifest)
        written = finished_at(manifest or {}) or max(path.stat().st_mtime for path in cache.folder.rglob("*"))
        at = datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d %H:%M")
        lines.append(f"{state:<8}  {at}  {age(now - written):<14}  {cache.folder.relative_to(work)}  ({content})")
    return "\n".join(lines) or f"{work}: no caches yet; `rcnn run RECIPE` makes them"


def finished_at(manifest: Mapping[str, Any]) -> float | None:
    """When a cache was finished, in seconds since the epoch; None if its manifest does not say."""
    try:
        return datetime.fromisoformat(manifest["finished"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


def age(seconds: float) -> str:
    """How long ago something was, in the largest unit of which it fills at least one: "3 days ago"."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {plural(unit, count)} ago"
    return "just now"


def verify_caches(work: Path, graph: Any | None, say: Callable[[str], None]) -> int:
    """Reads every byte of all caches, or of the graph's, and sets damaged files aside. Returns the number of files that
    were damaged or could not be read."""
    caches = all_caches(work)
    if graph is not None:
        folders = {graph.folder(node) for node in graph.nodes.values()}
        caches = [cache for cache in caches if cache.folder in folders]
    count = Counter[str]()
    for cache in caches:
        faults = Verification(cache).verify()
        for fault in faults:
            say(f"{fault.kind:<8} {fault.text}")
        if not any(fault.kind in ("damaged", "failed") for fault in faults):
            say(f"intact   {cache.folder.relative_to(work)}")
        count.update(fault.kind for fault in faults)
    damaged, unread = count["damaged"], count["failed"]
    advice = "; run the recipe again to repair them" if damaged else ""
    not_read = f", {unread} could not be read" if unread else ""
    say(f"{len(caches)} caches read, {damaged} damaged {plural('file', damaged)}{not_read}{advice}")
    return damaged + unread


def collect_garbage(
    work: Path,
    recipes: Sequence[Path],
    load_graphs: Callable[[Path], Iterable[Any]],
    say: Callable[[str], None],
    confirm: Callable[[], bool],
) -> None:
    """Lists the caches that none of the recipes (or grids) refers to and, if confirmed, deletes them.

    Raises StageError, with nothing deleted, if a recipe cannot be read.
    """
    paths = list(recipes) or sorted(Path("recipes").glob("*.toml"))
    if not paths:
        raise StageError("rcnn cache gc: no recipes in recipes/; name the recipes whose caches you want to keep")
    kept: set[Path] = set()
    for path in paths:
        try:
            for graph in load_graphs(path):
                kept |= {graph.folder(node).resolve() for node in graph.nodes.values()}
        except (StageError, CacheError) as error:
            raise StageError(
                f"{error}; nothing was deleted: name only the recipes whose caches you want to keep"
            ) from error
    unused = [cache.folder for cache in all_caches(work) if cache.folder.resolve() not in kept]
    for folder in unused:
        say(f"{size(folder_bytes(folder)):>10}  {folder.relative_to(work)}")
    if not unused:
        say(f"{work}: every cache is in use by {', '.join(str(path) for path in paths)}")
    elif confirm():
        for folder in unused:
            remove_cache(folder)
        say(f"{number_of(len(unused), 'cache')} deleted")
