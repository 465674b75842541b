"""A run's results for people: tables of APs and errors, result files, curves, drawn detections.

They go to `results/RECIPE/` in the work folder and are remade when the caches that they were made from have changed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cache import Reader
from cache.files import read_json, write_json
from rcnn_cli.recipes.detectors import evaluations_of
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import manifest_of
from stages.contract.card import LogColumns
from stages.plurals import number_of

if TYPE_CHECKING:
    from rcnn_cli.looking.evaluated import Evaluated

log = logging.getLogger("rcnn")

MADE_FROM = "made-from.json"


def results_folder(graph: Graph) -> Path:
    """`results/RECIPE/` in the work folder."""
    return graph.work / "results" / graph.recipe.name


def show_results(graph: Graph, nodes: Sequence[Node]) -> None:
    """Shows the results of those `nodes` that are complete, kind by kind, as listed in SHOWN."""
    for kind, show in SHOWN.items():
        finished = [node for node in nodes if node.use.stage.makes == kind and manifest_of(graph, node)]
        if finished:
            show(graph, finished)


def show_evaluations(graph: Graph, evaluations: Sequence[Node]) -> None:
    """Prints one table of all evaluations and writes their files and pictures."""
    from stages.eval.report import format_table

    readers = {node.use.name: Reader(graph.folder(node)) for node in evaluations}
    click.echo(format_table({name: reader.manifest["summary"] for name, reader in readers.items()}))
    show_differences(readers)
    folder = results_folder(graph)
    thresholds = {node.use.name: node.settings.confusion_threshold for node in evaluations}
    made_from = {name: [reader.key, thresholds[name]] for name, reader in readers.items()}
    if not can_write(folder):
        return
    before = read_json(folder / MADE_FROM) if (folder / MADE_FROM).exists() else {}
    if not isinstance(before, dict) or before.get("evaluations") != made_from:
        before = {"evaluations": made_from, "remarks": write_files(graph, evaluations, readers, folder)}
        write_json(folder / MADE_FROM, before)
    click.echo(f"Results, precision-recall curves and a sheet of detections: {folder}/")
    for remark in before.get("remarks", ()):
        click.echo(remark)


def can_write(folder: Path) -> bool:
    """Whether files can be written to `folder`, which need not exist; warns if not. It is no error, since a work folder
    may be shared with people who can only read it, and what is printed does not need the files."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if os.access(existing, os.W_OK):
        return True
    log.warning("%s: cannot be written to, so no files are written to %s", existing, folder)
    return False


def show_differences(readers: dict[str, Reader]) -> None:
    """Prints how each evaluation's mAP differs from the first one's, if both were resampled in the same way."""
    from stages.eval.report import format_difference, paired_difference

    (first, base), *others = readers.items()
    for name, reader in others:
        difference = paired_difference(base, reader)
        if difference:
            click.echo(format_difference(first, name, difference, base.manifest["summary"]["bootstrap"]))


def write_files(graph: Graph, nodes: Sequence[Node], readers: dict[str, Reader], folder: Path) -> list[str]:
    """Writes the files of each evaluation and the pictures of all; returns remarks on the pictures."""
    from rcnn_cli.looking.evaluated import open_evaluation
    from stages.datasets import CocoDataset
    from stages.eval.coco import write_coco_annotations, write_coco_results
    from stages.eval.pictures import detection_sheet, images_to_show, plot_precision_recall
    from stages.eval.report import PRECISION, read_curves, write_results
    from stages.pictures.drawing import save_image

    folder.mkdir(parents=True, exist_ok=True)
    in_order = [node.use.name for node in evaluations_of(graph) if node.use.name in readers]
    curves = {name: read_curves(readers[name]) for name in in_order}
    plot_precision_recall(curves, folder / "precision-recall.png")
    remarks = []
    for node in nodes:
        name = node.use.name
        evaluated = open_evaluation(graph, name)
        detections, precision = evaluated.detections, evaluated.precision
        write_results(readers[name].manifest["summary"], detections, folder / name, node.dataset)
        dataset = graph.dataset(node.dataset)
        write_coco_results(dataset, detections, folder / name / "coco-results.json")
        if not isinstance(dataset, CocoDataset):
            write_coco_annotations(dataset, folder / name / "coco-annotations.json")
        write_operating_points(evaluated, folder / name)
        ids = images_to_show(detections, precision, PRECISION)
        sheet = detection_sheet(dataset, detections, precision, PRECISION, ids)
        save_image(sheet.pixels, folder / name / "detections.png")
        if sheet.bare:
            have = "has" if sheet.bare == 1 else "have"
            remarks.append(
                f"{name}/detections.png: {sheet.bare} of its {number_of(sheet.images, 'image')} {have} no detection "
                f"with a precision of {PRECISION:g} or more; the best ones are shown, whatever the score, "
                "with the annotated objects"
            )
    return remarks


