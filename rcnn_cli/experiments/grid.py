"""Grids: TOML files that name a base recipe and how the recipe of each cell differs from it.

title = "Which layer"
recipe = "../shapes.toml"           # the base, relative to this file
seeds = [0, 1, 2]                   # every cell once for each of them ...
seed_settings = ["pretrain.seed"]   # ... with these settings set to it
[set.extract]                       # tables merged over the base recipe, for all cells
layers = ["pool4", "fc5"]
[cells.fc5]                         # a cell: tables merged over that, tables and keys left out, the paper's number
set.train-svm.layer = "fc5"
remove = ["train-bbox"]
paper = 54.2

Instead of cells, axes that are multiplied:
[axes]
"extract.padding" = [0, 4]          # the values of one setting
[axes.layer.pool4]                  # or changes with names
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
    """A grid that does not say what it should; names the file and the key."""


@dataclass(frozen=True)
class Change:
    """Tables merged over a recipe's, and tables or keys ("finetune", "propose.test") that are left out first."""

    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    remove: tuple[str, ...] = ()

    def applied(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe's `table` with this change; RecipeError if there is nothing to remove."""
        for name in self.remove:
            table = without(table, name.split("."), name)
        return merged(table, self.set)

    def words(self) -> list[str]:
        """ "no [finetune]", "extract.padding = 0", and "[finetune]" for a table that is only added."""
        left_out = [f"no [{name}]" for name in self.remove]
        changed = [f"[{name}]" if value == {} else f"{name} = {as_text(value)}" for name, value in flattened(self.set)]
        return [*left_out, *changed]


@dataclass(frozen=True)
class Settings:
    """The keys of a grid that are no tables."""

    title: str = setting("", "The heading of the table.")
    recipe: str | None = setting(None, "The base recipe, relative to the grid's folder; none: --recipe names it.")
    evaluation: str = setting("eval", "The evaluation of each cell's recipe whose mAP is shown.")
    classes: bool = setting(False, "Whether the AP of each class is shown beside mAP.")
    protocol: str = setting("", "A footnote for the whole table.")
    paper_source: str = setting("", "Where the cells' `paper` is from.")
    remove: tuple[str, ...] = setting((), "Tables and keys of the base recipe that are left out in all cells.")
    seeds: tuple[int, ...] = setting((), "Each cell is run once with each of these seeds.", at_least=0)
    seed_settings: tuple[str, ...] = setting((), "The settings that are set to the seed.")


@dataclass(frozen=True)
class CellSettings:
    """The keys of a cell besides `set` and `remove`."""

    evaluation: str | None = setting(None, "The cell's own evaluation; none: the grid's.")
    paper: float | None = setting(None, "The paper's number, shown beside the cell's.")
    paper_source: str = setting("", "Where that is from; empty: the grid's.")
    protocol: str = setting("", "A footnote: what was done differently for the paper's number.")


@dataclass(frozen=True)
class Cell:
    """One row of the table: what its recipe changes, the table of the recipe that evaluates it, the paper's number.

    `places` has an entry for each of the grid's columns. `protocol`: what was done differently for the paper's number.
    """

    places: tuple[str, ...]
    changes: tuple[Change, ...]
    evaluation: str
    paper: float | None = None
    paper_source: str = ""
    protocol: str = ""

    @property
    def name(self) -> str:
        """As messages show it: "fc7", "pool5 / 16"."""
        return " / ".join(self.places)

    def words(self) -> list[str]:
        """All that it changes."""
        return [word for change in self.changes for word in change.words()]


@dataclass(frozen=True)
class Grid:
    """Cells, and what is common to them. `metrics` maps a column's title to the name of a number (see `ablation`)."""

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
    """Reads and checks a grid; `seeds` ("0,1") replaces its own. Raises GridError, RecipeError or BadSetting."""
    table = read_toml(path, "grid", "recipes/grids/")
    known = [*TABLES, *(field.name for field in dataclasses.fields(Settings))]
    for name in table:
        if name not in known:
            raise GridError(f"{path}: unknown key '{name}'{nearest(name, known)}")
    tables = {name: table_of(path, name, table.pop(name, {})) for name in TABLES}
    if seeds is not None:
        table["seeds"] = parse_seeds(seeds)
    settings = build_settings(Settings, table, str(path))
    if bool(settings.seeds) != bool(settings.seed_settings):
        raise GridError(f'{path}: seeds = [0, 1, 2] and seed_settings = ["pretrain.seed"] only make sense together')
    if bool(tables["cells"]) == bool(tables["axes"]):
        raise GridError(f"{path}: needs either cells, as [cells.fc7], or axes, as [axes.layer.fc7], and not both")
    if tables["cells"]:
        columns: tuple[str, ...] = (CELL,)
        cells = [cell_of(path, name, value, settings) for name, value in tables["cells"].items()]
        if tables["paper"]:
            raise GridError(f"{path}: [paper] goes with axes; in a cell write paper = 54.2")
    else:
        columns = tuple(tables["axes"])
        cells = product_of(path, tables["axes"], tables["paper"], settings)
    return Grid(
        path,
        settings.title or path.stem,
        Path(os.path.normpath(path.parent / settings.recipe)) if settings.recipe else None,
        Change(nested(tables["set"]), settings.remove),
        columns,
        tuple(cells),
        metrics_of(path, tables["metrics"]),
        settings.classes,
        settings.protocol,
        settings.seeds,
        settings.seed_settings,
    )


def parse_seeds(text: str) -> list[int]:
    """ "0,1,2" as numbers. Raises GridError."""
    try:
        return [int(one) for one in text.split(",")]
    except ValueError as error:
        raise GridError(f"--seeds {text}: must be whole numbers with commas between them, as 0,1,2") from error


def table_of(path: Path, name: str, value: Any) -> dict[str, Any]:
    """`value`, if it is a table."""
    if not isinstance(value, dict):
        raise GridError(f"{path}: {name} must be a table, as [{name}]")
    return value


def metrics_of(path: Path, table: Mapping[str, Any]) -> dict[str, str]:
    """Titles and names of the numbers to show; the evaluation's own headline if the grid says nothing."""
    for title, name in table.items():
        if not isinstance(name, str):
            raise GridError(
                f'{path}: [metrics] "{title}" must name a number, as "map", "coco.AP" or "propose@test:boxes"'
            )
    return dict(table) or {"mAP": "map"}


def cell_of(path: Path, name: str, table: Any, grid: Settings) -> Cell:
    """The cell that [cells.NAME] describes."""
    place = f"{path}: [cells.{name}]"
    change, rest = change_of(path, f"cells.{name}", table, [field.name for field in dataclasses.fields(CellSettings)])
    own = build_settings(CellSettings, rest, place)
    source = "" if own.paper is None else own.paper_source or grid.paper_source
    return Cell((name,), (change,), own.evaluation or grid.evaluation, own.paper, source, own.protocol)


def change_of(path: Path, place: str, table: Any, others: Sequence[str] = ()) -> tuple[Change, dict[str, Any]]:
    """`set` and `remove` of a table, and its other keys, which must be among `others`."""
    rest = dict(table_of(path, place, table))
    known = [*CHANGE, *others]
    for name in rest:
        if name not in known:
            raise GridError(f"{path}: [{place}] unknown key '{name}'{nearest(name, known)}")
    tables = nested(table_of(path, f"{place}.set", rest.pop("set", {})))
    remove = build_settings(Settings, {"remove": rest.pop("remove", [])}, f"{path}: [{place}]").remove
    return Change(tables, remove), rest


def product_of(path: Path, axes: Mapping[str, Any], paper: Mapping[str, Any], grid: Settings) -> list[Cell]:
    """All combinations of the axes' changes, the last axis running fastest."""
    cells = []
    for places, changes in combinations([axis_of(path, name, value) for name, value in axes.items()]):
        value = paper.get(" / ".join(places))
        number = build_settings(CellSettings, {"paper": value}, f"{path}: [paper]").paper
        source = "" if number is None else grid.paper_source
        cells.append(Cell(places, changes, grid.evaluation, number, source))
    names = [cell.name for cell in cells]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise GridError(f"{path}: [axes] two cells are called '{twice[0]}'; give each value of an axis once")
    for name in paper:
        if name not in names:
            raise GridError(f"{path}: [paper] '{name}' is not a cell{nearest(name, names)}")
    return cells


def combinations(axes: Sequence[Sequence[tuple[str, Change]]]) -> Iterator[tuple[tuple[str, ...], tuple[Change, ...]]]:
    """The places and changes of each combination, the last axis running fastest."""
    for combination in itertools.product(*axes):
        yield tuple(word for word, _ in combination), tuple(change for _, change in combination)


def axis_of(path: Path, name: str, value: Any) -> list[tuple[str, Change]]:
    """The values of the setting `name`, or the named changes, each with the word that stands for it."""
    if isinstance(value, list) and value:
        return [(as_text(one), Change(nested({name: one}))) for one in value]
    if isinstance(value, dict) and value:
        return [(word, change_of(path, f"axes.{name}.{word}", table)[0]) for word, table in value.items()]
    raise GridError(f'{path}: [axes] "{name}" must be a list of values of a setting, or a table of changes')


# Tables


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` over `base`; tables are merged, everything else is replaced."""
    result = dict(base)
    for name, value in changes.items():
        old = result.get(name)
        result[name] = merged(old if isinstance(old, dict) else {}, value) if isinstance(value, dict) else value
    return result


def without(table: Mapping[str, Any], keys: Sequence[str], name: str) -> dict[str, Any]:
    """`table` without the table or key that the dotted `name` means. Raises RecipeError if it is not there."""
    first, *rest = keys
    if first not in table or (rest and not isinstance(table[first], dict)):
        raise RecipeError(f"remove '{name}': the recipe has no '{first}'{nearest(first, table)}")
    if rest:
        return {**table, first: without(table[first], rest, name)}
    return {key: value for key, value in table.items() if key != first}


def nested(table: Mapping[str, Any]) -> dict[str, Any]:
    """`table` with each dotted key ("extract.padding") made a table in a table."""
    result: dict[str, Any] = {}
    for name, value in table.items():
        inner = nested(value) if isinstance(value, dict) else value
        for key in reversed(name.split(".")):
            inner = {key: inner}
        result = merged(result, inner)
    return result


def flattened(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The inverse of `nested`; an empty table stands for itself."""
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def as_text(value: Any) -> str:
    """A value as a table shows it: without quotes, as in "0.3", "fc7", "[pool4, fc5]", "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(as_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
