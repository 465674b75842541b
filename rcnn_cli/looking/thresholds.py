"""The lowest score that counts, class by class: chosen on a validation set, kept in a file, used by `rcnn predict`."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from cache.files import cannot
from rcnn_cli.looking.results import results_folder
from rcnn_cli.looking.showing import Showing
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.recipes.detectors import detector_of
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import NOT_TOML, read_tables
from stages.contract.errors import StageError
from stages.contract.settings import identity_of, nearest
from stages.detect import score_of
from stages.detections import shortest
from stages.eval.operating_points import best_f1, operating_points, points_at
from stages.eval.report import read_curves
from stages.matching.average_precision import Curve, lowest_score_at
from stages.matching.ground_truth import listed
from stages.tables import aligned, percent

log = logging.getLogger("rcnn")

KEY_DIGITS = 12
FEW = 10
"""Of so few objects, one more or less that is found moves recall by a tenth or more."""
HEAD = (
    "Thresholds chosen by `rcnn thresholds`: `rcnn predict --thresholds FILE` draws and writes detections from these\n"
    "scores on. Change them as you like; inf leaves a class out."
)


def class_thresholds(
    curves: Mapping[str, Curve], classes: Sequence[str], precision: float | None = None
) -> NDArray[np.float32]:
    """The lowest score that counts for each of K `classes`, float32 [K]: the lowest down to which the class has at
    least this `precision` or, without one, that of its best F1 (the highest such score, if tied).

    inf for a class that was not evaluated, has no objects or is never that precise: nothing counts.
    """
    return np.array([threshold_of(curves.get(name), precision) for name in classes], np.float32)


def threshold_of(curve: Curve | None, precision: float | None) -> float:
    """As `class_thresholds`, for one class."""
    if curve is None or not curve.positives:
        return math.inf
    if precision is not None:
        lowest = lowest_score_at(precision, curve)
        return math.inf if lowest is None else lowest
    best = best_f1(curve)
    return math.inf if best is None else best[0]


@dataclass(frozen=True)
class Thresholds:
    """The lowest `scores` of `classes` that count, and where they are from: a `rule` in words ("best F1 on val"), what
    is `scored` ("SVM margin"), and what they were chosen for: the recipe and the detector's table and key."""

    classes: tuple[str, ...]
    scores: NDArray[np.float32]
    rule: str
    scored: str
    recipe: str
    detector: str
    key: str


# Choosing


def choose_thresholds(graph: Graph, evaluation: Node, precision: float | None) -> tuple[Thresholds, dict[str, Curve]]:
    """The thresholds of the classes of a complete evaluation, and their curves."""
    detector = detector_of(evaluation)
    curves = read_curves(Reader(graph.folder(evaluation)))
    classes = tuple(Reader(graph.folder(detector)).manifest["summary"]["classes"])
    how = "best F1" if precision is None else f"precision {precision:g}"
    chosen = Thresholds(
        classes,
        class_thresholds(curves, classes, precision),
        f"{how} on {evaluation.dataset}",
        score_of(detector.settings).name,
        str(graph.recipe.path),
        detector.use.name,
        models_key(graph, detector),
    )
    return chosen, curves


