"""Whether a recipe is evaluated on images that it is trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from rcnn_cli.recipes.graph import Graph, Node
from stages.datasets.records import some_of

log = logging.getLogger("rcnn")


def warn_of_shared_images(graph: Graph, nodes: Iterable[Node]) -> None:
    """Warns, once for each pair of datasets, where an evaluation among `nodes` is on images of a dataset that is read
    upstream under another name: those whose files have the same content, whatever their ids.

    The datasets' checksums are needed for the caches' keys anyway; no image is decoded. Raises BadImage.
    """
    pairs = {
        (source, evaluation.dataset): None
        for evaluation in nodes
        if evaluation.use.stage.makes == "evaluation"
        for node in graph.needed(evaluation)
        for source in node.reads_datasets()
        if source != evaluation.dataset
    }
    for trained, evaluated in pairs:
        log_shared_images(graph, trained, evaluated)


def log_shared_images(graph: Graph, trained: str, evaluated: str) -> None:
    """Warns if images of the dataset `evaluated` are in `trained`, too; names some."""
    theirs, own = graph.dataset(trained), graph.dataset(evaluated)
    by_content = dict(zip(theirs.image_digests, theirs.image_ids, strict=True))
    shared = [
        image_id if by_content[digest] == image_id else f"{image_id} (there {by_content[digest]})"
        for image_id, digest in zip(own.image_ids, own.image_digests, strict=True)
        if digest in by_content
    ]
    if shared:
        many = f"{len(shared)} of its {len(own.image_ids)} images are" if len(shared) > 1 else "an image of it is"
        log.warning(
            "%s: [datasets.%s] is evaluated on, but %s in [datasets.%s], too: %s; take them out of one of the two",
            graph.recipe.path, evaluated, many, trained, some_of(shared),
        )  # fmt: skip
