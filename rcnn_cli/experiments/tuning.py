"""`rcnn tune`: R-CNN section 2.3's grid search, on a validation split, and the recipe with what it chose."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.files import write_atomically
from rcnn_cli.experiments.ablation import Row
from rcnn_cli.experiments.grid import Cell, Change, Grid, as_text, combinations, merged, nested
from rcnn_cli.outputs import check_output_file
from rcnn_cli.recipes.detectors import detector_of
from rcnn_cli.recipes.graph import RECIPE_FOLDER, Graph, Node
from rcnn_cli.recipes.recipe import build_recipe, sources_of, toml_text
from stages.contract.errors import StageError
from stages.contract.settings import all_of, build_settings

log = logging.getLogger("rcnn")

TEST = "test"
METRIC = "mAP"


def parse_values(option: str, text: str) -> list[float]:
    """ "0,0.1,0.2" as numbers. Raises StageError."""
    try:
        return list(dict.fromkeys(float(one) for one in text.split(",")))
    except ValueError as error:
        raise StageError(f"{option} {text}: must be numbers with commas between them, as 0.2,0.3,0.4") from error


def check_output(recipe: Path, output: Path, force: bool) -> None:
    """Raises StageError where the recipe tuned from `recipe` could not be written in the end."""
    check_output_file("-o", output, [recipe], lambda _: True)
    if os.path.lexists(output) and not force:
        raise StageError(f"{output}: already exists; name another file with -o, or pass --force to replace it")
    if not output.parent.is_dir():
        raise StageError(f"{output}: there is no folder {output.parent}; create it first, or name another file with -o")


def check_split(graph: Graph, evaluation: Node, split: str) -> None:
    """Raises StageError unless `split` is held out: neither the test set nor training data has an image of it."""
    reported = evaluation.dataset
    if split in (TEST, reported):
        raise StageError(
            f"tune --split {split}: [{evaluation.use.name}] reports on '{reported}', and settings are never chosen on "
            f"test images; name a validation split, as --split val"
        )
    if split not in graph.recipe.datasets:
        raise StageError(
            f"{graph.recipe.path}: has no dataset '{split}' to choose settings on; add [datasets.{split}], "
            f"or --set datasets.{split}.source=voc:DIR:{split}"
        )
    own = images_of(graph, split)
    for other in sorted({TEST, reported, *training_splits(graph, evaluation)} & set(graph.recipe.datasets)):
        common = own & images_of(graph, other)
        if common:
            raise StageError(
                f"{graph.recipe.path}: {len(common)} of the {len(own)} images of '{split}' are in '{other}' too, "
                f"for example {min(common).name}; choose settings on separate images"
            )


def training_splits(graph: Graph, evaluation: Node) -> Iterator[str]:
    """The splits that the evaluated detector was trained on."""
    for node in graph.needed(evaluation)[:-1]:
        if "dataset" in node.use.stage.kinds and not node.use.stage.follows_split:
            yield node.dataset


def images_of(graph: Graph, split: str) -> set[Path]:
    """The image files of a split."""
    dataset = graph.dataset(split, "dataset")
    return {dataset.image_path(image_id).resolve() for image_id in dataset.image_ids}


def tuning_grid(graph: Graph, evaluation: Node, split: str, searched: Mapping[str, Sequence[float]]) -> Grid:
    """All combinations of the settings `searched` (name: values), evaluated on `split`.

    A setting is that of the evaluated detector or of what it was trained from; one that none of them has is left out.
    Raises BadSetting for an impossible value, StageError if there is no setting to search.
    """
    detector = detector_of(evaluation)
    uses = list({node.use.name: node.use for node in (detector, *detector.upstream())}.values())
    columns, axes = [], []
    for name, values in searched.items():
        having = [use for use in uses if name in all_of(use.settings)]
        if not having:
            log.warning("%s: nothing that [%s] needs has the setting %s", evaluation.name, detector.use.name, name)
        for use in having:
            columns.append(f"{use.name}.{name}")
            axes.append([(as_text(value), change_of(use, name, value)) for value in values])
    if not axes:
        raise StageError(f"{graph.recipe.path}: [{detector.use.name}] has none of the settings {', '.join(searched)}")
    inputs = {"detections": detector.use.name, **({"images": split} if "images" in evaluation.use.inputs else {})}
    wiring = {evaluation.use.name: {"split": split, "inputs": inputs}}
    cells = [Cell(places, changes, evaluation.use.name) for places, changes in combinations(axes)]
    title = f"Search on the split '{split}'"
    path = graph.recipe.path
    base = Change(merged(as_reported(graph, evaluation, split, searched), wiring))
    return Grid(path, title, path, base, tuple(columns), tuple(cells), {METRIC: "map"})


def as_reported(graph: Graph, evaluation: Node, split: str, searched: Collection[str]) -> dict[str, Any]:
    """Tables that give `split` the settings which hold for the reported split alone, as [propose.test]."""
    tables: dict[str, Any] = {}
    for node in graph.needed(evaluation):
        special = node.use.split_settings.get(node.split or "")
        if node.split == evaluation.split and special and split not in node.use.split_settings:
            common = all_of(node.use.settings)
            own = {name: value for name, value in all_of(special).items() if value != common.get(name)}
            tables[node.use.name] = {split: {name: value for name, value in own.items() if name not in searched}}
    return tables


def change_of(use: Any, name: str, value: float) -> Change:
    """The setting on every split. Raises BadSetting for an impossible value."""
    build_settings(use.stage.settings, {name: value}, f"tune: [{use.name}]")
    names = [use.name, *(f"{use.name}.{split}" for split in use.split_settings)]
    return Change(nested({f"{one}.{name}": value for one in names}))


def best_row(rows: Sequence[Row]) -> Row:
    """The row with the largest mAP; of equals the first. Raises StageError if there is nothing to find."""
    found = [(value.mean, row) for row in rows if (value := row.values.get(METRIC)) is not None]
    if not found:
        raise StageError("tune: the split has no objects to find; name another with --split")
    return max(found, key=lambda one: one[0])[1]


def write_tuned(
    graph: Graph, output: Path, row: Row, split: str, tried: int, changes: Sequence[str], force: bool
) -> None:
    """Writes the recipe, its text and comments kept, with the chosen settings; says above it how they were chosen.

    `--set` changes are not written, only named. Raises StageError if `output` is there, unless `force`.
    """
    import tomlkit

    path = graph.recipe.path
    document = tomlkit.parse(toml_text(path))
    for change in row.cell.changes:
        put(document, change.set)
    if "name" in document:
        document["name"] = f"{document['name']}-tuned"
    if path.parent.resolve() != output.parent.resolve():
        there = os.path.relpath(path.parent.resolve(), output.parent.resolve())
        for dataset in document["datasets"].values():
            sources = [one.replace(RECIPE_FOLDER, f"{RECIPE_FOLDER}/{there}") for one in sources_of(dataset)]
            if sources != sources_of(dataset):
                dataset["source"] = sources if isinstance(dataset["source"], list) else sources[0]
    value = row.values[METRIC]
    assert value is not None, "it is the best"
    source = ", ".join(sources_of(graph.recipe.datasets[split]))
    head = [
        f"# Chosen by `rcnn tune {path}` on the split '{split}' ({source}),",
        f"# the best of {tried} combinations, mAP {value.mean:.1f}: {', '.join(row.cell.words())}",
        *([f"# while --set {' --set '.join(changes)} set, which is not written below"] if changes else []),
    ]
    text = "\n".join([*head, "", tomlkit.dumps(document)])
    build_recipe(output, tomllib.loads(text))
    if not write_atomically(output, [text.encode()], exclusive=not force):
        check_output(path, output, force)


def put(table: Any, values: Mapping[str, Any]) -> None:
    """Sets `values` in a TOML document, tables in tables."""
    for name, value in values.items():
        if isinstance(value, dict):
            put(table[name] if name in table else table.setdefault(name, {}), value)
        else:
            table[name] = value
