"""`rcnn cache`: list all caches, read every byte of them, delete what no recipe refers to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cache import CacheError, DamagedPart, set_aside
from cache.files import read_json
from cache.manifest import read_manifest
from cache.parts import check_place, part_name, verify_part
from rcnn_cli.runner import counted, plural, size
from stages.errors import StageError


def cache_folders(work: Path) -> Iterator[Path]:
    """The folders of all caches, complete or not."""
    for plan in sorted((work / "caches").glob("*/*/plan.json")):
        yield plan.parent


def folder_bytes(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def list_caches(work: Path, now: float) -> str:
    """A line for each cache: state, when it was finished (or last written to) and how long before `now` (seconds since
    the epoch) that was, folder, size."""
    lines = []
    for folder in cache_folders(work):
        manifest = read_manifest(folder / "manifest.json")
        if manifest is not None:
            state, content = "complete", counted(manifest)
            written = datetime.fromisoformat(manifest["finished"]).timestamp()
        else:
            state, content = "partial", size(folder_bytes(folder))
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
    """Reads every part of all caches, or of the graph's; sets damaged ones aside; returns how many there were."""
    folders = list(cache_folders(work))
    if graph is not None:
        wanted = {graph.folder(node) for node in graph.nodes.values()}
        folders = [folder for folder in folders if folder in wanted]
    damaged = 0
    for folder in folders:
        found = verify_folder(folder, say)
        damaged += found
        if not found:
            say(f"sound    {folder.relative_to(work)}")
    advice = "; run the recipe again to recompute them" if damaged else ""
    say(f"{len(folders)} caches read, {damaged} damaged parts{advice}")
    return damaged


def verify_folder(folder: Path, say: Callable[[str], None]) -> int:
    """Reads every part of one cache; returns how many were damaged."""
    plan = read_json(folder / "plan.json")
    complete = read_manifest(folder / "manifest.json") is not None
    damaged = 0
    for index in range(-(-len(plan["item_ids"]) // plan["part_size"])):
        path = folder / part_name(index)
        try:
            header = verify_part(path)
            items = min(plan["part_size"], len(plan["item_ids"]) - index * plan["part_size"])
            check_place(path, header, plan["identity"]["stage"], plan["key"], index, items)
        except FileNotFoundError:
            if complete:
                damaged += 1
                say(f"damaged  {path}: the file is missing; it alone will be recomputed")
                (folder / "manifest.json").unlink(missing_ok=True)
        except DamagedPart as error:
            damaged += 1
            moved = set_aside(error)
            say(f"damaged  {path}: {error.reason}; set aside as {moved.name}")
    return damaged


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
            (folder / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(folder)
        say(f"{len(unused)} caches deleted")
