"""Grids: TOML files that name a base recipe and, for each cell, how its recipe differs.

title = "Which layer"
recipe = "../shapes.toml"           # the base, relative to this file
seeds = [0, 1, 2]                   # every cell is run once per seed ...
seed_settings = ["pretrain.seed"]   # ... with these settings set to it
[set.extract]                       # tables merged over the base recipe, for all cells
layers = ["pool4", "fc5"]
[cells.fc5]                         # a cell: tables merged over those, tables and keys to remove, the paper's number
set.train-svm.layer = "fc5"
remove = ["train-bbox"]
paper = 54.2
[cells.fast]
recipe = "../shapes-fast.toml"      # this cell's own base in place of the grid's

Instead of cells, axes whose combinations are the cells:
[axes]
"extract.padding" = [0, 4]          # the values of one setting
[axes.layer.pool4]                  # or named changes
set.train-svm.layer = "pool4"
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rcnn_cli.recipes.recipe import RecipeError, read_toml
from stages.contract.errors import StageError
from stages.contract.settings import build_settings, nearest, setting

TABLES = ("set", "metrics", "cells", "axes", "paper")
CHANGE = ("set", "remove")
CELL = "cell"


class GridError(StageError):
    """An invalid grid; the message names the file and the key."""


@dataclass(frozen=True)
class Change:
    """Tables to merge over a recipe's, after removing tables or keys such as "finetune" and "propose.test"."""

    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    remove: tuple[str, ...] = ()

    def applied(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe's `table` with this change. Raises RecipeError if there is nothing to remove."""
        for name in self.remove:
            table = without(table, name.split("."), name)
        return merged(table, self.set)

    def words(self) -> list[str]:
        """The change in words: "no [finetune]", "extract.padding = 0", "[finetune]" for a table added without keys."""
        removed = [f"no [{name}]" for name in self.remove]
        changed = [f"[{name}]" if value == {} else f"{name} = {as_text(value)}" for name, value in flattened(self.set)]
        return [*removed, *changed]


@dataclass(frozen=True)
class Settings:
    """The keys of a grid that are not tables."""

    title: str = setting("", "The heading of the table.")
    recipe: str | None = setting(
        None, "The base recipe, relative to the grid's folder; none: given by --recipe, or each cell names its own."
    )
    evaluation: str = setting(
        "eval", "The evaluation of each cell's recipe whose mAP is shown, or a table of proposals whose recall is."
    )
    classes: bool = setting(False, "Whether the AP of each class is shown beside mAP.")
    protocol: str = setting("", "A footnote for the whole table.")
    paper_source: str = setting("", "Where the cells' `paper` is from.")
    remove: tuple[str, ...] = setting((), "Tables and keys of the base recipe to remove in all cells.")
    seeds: tuple[int, ...] = setting((), "Each cell is run once per seed.", at_least=0)
    seed_settings: tuple[str, ...] = setting((), "The settings to set to the seed.")


@dataclass(frozen=True)
class CellSettings:
    """The keys of a cell besides `set` and `remove`."""

    recipe: str | None = setting(None, "The base recipe of this cell, relative to the grid's folder; none: the grid's.")
    evaluation: str | None = setting(None, "The evaluation of this cell; none: the grid's.")
    paper: float | None = setting(None, "The paper's number, shown beside the cell's.")
    paper_source: str = setting("", "Where that number is from; empty: the grid's `paper_source`.")
    protocol: str = setting("", "A footnote: what was done differently for the paper's number.")


@dataclass(frozen=True)
class Cell:
    """One row of the table: its changes to the recipe, the recipe's evaluation to show, the paper's number.

    `places` has one entry per column of the grid. `recipe`: the cell's own base recipe, None for the grid's.
    `protocol`: what was done differently for the paper's number.
    """

    places: tuple[str, ...]
    changes: tuple[Change, ...]
    evaluation: str
    paper: float | None = None
    paper_source: str = ""
    protocol: str = ""
    recipe: Path | None = None

    @property
    def name(self) -> str:
        """The cell in messages: "fc7", "pool5 / 16"."""
        return " / ".join(self.places)

    def words(self) -> list[str]:
        """The cell's own recipe, if it has one, and all changes in words."""
        own = [] if self.recipe is None else [f"recipe = {self.recipe.name}"]
        return [*own, *(word for change in self.changes for word in change.words())]


@dataclass(frozen=True)
class Grid:
    """A validated grid. `metrics` maps a column's title to the name of a number (see `ablation`)."""

    path: Path
    title: str
    recipe: Path | None
    base: Change
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    metrics: Mapping[str, str]
    classes: bool = False
    protocol: str = ""
    seeds: tuple[int, ...] = ()
    seed_settings: tuple[str, ...] = ()


def is_grid(path: Path) -> bool:
    """Whether the TOML file is a grid rather than a recipe. Raises RecipeError if it cannot be read."""
    table = read_toml(path)
    return "cells" in table or "axes" in table


def load_grid(path: Path, seeds: str | None = None) -> Grid:
    """Reads and validates a grid; `seeds` ("0,1") overrides its own. Raises GridError, RecipeError or BadSetting."""
    table = read_toml(path, "grid", "grids/")
    known = [*TABLES, *(field.name for field in dataclasses.fields(Settings))]
    for name in table:
        if name not in known:
            raise GridError(f"{path}: unknown key '{name}'{nearest(name, known)}")
    tables = {name: table_of(path, name, table.pop(name, {})) for name in TABLES}
    if seeds is not None:
        table["seeds"] = parse_seeds(seeds)
    settings = build_settings(Settings, table, str(path))
    if seeds is not None and not settings.seed_settings:
        raise GridError(
            f"{path}: --seeds needs seed_settings in the grid, the settings that take a seed, such as "
            '["pretrain.seed"]; add them, or leave out --seeds'
        )
    if bool(settings.seeds) != bool(settings.seed_settings):
        raise GridError(f'{path}: seeds = [0, 1, 2] and seed_settings = ["pretrain.seed"] only make sense together')
    if bool(tables["cells"]) == bool(tables["axes"]):
        raise GridError(
            f"{path}: needs either cells, such as [cells.fc7], or axes, such as [axes.layer.fc7], but not both"
        )
    if tables["cells"]:
        columns: tuple[str, ...] = (CELL,)
        cells = [cell_of(path, name, value, settings) for name, value in tables["cells"].items()]
        if tables["paper"]:
            raise GridError(f"{path}: [paper] is for axes; in a cell write paper = 54.2")
    else:
        columns = tuple(tables["axes"])
        cells = product_of(path, tables["axes"], tables["paper"], settings)
    return Grid(
        path,
        settings.title or path.stem,
        beside(path, settings.recipe),
        Change(nested(tables["set"]), settings.remove),
        columns,
        tuple(cells),
        metrics_of(path, tables["metrics"]),
        settings.classes,
        settings.protocol,
        settings.seeds,
        settings.seed_settings,
    )


def beside(path: Path, recipe: str | None) -> Path | None:
    """The path of a `recipe` that the grid in `path` names relative to its own folder; None for none."""
    return Path(os.path.normpath(path.parent / recipe)) if recipe else None


def parse_seeds(text: str) -> list[int]:
    """Parses "0,1,2". Raises GridError."""
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError as error:
        raise GridError(f"--seeds {text}: must be integers separated by commas, for example 0,1,2") from error


def table_of(path: Path, name: str, value: Any) -> dict[str, Any]:
    """`value` if it is a table. Raises GridError otherwise."""
    if not isinstance(value, dict):
        raise GridError(f"{path}: {name} must be a table, [{name}]")
    return value


def metrics_of(path: Path, table: Mapping[str, Any]) -> dict[str, str]:
    """The titles and names of the numbers to show; by default the evaluation's mAP. Raises GridError."""
    for title, name in table.items():
        if not isinstance(name, str):
            raise GridError(
                f'{path}: [metrics] "{title}" must name a number, such as "map", "coco.AP" or "propose@test:boxes"'
            )
    return dict(table) or {"mAP": "map"}


def cell_of(path: Path, name: str, table: Any, grid: Settings) -> Cell:
    """The cell described by [cells.NAME]. Raises GridError or BadSetting."""
    place = f"{path}: [cells.{name}]"
    change, rest = change_of(path, f"cells.{name}", table, [field.name for field in dataclasses.fields(CellSettings)])
    cell = build_settings(CellSettings, rest, place)
    source = "" if cell.paper is None else cell.paper_source or grid.paper_source
    recipe = beside(path, cell.recipe)
    return Cell((name,), (change,), cell.evaluation or grid.evaluation, cell.paper, source, cell.protocol, recipe)


def change_of(path: Path, place: str, table: Any, others: Sequence[str] = ()) -> tuple[Change, dict[str, Any]]:
    """(the change in a table's `set` and `remove`, its other keys, which must be among `others`). Raises GridError."""
    rest = dict(table_of(path, place, table))
    known = [*CHANGE, *others]
    for name in rest:
        if name not in known:
            raise GridError(f"{path}: [{place}] unknown key '{name}'{nearest(name, known)}")
    tables = nested(table_of(path, f"{place}.set", rest.pop("set", {})))
    remove = build_settings(Settings, {"remove": rest.pop("remove", [])}, f"{path}: [{place}]").remove
    return Change(tables, remove), rest


def product_of(path: Path, axes: Mapping[str, Any], paper: Mapping[str, Any], grid: Settings) -> list[Cell]:
    """The cells of all combinations of the axes' changes, the last axis varying fastest. Raises GridError."""
    cells = []
    for places, changes in combinations([axis_of(path, name, value) for name, value in axes.items()]):
        value = paper.get(" / ".join(places))
        number = build_settings(CellSettings, {"paper": value}, f"{path}: [paper]").paper
        source = "" if number is None else grid.paper_source
        cells.append(Cell(places, changes, grid.evaluation, number, source))
    names = [cell.name for cell in cells]
    duplicates = [name for name in names if names.count(name) > 1]
    if duplicates:
        raise GridError(f"{path}: [axes] two cells are called '{duplicates[0]}'; list each value of an axis once")
    for name in paper:
        if name not in names:
            raise GridError(f"{path}: [paper] '{name}' is not a cell{nearest(name, names)}")
    return cells


def combinations(axes: Sequence[Sequence[tuple[str, Change]]]) -> Iterator[tuple[tuple[str, ...], tuple[Change, ...]]]:
    """(places, changes) of each combination of the axes' values, the last axis varying fastest."""
    for combination in itertools.product(*axes):
        yield tuple(word for word, _ in combination), tuple(change for _, change in combination)


def axis_of(path: Path, name: str, value: Any) -> list[tuple[str, Change]]:
    """The values of an axis as (word in the table, change): the values of the setting `name`, or named changes."""
    if isinstance(value, list) and value:
        return [(as_text(choice), Change(nested({name: choice}))) for choice in value]
    if isinstance(value, dict) and value:
        return [(word, change_of(path, f"axes.{name}.{word}", table)[0]) for word, table in value.items()]
    raise GridError(f'{path}: [axes] "{name}" must be a list of values for that setting, or a table of changes')


# Tables


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` updated by `changes`: tables are merged, everything else is replaced."""
    result = dict(base)
    for name, value in changes.items():
        old = result.get(name)
        result[name] = merged(old if isinstance(old, dict) else {}, value) if isinstance(value, dict) else value
    return result


def without(table: Mapping[str, Any], keys: Sequence[str], name: str) -> dict[str, Any]:
    """`table` without the table or key at `keys` (the dotted `name`). Raises RecipeError if it is missing."""
    first, *rest = keys
    if first not in table or (rest and not isinstance(table[first], dict)):
        raise RecipeError(f"remove '{name}': the recipe has no '{first}'{nearest(first, table)}")
    if rest:
        return {**table, first: without(table[first], rest, name)}
    return {key: value for key, value in table.items() if key != first}


def nested(table: Mapping[str, Any]) -> dict[str, Any]:
    """`table` with dotted keys such as "extract.padding" turned into nested tables."""
    result: dict[str, Any] = {}
    for name, value in table.items():
        inner = nested(value) if isinstance(value, dict) else value
        for key in reversed(name.split(".")):
            inner = {key: inner}
        result = merged(result, inner)
    return result


def flattened(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The inverse of `nested`, as (dotted key, value) pairs; an empty table is a value."""
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def as_text(value: Any) -> str:
    """A value without quotes: "0.3", "fc7", "[pool4, fc5]", "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(as_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
