"""What `import rcnn` promises: names and signatures. Whoever changes these lists changes other people's programs."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import rcnn
from cache import CacheError
from stages.contract.errors import StageError

PROJECT = Path(__file__).parents[2]
NAMES = [
    "BadImage",
    "Detection",
    "Detections",
    "Detector",
    "Error",
    "IncompleteCache",
    "Provenance",
    "Row",
    "Rows",
    "Source",
    "load",
    "open",
    "run",
]
ARGUMENTS = {
    "load": ("recipe", "*work", "*detector", "*threshold", "*precision", "*thresholds", "*device", "*changes"),
    "open": ("cache", "table", "*split", "*work", "*changes"),
    "run": ("recipe", "*work", "*changes", "*device", "*jobs", "*skip_bad_images"),
    "Detector.__call__": ("self", "image", "*name"),
    "Detections.to_pandas": ("self",),
    "Detections.to_coco": ("self", "image_id", "category_ids"),
    "Detections.picture": ("self",),
    "Detections.plot": ("self", "ax"),
    "Rows.array": ("self", "column", "ids"),
    "Rows.image": ("self", "image_id"),
    "Rows.to_pandas": ("self", "columns", "*table", "*ids"),
    "Rows.close": ("self",),
}
"""Those that are given by name alone have a star."""
PROPERTIES = {
    "Detector": ("classes", "origin", "rule", "score"),
    "Detections": ("good_enough", "names", "size"),
    "Rows": ("columns", "folder", "ids", "item", "names", "provenance", "settings", "summary"),
}
FIELDS = {
    "Detection": ("name", "label", "score", "precision", "box", "good_enough"),
    "Detections": ("boxes", "scores", "labels", "precision", "drawn", "classes", "image", "name", "path", "showing"),
    "Provenance": (
        "stage", "table", "split", "key", "inputs", "libraries", "versions", "recipe", "command", "started", "finished",
        "seconds", "rows", "bytes", "skipped",
    ),
    "Source": ("key", "name", "folder"),
}  # fmt: skip


def attribute(name: str) -> object:
    """ "Rows.array" of the package."""
    found: object = rcnn
    for word in name.split("."):
        found = getattr(found, word)
    return found


def test_the_names() -> None:
    assert sorted(rcnn.__all__) == NAMES
    assert set(NAMES) <= set(dir(rcnn))
    assert sorted(rcnn.DEFINED) == NAMES
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        rcnn.lod  # noqa: B018


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name: str) -> None:
    signature = inspect.signature(attribute(name))  # type: ignore[arg-type]
    kinds = signature.parameters.values()
    found = tuple(f"{'*' if one.kind is one.KEYWORD_ONLY else ''}{one.name}" for one in kinds)
    assert found == ARGUMENTS[name]
    required = [one.name for one in kinds if one.default is one.empty]
    assert required == [one for one in ("self", "recipe", "cache", "image", "column", "image_id") if one in required]


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties(name: str) -> None:
    kinds = ("property", "cached_property")
    found = [key for key, value in vars(attribute(name)).items() if type(value).__name__ in kinds]
    assert set(PROPERTIES[name]) <= set(found)


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_frozen_dataclasses(name: str) -> None:
    made = attribute(name)
    assert tuple(field.name for field in dataclasses.fields(made)) == FIELDS[name]  # type: ignore[arg-type]
    assert made.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_every_public_name_is_documented() -> None:
    for name in [*NAMES, *ARGUMENTS, *(f"{one}.{each}" for one, names in PROPERTIES.items() for each in names)]:
        found = attribute(name)
        assert len(inspect.getdoc(getattr(found, "func", found)) or "") > 20, name


def test_one_class_of_errors_can_be_caught() -> None:
    assert issubclass(StageError, rcnn.Error)
    assert issubclass(CacheError, rcnn.Error)
    assert issubclass(rcnn.BadImage, StageError)
    assert issubclass(rcnn.IncompleteCache, CacheError)


def test_star_import_gives_the_names_alone() -> None:
    code = "from rcnn import *; print(sorted(name for name in dir() if name[0] != '_'))"
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=PROJECT, text=True)
    assert printed.strip() == str(NAMES)
