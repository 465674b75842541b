"""Checks whether a recipe is evaluated on images that it is trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from rcnn_cli.recipes.graph import Graph, Node
from stages.contract.kinds import MEASURED
from stages.datasets.records import some_of

log = logging.getLogger("rcnn")


def warn_of_shared_images(graph: Graph, nodes: Iterable[Node]) -> None:
    """Warns, once per pair of datasets, if an evaluation among `nodes` uses images that another dataset upstream also
    contains: image files with the same content, whatever their ids.

    The datasets' checksums are needed for the caches' keys anyway; no image is decoded. Raises BadImage.
    """
    for trained, evaluated in pairs_of_datasets(graph, nodes):
        log_shared_images(graph, trained, evaluated)


def pairs_of_datasets(graph: Graph, nodes: Iterable[Node]) -> list[tuple[str, str]]:
    """(a dataset upstream of an evaluation among `nodes`, the dataset that is evaluated), each pair once."""
    pairs = {
        (source, evaluation.dataset): None
        for evaluation in nodes
        if evaluation.use.stage.makes in MEASURED
        for node in graph.needed(evaluation)
        for source in node.reads_datasets()
        if source != evaluation.dataset
    }
    return list(pairs)


def log_shared_images(graph: Graph, trained: str, evaluated: str) -> None:
    """Warns, naming some of them, if images of the dataset `evaluated` are also in `trained`."""
    training, test = graph.dataset(trained), graph.dataset(evaluated)
    by_content = dict(zip(training.pixel_digests, training.image_ids, strict=True))
    shared = [
        image_id if by_content[digest] == image_id else f"{image_id} (there {by_content[digest]})"
        for image_id, digest in zip(test.image_ids, test.pixel_digests, strict=True)
        if digest in by_content
    ]
    if shared:
        many = f"{len(shared)} of its {len(test.image_ids)} images are" if len(shared) > 1 else "one of its images is"
        log.warning(
            "%s: [datasets.%s] is used for evaluation, but %s also in [datasets.%s]: %s; remove them from one",
            graph.recipe.path, evaluated, many, trained, some_of(shared),
        )  # fmt: skip
