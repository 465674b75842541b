"""Evaluated segmentations, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cache import Reader
from rcnn_cli.recipes.graph import Graph, Node
from stages.eval_segmentation.pictures import Segmented
from stages.eval_segmentation.stage import label_map

SHEET_IMAGES = 8


def segmentation_of(evaluation: Node) -> Node:
    """The node whose label maps are evaluated."""
    source = evaluation.sources["segmentation"]
    assert isinstance(source, Node)
    return source


def segmented_images(graph: Graph, evaluation: Node, image_ids: Sequence[str]) -> Iterator[Segmented]:
    """The images with these ids, their truths and their label maps; skipped ones are left out. Raises CacheError,
    BadImage."""
    labels, confusion = Reader(graph.folder(segmentation_of(evaluation))), Reader(graph.folder(evaluation))
    dataset = graph.dataset(evaluation.dataset)
    for image_id in image_ids:
        if image_id in labels.manifest["skipped"]:
            continue
        counts = confusion.read(image_id, ["confusion"])["confusion"]
        pixels = int(counts.sum())
        yield Segmented(
            image_id,
            dataset.read_image(image_id),
            dataset.class_mask(image_id),
            label_map(labels, image_id),
            float(counts.trace() / pixels) if pixels else float("nan"),
        )
