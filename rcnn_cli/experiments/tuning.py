"""`rcnn tune`: the grid search of R-CNN's section 2.3 on a validation split, and the recipe with its choice."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache.files import write_atomically
from rcnn_cli.experiments.ablation import Row
from rcnn_cli.experiments.grid import Cell, Change, Grid, as_text, combinations, merged, nested
from rcnn_cli.outputs import check_output_file
from rcnn_cli.recipes.detectors import detector_of
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import RECIPE_FOLDER, build_recipe, sources_of, toml_text, with_recipe_folder
from rcnn_cli.running.splits import training_splits
from stages.contract.errors import StageError
from stages.contract.settings import all_of, build_settings

log = logging.getLogger("rcnn")

TEST = "test"
METRIC = "mAP"


def parse_values(option: str, text: str) -> list[float]:
    """Parses "0,0.1,0.2". Raises StageError."""
    with contextlib.suppress(ValueError):
        values = list(dict.fromkeys(float(value) for value in text.split(",")))
        if all(map(math.isfinite, values)):
            return values
    raise StageError(f"{option} {text}: must be finite numbers separated by commas, for example 0.2,0.3,0.4")


def check_output(recipe: Path, output: Path, force: bool) -> None:
    """Raises StageError if the recipe tuned from `recipe` could not be written to `output` at the end."""
    check_output_file("-o", output, [recipe], lambda _: True)
    if os.path.lexists(output) and not force:
        raise StageError(f"{output}: already exists; choose another file with -o, or pass --force to overwrite it")
    if not output.parent.is_dir():
        raise StageError(
            f"{output}: the folder {output.parent} does not exist; create it first, or choose another file with -o"
        )


def check_split(graph: Graph, evaluation: Node, split: str) -> None:
    """Raises StageError unless `split` is held out: it shares no image with the test set or the training data."""
    reported = evaluation.dataset
    if split in (TEST, reported):
        raise StageError(
            f"tune --split {split}: [{evaluation.use.name}] evaluates on '{reported}', and settings must not be chosen "
            f"on test images; name a validation split, for example --split val"
        )
    check_has(graph, split)
    shared = next(images_shared(graph, evaluation, split), None)
    if shared:
        raise StageError(f"{shared}; choose settings on separate images")


def check_has(graph: Graph, split: str) -> None:
    """Raises StageError for a split that the recipe does not have."""
    if split not in graph.recipe.datasets:
        raise StageError(
            f"{graph.recipe.path}: has no dataset '{split}' to choose settings on; add [datasets.{split}], "
            f"or --set datasets.{split}.source=voc:DIR:{split}"
        )


def images_shared(graph: Graph, evaluation: Node, split: str) -> Iterator[str]:
    """For each other dataset of tests or of the training that has images of `split`: the beginning of a sentence."""
    own, reported = images_of(graph, split), {TEST, evaluation.dataset}
    for other in sorted((reported | {*training_splits(graph, evaluation)}) & set(graph.recipe.datasets) - {split}):
        common = own & images_of(graph, other)
        if common:
            yield (
                f"{graph.recipe.path}: {len(common)} of the {len(own)} images in '{split}' are also in '{other}', "
                f"for example {min(common).name}"
            )


def warn_of_choice(graph: Graph, evaluation: Node, split: str) -> None:
    """Warns where something is chosen on images that results are reported on, or that the detector was trained on."""
    if split in (TEST, evaluation.dataset):
        log.warning(
            "chosen on '%s', on which [%s] reports results: what is reported there is then too good; choose on other "
            "images (--split)", split, evaluation.use.name
        )  # fmt: skip
    if split in training_splits(graph, evaluation):
        log.warning("chosen on '%s', on which the detector was trained: scores are too high there (--split)", split)
    for shared in images_shared(graph, evaluation, split):
        log.warning("%s", shared)


def on_split(graph: Graph, evaluation: Node, split: str) -> tuple[Graph, Node]:
    """The recipe with its evaluation on another split, and that evaluation; nothing else is changed."""
    if evaluation.dataset == split:
        return graph, evaluation
    name, recipe = evaluation.use.name, graph.recipe
    table = merged(recipe.as_json(), tables_on_split(graph, evaluation, split))
    changed = replace(build_recipe(recipe.path, table), changes=(*recipe.changes, f"{name}.split={split}"))
    moved = Graph(changed, graph.work, graph.open_datasets)
    return moved, moved.nodes[name]


def tables_on_split(graph: Graph, evaluation: Node, split: str, searched: Collection[str] = ()) -> dict[str, Any]:
    """Tables that move an evaluation and what it reads to `split`, except for the settings `searched`."""
    detector = detector_of(evaluation)
    inputs = {"detections": detector.use.name, **({"images": split} if "images" in evaluation.use.inputs else {})}
    wiring = {evaluation.use.name: {"split": split, "inputs": inputs}}
    return merged(as_reported(graph, evaluation, split, searched), wiring)


def images_of(graph: Graph, split: str) -> set[Path]:
    """The image files of a split."""
    dataset = graph.dataset(split, "dataset")
    return {dataset.image_path(image_id).resolve() for image_id in dataset.image_ids}


def tuning_grid(
    graph: Graph,
    evaluation: Node,
    split: str,
    searched: Mapping[str, Sequence[float]],
    of_a_method: Collection[str] = (),
) -> Grid:
    """All combinations of the settings `searched` (name to values), evaluated on `split`.

    A setting belongs to the evaluated detector or to a stage upstream of it; one that none of them has is left out,
    with a warning unless it is one of those `of_a_method`, which the recipe need not use. Raises BadSetting for an
    invalid value, StageError if there is no setting to search.
    """
    detector = detector_of(evaluation)
    uses = list({node.use.name: node.use for node in (detector, *detector.upstream())}.values())
    columns, axes = [], []
    for name, values in searched.items():
        having = [use for use in uses if name in all_of(use.settings)]
        if not having and name not in of_a_method:
            log.warning("%s: nothing that [%s] needs has the setting %s", evaluation.name, detector.use.name, name)
        for use in having:
            columns.append(f"{use.name}.{name}")
            axes.append([(as_text(value), change_of(use, name, value)) for value in values])
    if not axes:
        raise StageError(f"{graph.recipe.path}: [{detector.use.name}] has none of the settings {', '.join(searched)}")
    cells = [Cell(places, changes, evaluation.use.name) for places, changes in combinations(axes)]
    title = f"Search on the split '{split}'"
    path = graph.recipe.path
    base = Change(tables_on_split(graph, evaluation, split, searched))
    return Grid(path, title, path, base, tuple(columns), tuple(cells), {METRIC: "map"})


def as_reported(graph: Graph, evaluation: Node, split: str, searched: Collection[str]) -> dict[str, Any]:
    """Tables that give `split` the settings specific to the evaluated split, such as [propose.test]."""
    tables: dict[str, Any] = {}
    for node in graph.needed(evaluation):
        special = node.use.split_settings.get(node.split or "")
        if node.split == evaluation.split and special and split not in node.use.split_settings:
            common = all_of(node.use.settings)
            own = {name: value for name, value in all_of(special).items() if value != common.get(name)}
            tables[node.use.name] = {split: {name: value for name, value in own.items() if name not in searched}}
    return tables


def change_of(use: Any, name: str, value: float) -> Change:
    """The change that sets a setting on every split. Raises BadSetting for an invalid value."""
    build_settings(use.stage.settings, {**all_of(use.settings), name: value}, f"tune: [{use.name}]")
    tables = [use.name, *(f"{use.name}.{split}" for split in use.split_settings)]
    return Change(nested({f"{table}.{name}": value for table in tables}))


def best_row(rows: Sequence[Row]) -> Row:
    """The row with the largest mAP, the first of equal ones. Raises StageError if the split has no objects."""
    scored = [(value.mean, row) for row in rows if (value := row.values.get(METRIC)) is not None]
    if not scored:
        raise StageError("tune: the split has no objects to find; name another with --split")
    return max(scored, key=lambda entry: entry[0])[1]


def write_tuned(
    graph: Graph, output: Path, row: Row, split: str, tried: int, changes: Sequence[str], force: bool
) -> None:
    """Writes the recipe with the chosen settings, keeping its text and comments; a comment says how they were chosen.

    `--set` changes are only mentioned, not written. Raises StageError if `output` exists, unless `force`.
    """
    import tomlkit

    path = graph.recipe.path
    document = tomlkit.parse(toml_text(path))
    for change in row.cell.changes:
        put(document, change.set)
    if "name" in document:
        document["name"] = f"{document['name']}-tuned"
    if path.parent.resolve() != output.parent.resolve():
        relative = os.path.relpath(path.parent.resolve(), output.parent.resolve())
        for dataset in document["datasets"].values():
            moved = with_recipe_folder(dataset, f"{RECIPE_FOLDER}/{relative}")
            put(dataset, {key: value for key, value in moved.items() if value != dataset[key]})
    value = row.values[METRIC]
    assert value is not None, "it is the best"
    source = ", ".join(sources_of(graph.recipe.datasets[split]))
    head = [
        f"# Chosen by `rcnn tune {path}` on the split '{split}' ({source}),",
        f"# the best of {tried} combinations, mAP {value.mean:.1f}: {', '.join(row.cell.words())}",
        *([f"# with --set {' --set '.join(changes)}, which is not included below"] if changes else []),
    ]
    text = "\n".join([*head, "", tomlkit.dumps(document)])
    build_recipe(output, tomllib.loads(text))
    if not write_atomically(output, [text.encode()], exclusive=not force):
        check_output(path, output, force)


def put(table: Any, values: Mapping[str, Any]) -> None:
    """Sets `values`, which may contain nested tables, in a TOML document."""
    for name, value in values.items():
        if isinstance(value, dict):
            put(table[name] if name in table else table.setdefault(name, {}), value)
        else:
            table[name] = value