def models_key(graph: Graph, detector: Node) -> str:
    """What decides the scores of a detector, whatever images it detects in: the keys of what was trained, and the
    settings of the stages that an image passes through; 12 hex digits."""
    trained = {
        node.name: graph.identity(node).key for node in graph.needed(detector) if not node.use.stage.follows_split
    }
    settings = {node.use.name: identity_of(node.settings) for node in detector.image_path()}
    text = json.dumps([trained, settings], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def achieved(curve: Curve | None, score: np.float32) -> tuple[float, float, float] | None:
    """Precision, recall and F1 of a class's detections that score at least this; None where none does."""
    if curve is None or not np.isfinite(score):
        return None
    points = operating_points(curve)
    (place,) = points_at(points, np.array([score]))
    if place < 0:
        return None
    return float(points.precision[place]), float(points.recall[place]), float(points.f1[place])


def rows_of(chosen: Thresholds, curves: Mapping[str, Curve]) -> list[dict[str, Any]]:
    """The thresholds and what they achieve where they were chosen, as JSON values: None where nothing counts."""
    rows = []
    for name, score in zip(chosen.classes, chosen.scores, strict=True):
        curve = curves.get(name)
        reached = achieved(curve, score) or (None, None, None)
        objects = 0 if curve is None else curve.positives
        numbers = dict(zip(("precision", "recall", "f1"), reached, strict=True))
        rows.append({"class": name, "objects": objects, "score": finite(score), **numbers})
    return rows


def finite(score: np.float32) -> float | None:
    """A score in its shortest form, None for infinity."""
    return shortest(score) if np.isfinite(score) else None


def format_table(chosen: Thresholds, rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text, precision, recall and F1 in percent; lines below name the classes with fewer than FEW objects
    and those of which nothing counts."""
    head = ("class", "objects", "score", "precision", "recall", "F1")
    cells = [
        (
            row["class"],
            str(row["objects"]),
            "-" if row["score"] is None else f"{row['score']:.3f}",
            *(percent(row[name]) for name in ("precision", "recall", "f1")),
        )
        for row in rows
    ]
    lines = [f"{chosen.detector}, {chosen.scored}: {chosen.rule}", "", *aligned([head, *cells], rules_before=[1])]
    few = [f"{row['class']} ({row['objects']})" for row in rows if row["score"] is not None and row["objects"] < FEW]
    if few:
        lines.append(f"few objects to choose by, so that other images may need other thresholds: {listed(few)}")
    never = [row["class"] for row in rows if row["score"] is None]
    if never:
        lines.append(f"none of their detections count, whatever the score: {listed(never)}")
    return "\n".join(lines)


# The file


def output_of(graph: Graph, evaluation: Node, output: Path | None) -> tuple[OutputFolder, str]:
    """The folder and the name of the file to write, by default in the recipe's results. Raises StageError if something
    is in its way."""
    path = output or results_folder(graph) / f"thresholds-{evaluation.dataset}.toml"
    folder = OutputFolder(path.parent, given=output is not None, inputs=[graph.recipe.path])
    folder.check([path.name])
    return folder, path.name


def thresholds_text(chosen: Thresholds) -> str:
    """The file's text."""
    import tomlkit

    document = tomlkit.document()
    for line in HEAD.splitlines():
        document.add(tomlkit.comment(line))
    for name in ("rule", "scored", "recipe", "detector", "key"):
        document.add(name, tomlkit.item(getattr(chosen, name)))
    scores = tomlkit.table()
    for name, score in zip(chosen.classes, chosen.scores, strict=True):
        scores.add(tomlkit.key(name), tomlkit.item(shortest(score) if np.isfinite(score) else float(score)))
    document.add("thresholds", scores)
    return tomlkit.dumps(document)


def read_thresholds_file(path: Path) -> Thresholds:
    """The thresholds in a file. Raises StageError for one that `rcnn thresholds` cannot have written."""
    try:
        tables = read_tables(path)
    except FileNotFoundError:
        raise StageError(f"{path}: no such file; write it with `rcnn thresholds`") from None
    except OSError as error:
        raise StageError(f"{path}: " + cannot("be read", error, "name a file of `rcnn thresholds`")) from None
    except NOT_TOML as error:  # UnicodeDecodeError is among them
        raise StageError(f"{path}: is not valid TOML ({error}); correct that line") from None
    scores = tables.get("thresholds")
    if not isinstance(scores, dict):
        raise StageError(f"{path}: has no table [thresholds]; write the file with `rcnn thresholds`")
    for name, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or math.isnan(score):
            raise StageError(f"{path}: the threshold of '{name}' is {score!r}; write a number, or inf to leave it out")
    words = {name: tables.get(name, "") for name in ("rule", "scored", "recipe", "detector", "key")}
    for name, text in words.items():
        if not isinstance(text, str):
            raise StageError(f"{path}: {name} = {text!r} is not text; write the file with `rcnn thresholds`")
    return Thresholds(tuple(scores), np.array(list(scores.values()), np.float32), **words)


# Using


def with_thresholds(showing: Showing, chosen: Thresholds, path: Path) -> Showing:
    """What is shown, with the thresholds of the file `path` as cuts. Raises StageError unless they are of the same
    classes and of the same kind of score."""
    for name in chosen.classes:
        if name not in showing.classes:
            raise StageError(f"{path}: '{name}' is not a class of this detector{nearest(name, showing.classes)}")
    missing = [name for name in showing.classes if name not in chosen.classes]
    if missing:
        raise StageError(
            f"{path}: has no threshold for {listed(missing)}; add it, or choose again with `rcnn thresholds`"
        )
    if chosen.scored and chosen.scored != showing.score:
        raise StageError(
            f"{path}: has thresholds of a {chosen.scored}, but the detections of this detector are scored by a "
            f"{showing.score}; choose again with `rcnn thresholds`"
        )
    scores = dict(zip(chosen.classes, chosen.scores, strict=True))
    cuts = np.array([scores[name] for name in showing.classes], np.float32)
    rule = f"the threshold of its class ({chosen.rule or path.name})"
    return replace(showing, cuts=cuts, rule=rule)


def warn_of_another_detector(key: str, chosen: Thresholds, path: Path) -> None:
    """Warns if thresholds were chosen for another detector than that with this `models_key`, or for this one before it
    was trained again."""
    if chosen.key and chosen.key != key:
        log.warning(
            "%s: was chosen for [%s] of %s as it was then; this detector has other settings or training, so choose "
            "again with `rcnn thresholds`", path, chosen.detector, chosen.recipe
        )  # fmt: skip
