"""The section of a report on semantic segmentation: a table for each dataset, and images with truths and results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cache import CacheError, Reader
from rcnn_cli.looking.segmented import segmented_images
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.report.papers import SEGMENTATION, SEGMENTATION_MEANS, SEGMENTATION_PROTOCOL, is_voc_2011_val
from rcnn_cli.report.pictures import jpeg_uri
from rcnn_cli.report.runs import CompleteEvaluation
from rcnn_cli.running.runner import complete
from stages.contract.errors import BadImage
from stages.eval.pictures import evenly
from stages.eval_segmentation.pictures import segmentation_sheet
from stages.eval_segmentation.report import MEAN, format_difference, paired_difference, with_interval
from stages.tables import percent

SHEET_IMAGES = 6
LONGEST = 1800
"""Pixels of a sheet's longest side."""


class Accuracy(CompleteEvaluation):
    """A complete evaluation of a segmentation."""

    @property
    def data(self) -> str:
        """The key of the images and masks."""
        return str(self.reader.manifest["inputs"]["masks"])


def accuracies(graphs: Sequence[Graph]) -> list[Accuracy]:
    """The recipes' complete evaluations of segmentations, in order."""
    nodes = [(graph, node) for graph in graphs for node in graph.making("accuracy") if complete(graph, node)]
    return [Accuracy(graph, node, Reader(graph.folder(node)), len(graphs) == 1) for graph, node in nodes]


def sections(every: Sequence[Accuracy]) -> list[dict[str, Any]]:
    """For each dataset a table of accuracies, their differences, the papers' numbers if it is theirs, and a sheet of
    images for each evaluation."""
    groups = [[one for one in every if one.data == data] for data in dict.fromkeys(one.data for one in every)]
    return [section(group) for group in groups]


def section(group: Sequence[Accuracy]) -> dict[str, Any]:
    """The section on evaluations of the same images and masks."""
    first, *others = group
    names = list(first.summary["classes"])
    rows = [
        [name, f"{first.summary['classes'][name]['pixels']:,}", *(accuracy_of(one, name) for one in group)]
        for name in names
    ]
    differences = [(one.name, paired_difference(first.reader, one.reader)) for one in others]
    dataset = first.graph.dataset(first.node.dataset)
    return {
        "dataset": dataset.name,
        "images": f"{first.summary['images']:,}",
        "best": max(group, key=lambda one: one.summary["mean_accuracy"] or 0.0).name,
        "mean": percent(max(one.summary["mean_accuracy"] or 0.0 for one in group)),
        "table": [
            ["class", "pixels", *(one.name for one in group)],
            *rows,
            [MEAN, "", *(with_interval(one.summary) for one in group)],
            ["all pixels", "", *(percent(one.summary["pixel_accuracy"]) for one in group)],
        ],
        "without": first.summary["without_pixels"],
        "differences": [format_difference(first.name, name, value) for name, value in differences if value],
        "papers": papers_table(names) if is_voc_2011_val(dataset) else [],
        "protocol": SEGMENTATION_PROTOCOL,
        "sheets": [{"name": one.name, "uri": sheet_of(one)} for one in group],
    }


def papers_table(classes: Sequence[str]) -> list[list[str]]:
    """The papers' accuracies of the `classes`, the background first, and their means."""
    rows = zip(classes, *SEGMENTATION.values(), strict=True)
    return [
        ["class", *SEGMENTATION],
        *([name, *(f"{value:.1f}" for value in values)] for name, *values in rows),
        [MEAN, *(f"{value:.1f}" for value in SEGMENTATION_MEANS.values())],
    ]


def accuracy_of(one: Accuracy, name: str) -> str:
    """The accuracy of a class in percent; "-" without pixels of it."""
    return percent(one.summary["classes"].get(name, {}).get("accuracy"))


def sheet_of(one: Accuracy) -> str | None:
    """Evenly spaced images with truths and results, as a data URI; None if they cannot be read."""
    dataset = one.graph.dataset(one.node.dataset)
    try:
        images = list(segmented_images(one.graph, one.node, evenly(dataset.image_ids, SHEET_IMAGES)))
    except (CacheError, BadImage):
        return None
    return jpeg_uri(segmentation_sheet(images, dataset.classes), LONGEST)
