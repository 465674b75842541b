"""What differs between a recipe that `rcnn init` wrote and the one that it would write now; sizes, which depend on how
busy the machine is, do not count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rcnn_cli.starting.systems import OF_SIZES
from stages.plurals import number_of


def different_tables(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The tables of two parsed recipes, as "[NAME]", that are not the same in both but for their sizes."""
    before, now = without_sizes(one), without_sizes(other)
    return [f"[{name}]" for name in {**before, **now} if before.get(name) != now.get(name)]


def without_sizes(recipe: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The tables of a parsed recipe, those of datasets as "datasets.NAME", without the settings that Sizes decide."""
    datasets = {f"datasets.{name}": table for name, table in recipe.get("datasets", {}).items()}
    tables = {name: table for name, table in recipe.items() if name != "datasets" and isinstance(table, Mapping)}
    return {
        name: {key: setting for key, setting in table.items() if key not in OF_SIZES}
        for name, table in {**datasets, **tables}.items()
    }


def list_change(file: str, before: str, now: str) -> str:
    """How the images in a list, given as the file's text, have changed; of a file of another kind, that it has."""
    if not file.endswith(".txt"):
        return file
    old, new = set(before.splitlines()), set(now.splitlines())
    return f"{file} ({number_of(len(new - old), 'image')} more, {len(old - new)} fewer)"
