"""Which images a recipe is trained on, and whether it is evaluated on them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from rcnn_cli.recipes.graph import Graph, Node
from stages.contract.kinds import MEASURED
from stages.datasets.records import some_of

log = logging.getLogger("rcnn")


def warn_of_shared_images(graph: Graph, nodes: Iterable[Node]) -> None:
    """Warns, once per pair of datasets, if an evaluation among `nodes` uses images that another dataset upstream also
    contains: image files with the same content, whatever their ids. And if a training is validated on the dataset that
    is evaluated.

    The datasets' checksums are needed for the caches' keys anyway; no image is decoded. Raises BadImage.
    """
    evaluations = [node for node in nodes if node.use.stage.makes in MEASURED]
    for trained, evaluated in pairs_of_datasets(graph, evaluations):
        log_shared_images(graph, trained, evaluated)
    for training, evaluated in validated_on_evaluated(graph, evaluations):
        log.warning(
            "%s: [%s] is validated on [datasets.%s], on which results are measured; if that decides when it stops, "
            "they are too good: validate on other images", graph.recipe.path, training, evaluated,
        )  # fmt: skip


def training_splits(graph: Graph, node: Node) -> list[str]:
    """The datasets of objects that the stages upstream of a node learn from, each once. One on which a training is only
    validated is none of them."""
    trainings = [one for one in trainings_of(graph, node) if "dataset" in one.use.stage.kinds]
    return list(dict.fromkeys(one.dataset for one in trainings))


def trainings_of(graph: Graph, node: Node) -> list[Node]:
    """The nodes upstream of this one that learn from a dataset."""
    return [one for one in graph.needed(node) if one.name != node.name and not one.use.stage.follows_split]


def validated_on_evaluated(graph: Graph, evaluations: Iterable[Node]) -> list[tuple[str, str]]:
    """(the table of a training, the dataset of an evaluation of it on which it is validated, too), each pair once."""
    pairs = {
        (training.use.name, evaluation.dataset): None
        for evaluation in evaluations
        for training in trainings_of(graph, evaluation)
        if evaluation.dataset in {*training.reads_datasets()} - {training.dataset}
    }
    return list(pairs)


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
