"""`rcnn inspect`: describes a file in about a screenful."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache import CacheState, Reader
from cache.files import cannot
from cache.layout import kind_of
from cache.manifest import read_manifest
from cache.parts import verify_part
from cache.view import open_view, view_fault
from rcnn_cli.running.runner import counted, manifest_json
from stages.contract.catalogue import catalogue
from stages.contract.errors import BadImage, StageError
from stages.input_files import read_whole
from stages.plurals import number_of, plural

SAMPLE_ITEMS = 3
LINE_LENGTH = 100


def inspect_file(path: Path) -> str:
    """Describes a cache's folder, part, view or manifest, any HDF5 file, a recipe, a grid, JSON or an image. Raises
    StageError for anything else."""
    if not path.exists():
        raise StageError(f"{path}: there is no such file or folder; `rcnn cache ls` lists the caches")
    if path.is_dir():
        state = CacheState(path)
        if state.plan is None:
            fault = state.fault or "is not a cache's folder"
            raise StageError(f"{path}: {fault}; `rcnn cache ls` lists the caches")
        return inspect_cache(path)
    if kind_of(path) == "manifest":
        return manifest_json(read_manifest(path) or {})
    if path.suffix in (".h5", ".hdf5"):
        return inspect_hdf5(path)
    if path.suffix == ".toml":
        from rcnn_cli.experiments.grid import is_grid, load_grid
        from rcnn_cli.recipes.recipe import load_recipe

        if is_grid(path):
            cells = [f"  {cell.name}: {', '.join(cell.words()) or 'the base recipe'}" for cell in load_grid(path).cells]
            return "\n".join([f"{path}: a grid of {number_of(len(cells), 'cell')}", *cells])
        return json.dumps(load_recipe(path).as_json(), indent=2, ensure_ascii=False)
    if path.suffix == ".json":
        return inspect_json(path)
    from stages.images.reading import read_image

    try:
        image = read_image(path)
    except BadImage as error:
        raise StageError(
            f"{path}: {error.reason}; `rcnn inspect` shows caches and their files, HDF5, recipes, grids, JSON and "
            f"images, and `rcnn weights show` shows weights files"
        ) from error
    height, width = image.shape[:2]
    return (
        f"{path}: an image of {width} x {height} pixels, mean colour {image.reshape(-1, 3).mean(0).round(1).tolist()}"
    )


def inspect_cache(folder: Path) -> str:
    """Describes a cache: what made it, its columns, its first items."""
    reader = Reader(folder, require_complete=False)
    manifest = reader.manifest
    items = f"{len(reader)} {plural(reader.schema.item, len(reader))}"
    lines = [f"{folder}: {'complete' if manifest else 'unfinished'} cache of {items}"]
    if manifest:
        took = f"; the command that finished it took {manifest['seconds']} s" if "seconds" in manifest else ""
        lines.append(f"made by {manifest['stage']}, {counted(manifest)}{took}")
        lines.append("settings: " + json.dumps(manifest.get("all_settings", manifest["settings"]), ensure_ascii=False))
        lines.append("inputs: " + json.dumps(manifest["inputs"]))
        lines.append("summary: " + shortened(json.dumps(readable_summary(manifest), ensure_ascii=False)))
    lines += [f"  {name}: {column.dtype} {list(column.shape)}" for name, column in reader.schema.columns().items()]
    if manifest:
        for item_id in reader.item_ids[:SAMPLE_ITEMS]:
            shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in reader.read(item_id).items())
            lines.append(f"  {item_id}: {shapes}")
        if (more := len(reader) - SAMPLE_ITEMS) > 0:
            lines.append(f"  and {more:,} more")
    return "\n".join(lines)


def readable_summary(manifest: Mapping[str, Any]) -> Any:
    """A manifest's summary with the names that the stage gives its values for people."""
    stage, summary = catalogue().get(manifest["stage"]), manifest["summary"]
    if stage is None or not isinstance(summary, dict):
        return summary
    return {stage.called.get(name, name): value for name, value in summary.items()}


def inspect_hdf5(path: Path) -> str:
    """Describes an HDF5 file's datasets; verifies the checksum first if it is a part or a cache's view."""
    import h5py

    lines, kind = [f"{path}: HDF5"], kind_of(path)
    if kind == "part":
        header = verify_part(path)
        lines = [
            f"{path}: part {header['part']} of {header['stage']} {header['key']}, "
            f"{number_of(header['items'], 'item')}, intact"
        ]
    elif kind == "view" and (plan := CacheState(path.parent).plan) is not None:
        fault = view_fault(path.parent, plan, thorough=True)
        if fault is not None:
            raise StageError(f"{path}: {fault}; `rcnn cache verify` rewrites it")

    def describe(name: str, value: Any) -> None:
        if isinstance(value, h5py.Dataset):
            shape = "empty" if value.shape is None else list(value.shape)
            lines.append(f"  {name}: {value.dtype} {shape}{range_of(value)}")

    try:
        with open_view(path) as file:
            file.visititems(describe)
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:  # what h5py raises for damaged files
        reason = " ".join(str(error).split())
        raise StageError(f"{path}: is not a readable HDF5 file ({reason}); replace it by an intact copy") from error
    return "\n".join(lines)


def inspect_json(path: Path) -> str:
    """Describes a JSON file's values; nested ones by their size if they are long."""
    try:
        value = json.loads(read_whole(path))
    except OSError as error:
        raise StageError(f"{path}: " + cannot("be read", error, "name another file")) from error
    except (ValueError, RecursionError) as error:
        raise StageError(f"{path}: is not valid JSON ({error}); correct it or replace it") from error
    if not isinstance(value, dict):
        return f"{path}: JSON, {json_line(value)}"
    return "\n".join([f"{path}: JSON", *(f"  {name}: {json_line(member)}" for name, member in value.items())])


def json_line(value: Any) -> str:
    """A JSON value on one line; a long nested one is described by its size and names."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= LINE_LENGTH or not isinstance(value, dict | list):
        return shortened(text, LINE_LENGTH)
    if isinstance(value, list):
        return (
            f"a list of {len(value)}, the first is {shortened(json.dumps(value[0], ensure_ascii=False), LINE_LENGTH)}"
        )
    return f"{len(value)} keys, {shortened(', '.join(value), LINE_LENGTH)}"


def range_of(dataset: Any) -> str:
    """The minimum and maximum of a dataset's first 1,000 rows, as text."""
    import numpy as np

    if dataset.dtype.kind not in "fiu" or not dataset.shape or dataset.size == 0:
        return ""
    values = np.asarray(dataset[:1000], np.float64)
    return f", {values.min():.4g} to {values.max():.4g} (first {number_of(len(values), 'row')})"


def shortened(text: str, length: int = 600) -> str:
    """The text, cut after `length` characters."""
    return text if len(text) <= length else f"{text[:length]} ..."
