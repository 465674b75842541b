"""Where a cache comes from, as its manifest records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import Reader
from rcnn_cli.recipes.graph import CACHES


@dataclass(frozen=True)
class Source:
    """What filled one input of a stage.

    Attributes:
        key: the key of that cache, dataset or network.
        name: the name of the cache, "propose@train"; None for a dataset or a network that was read from a file.
        folder: where the cache is; None where it is no cache, was computed on demand, or is no longer there.
    """

    key: str
    name: str | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Provenance:
    """What made a cache, and when; enough to make it again.

    Attributes:
        stage: the stage, "extract".
        table: the recipe's table, which may have another name; None if it was not recorded.
        split: the dataset that the stage worked on; None if it was not recorded.
        key: 12 hex digits that name the cache: a digest of the stage, its settings, its inputs and `libraries`.
        inputs: what the stage read, by role ("proposals").
        libraries: the versions that are part of the key.
        versions: those of Python and of all libraries that took part.
        recipe: the whole recipe with every default filled in.
        command: the words of the command line that finished the cache.
        started: when that command began to work on it, in ISO 8601, UTC.
        finished: when it was complete.
        seconds: how long that took; parts that were there before were made earlier.
        rows: how many rows there are in all items.
        bytes: the size of its parts.
        skipped: the items that could not be read, each with the reason.
    """

    stage: str
    table: str | None
    split: str | None
    key: str
    inputs: Mapping[str, Source]
    libraries: Mapping[str, str]
    versions: Mapping[str, str]
    recipe: Mapping[str, Any]
    command: tuple[str, ...]
    started: str | None
    finished: str | None
    seconds: float | None
    rows: int
    bytes: int
    skipped: Mapping[str, str]


def provenance_of(reader: Reader) -> Provenance:
    """What the manifest of a finished cache says."""
    manifest = reader.manifest
    return Provenance(
        stage=manifest["stage"],
        table=manifest.get("use"),
        split=manifest.get("split"),
        key=reader.key,
        inputs=sources_of(reader),
        libraries=manifest["libraries"],
        versions=manifest.get("versions", {}),
        recipe=manifest.get("recipe", {}),
        command=tuple(manifest.get("command", ())),
        started=manifest.get("started"),
        finished=manifest.get("finished"),
        seconds=manifest.get("seconds"),
        rows=manifest["rows"],
        bytes=manifest["bytes"],
        skipped=manifest["skipped"],
    )


def sources_of(reader: Reader) -> dict[str, Source]:
    """What filled each input; folders are recorded relative to the work folder, in which the cache is."""
    folder = reader.folder.absolute()
    works = [parent.parent for parent in folder.parents if parent.name == CACHES]
    recorded = reader.manifest.get("input_caches", {})
    return {
        role: source_of(key, recorded.get(role), works[0] if works else None)
        for role, key in reader.manifest["inputs"].items()
    }


def source_of(key: str, recorded: Mapping[str, str | None] | None, work: Path | None) -> Source:
    """What filled an input; `recorded` of a cache are its name and its folder in `work`."""
    if recorded is None:
        return Source(key)
    place = recorded["folder"]
    folder = work / place if work is not None and place is not None else None
    return Source(key, recorded["name"], folder if folder is not None and folder.is_dir() else None)