def write_operating_points(evaluated: Evaluated, folder: Path) -> None:
    """Writes precision, recall and F1 by threshold, the confusion matrix and the calibration of an evaluation, each as
    a table and a picture."""
    from rcnn_cli.looking.evaluated import calibration_of, confusion_of
    from stages.detect import score_of
    from stages.eval.operating_pictures import plot_calibration, plot_confusion, plot_thresholds
    from stages.eval.operating_points import threshold_rows
    from stages.tables import csv_text

    confusion, calibration = confusion_of(evaluated), calibration_of(evaluated)
    tables = {"thresholds": threshold_rows(evaluated.curves), "calibration": calibration.rows()}
    if confusion is None:
        log.warning(
            "%s/confusion.csv is not written: %s classes are too many for a matrix", folder, len(evaluated.curves)
        )
    else:
        tables["confusion"] = confusion.rows()
        plot_confusion(confusion, folder / "confusion.png")
    for name, rows in tables.items():
        (folder / f"{name}.csv").write_text(csv_text(rows), encoding="utf-8")
    plot_thresholds(evaluated.curves, score_of(evaluated.detector.settings).name, folder / "thresholds.png")
    plot_calibration(calibration, folder / "calibration.png")


def show_trainings(graph: Graph, networks: Sequence[Node]) -> None:
    """Draws the training curves of the networks whose stages keep a log."""
    for node in networks:
        if node.use.stage.log is not None:
            draw_training(graph, node, node.use.stage.log)


def draw_training(graph: Graph, node: Node, columns: LogColumns) -> None:
    """Draws loss, accuracy and learning rate of a network's training, and prints the path."""
    from stages.training.log import FILE, plot_log, read_log, read_validations

    reader = Reader(graph.folder(node))
    folder = results_folder(graph) / node.use.name
    if not can_write(folder):
        return
    if not (folder / MADE_FROM).exists() or read_json(folder / MADE_FROM) != reader.key:
        item = reader.item_ids[0]
        plot_log(read_log(reader, item), columns, folder / "training.png", read_validations(reader, item))
        write_json(folder / MADE_FROM, reader.key)
    table = f", {reader.folder / FILE}" if (reader.folder / FILE).exists() else ""
    click.echo(f"Training of {node.use.name}: {folder}/training.png{table}")


def show_diagnoses(graph: Graph, diagnoses: Sequence[Node]) -> None:
    """Prints and writes each diagnosis."""
    for node in diagnoses:
        show_diagnosis(graph, node)


def show_diagnosis(graph: Graph, node: Node) -> None:
    """Prints a diagnosis's tables, writes its files and pictures, and prints the path."""
    from stages.diagnose.pictures import draw_diagnosis
    from stages.diagnose.report import format_tables, write_diagnosis

    reader = Reader(graph.folder(node))
    folder = results_folder(graph) / node.use.name
    summary = reader.manifest["summary"]
    click.echo(f"{format_tables(node.use.name, summary)}\n")
    if not can_write(folder):
        return
    if not (folder / MADE_FROM).exists() or read_json(folder / MADE_FROM) != reader.key:
        write_diagnosis(summary, folder)
        draw_diagnosis(summary, folder)
        write_json(folder / MADE_FROM, reader.key)
    click.echo(f"Diagnosis, false positives by type and sensitivities as CSV, JSON and PNG: {folder}/")


def show_class_scores(graph: Graph, classifications: Sequence[Node]) -> None:
    """Prints one table of all classifications and writes their files."""
    from stages.classify.report import format_table, write_results

    readers = {node.use.name: Reader(graph.folder(node)) for node in classifications}
    click.echo(format_table({name: reader.manifest["summary"] for name, reader in readers.items()}))
    if not can_write(results_folder(graph)):
        return
    for name, reader in readers.items():
        folder = results_folder(graph) / name
        if not (folder / MADE_FROM).exists() or read_json(folder / MADE_FROM) != reader.key:
            write_results(reader, folder)
            write_json(folder / MADE_FROM, reader.key)
        click.echo(f"Errors, and the best classes of each image, as JSON and CSV: {folder}/")


def show_accuracies(graph: Graph, evaluations: Sequence[Node]) -> None:
    """Prints one table of all accuracies and their differences, and writes their files and pictures."""
    from stages.eval_segmentation.report import format_difference, format_table, paired_difference, write_results

    readers = {node.use.name: Reader(graph.folder(node)) for node in evaluations}
    click.echo(format_table({name: reader.manifest["summary"] for name, reader in readers.items()}))
    (first, base), *others = readers.items()
    for name, reader in others:
        difference = paired_difference(base, reader)
        if difference:
            click.echo(format_difference(first, name, difference))
    if not can_write(results_folder(graph)):
        return
    for node in evaluations:
        reader, folder = readers[node.use.name], results_folder(graph) / node.use.name
        if not (folder / MADE_FROM).exists() or read_json(folder / MADE_FROM) != reader.key:
            write_results(reader, folder)
            draw_segmentation(graph, node, folder)
            write_json(folder / MADE_FROM, reader.key)
        click.echo(f"Accuracies and confusion as JSON and CSV, and a sheet of images, truths and results: {folder}/")


def draw_segmentation(graph: Graph, evaluation: Node, folder: Path) -> None:
    """Draws some evenly spaced images with truth and result."""
    from rcnn_cli.looking.segmented import SHEET_IMAGES, segmented_images
    from stages.eval.pictures import evenly
    from stages.eval_segmentation.pictures import segmentation_sheet
    from stages.pictures.drawing import save_image

    dataset = graph.dataset(evaluation.dataset)
    images = segmented_images(graph, evaluation, evenly(dataset.image_ids, SHEET_IMAGES))
    save_image(segmentation_sheet(list(images), dataset.classes), folder / "segmentation.png")


SHOWN: Mapping[str, Callable[[Graph, Sequence[Node]], None]] = {
    "network": show_trainings,
    "diagnosis": show_diagnoses,
    "evaluation": show_evaluations,
    "class-scores": show_class_scores,
    "accuracy": show_accuracies,
}
"""How each kind of result (`stages.contract.kinds`) is shown, in this order; other kinds are not."""


def draw_results(graph: Graph, node: Node) -> None:
    """Draws a detect node's detections on every image of its dataset and prints the path."""
    from rcnn_cli.looking.showing import showing_of
    from stages.detections import read_detections
    from stages.eval.pictures import draw_best
    from stages.file_names import file_names
    from stages.pictures.drawing import save_image

    detections = read_detections(Reader(graph.folder(node)))
    showing = showing_of(graph, node, detections.classes)
    dataset = graph.dataset(node.dataset)
    folder = results_folder(graph) / node.name
    skipped = Reader(graph.folder(node)).manifest["skipped"]
    drawn = [image_id for image_id in detections.image_ids if image_id not in skipped]
    names = file_names(detections.image_ids)
    bare = 0
    for image_id in drawn:
        image, of_image = dataset.read_image(image_id), detections.of_image(image_id)
        if showing.choose(of_image)[1]:
            image = showing.picture(image, of_image)
        else:
            names_of_classes = detections.classes, dataset.classes
            image = draw_best(image, of_image, showing.precision(of_image), dataset.record(image_id), names_of_classes)
            bare += 1
        save_image(image, folder / f"{names[image_id]}.jpg")
    remark = (
        f"; {bare} of them {'has' if bare == 1 else 'have'} nothing above the thresholds: the best detections "
        "there are drawn in thin lines, with the annotated objects"
    )
    click.echo(f"{number_of(len(drawn), 'image')} drawn: {folder}/{remark if bare else ''}")
