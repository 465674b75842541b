"""`rcnn predict`: the trained detector of a recipe on any image, without caches on the way."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache import IncompleteCache, Reader
from rcnn_cli.detectors import choice_told, detector_node
from rcnn_cli.graph import Graph, Node
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.results import drawing_cuts
from rcnn_cli.runner import complete
from stages.errors import BadImage
from stages.execution import Execution
from stages.file_names import file_name
from stages.images import read_image

log = logging.getLogger("rcnn")


def predict_photos(
    graph: Graph,
    photos: Sequence[Path],
    output: Path,
    execution: Execution,
    detector: str | None,
    threshold: float | None,
) -> Iterator[str]:
    """Writes NAME.png and NAME.json for every photo into `output`; yields a line for each."""
    from stages.detections import detections_as_json
    from stages.drawing import draw_detections, save_image

    names = output_names(photos)
    folder = OutputFolder(output, inputs=photos)
    folder.check(f"{name}{ending}" for name in names for ending in (".png", ".json"))
    node = detector_node(graph, detector)
    if detector is None and choice_told(graph, node):
        log.info(choice_told(graph, node))
    detect = Detector(graph, node, execution)
    cuts = drawing_cuts(graph, node, detect.classes)
    if threshold is not None:
        cuts = np.full(len(detect.classes), threshold, np.float32)
    for path, name in zip(photos, names, strict=True):
        try:
            image = read_image(path)
        except BadImage as error:
            if not execution.skip_bad_images:
                raise
            log.warning("skipped: %s", error)
            continue
        found = detect(image, name)
        shown = found.above(cuts)
        drawn = draw_detections(image, shown.boxes, shown.labels, shown.scores, detect.classes)
        with folder.file(f"{name}.png") as file:
            save_image(drawn, file)
        described = detections_as_json(found, detect.classes, path.name, image.shape[1], image.shape[0])
        folder.write(f"{name}.json", json.dumps(described, indent=1) + "\n")
        listed = ", ".join(detect.classes[label] for label in shown.labels) or "nothing above the thresholds"
        yield f"{path}: {listed} -> {output / name}.png, .json"


def output_names(photos: Sequence[Path]) -> list[str]:
    """A name for each photo's files, sound on every disk; photos of the same name are numbered."""
    names: list[str] = []
    taken: set[str] = set()
    for path in photos:
        stem = file_name(path.stem)
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


class Detector:
    """The stages propose, extract and detect on one image in memory, with the models of a recipe."""

    def __init__(self, graph: Graph, node: Node, execution: Execution) -> None:
        from stages.detect.scoring import class_probabilities
        from stages.detect.stage import check_layers
        from stages.extract.features import load_network
        from stages.linear_models import read_regressors, read_svms

        self.settings = node.settings
        features = self.source(node, "features")
        self.extract = features.settings
        self.propose = self.source(features, "proposals").settings
        self.execution = execution
        source = self.network_source(graph, features)
        self.network = load_network(source, self.extract, execution.device)
        self.scorer = (
            class_probabilities(source.class_names)
            if self.settings.score == "softmax"
            else read_svms(trained(graph, self.source(node, "svm")))
        )
        with_regression = self.settings.bbox_regression and "regressor" in node.sources
        self.regressors = read_regressors(trained(graph, self.source(node, "regressor"))) if with_regression else None
        self.classes = self.scorer.classes
        needed = {self.scorer.layer} | ({self.regressors.layer} if self.regressors else set())
        check_layers(needed, self.extract.layers)

    @staticmethod
    def source(node: Node, role: str) -> Node:
        """The node that fills an input of another."""
        source = node.sources[role]
        assert isinstance(source, Node)
        return source

    @staticmethod
    def network_source(graph: Graph, features: Node) -> Any:
        """The network that the features are made with."""
        from stages.networks import NetworkSource

        source = features.sources["network"]
        return NetworkSource.from_reader(trained(graph, source)) if isinstance(source, Node) else graph.network

    def __call__(self, image: np.ndarray, name: str) -> Any:
        """The detections in an image, uint8 [H, W, 3] RGB; `name` seeds the choice among too many proposals."""
        from stages.detect.scoring import detect_image

        return detect_image(*self.regions(image, name), self.scorer, self.regressors, self.settings)

    def trace(self, image: np.ndarray, name: str) -> Any:
        """How the detections in an image come about; arguments as above."""
        from stages.detect.trace import trace_image

        return trace_image(*self.regions(image, name), self.scorer, self.regressors, self.settings)

    def regions(self, image: np.ndarray, name: str) -> tuple[Any, Any, tuple[int, int]]:
        """The image's proposals [n, 4], their features by layer, and its (width, height)."""
        from stages.extract.features import arithmetic, extract_features
        from stages.propose.stage import propose_boxes

        boxes = propose_boxes(image, name, self.propose)
        with arithmetic(self.extract, self.execution.device):
            features = extract_features(image, boxes, self.network, self.extract, self.execution.batch_size)
        return boxes, features, (image.shape[1], image.shape[0])


def trained(graph: Graph, node: Node) -> Reader:
    """The complete cache of a trained model. Raises IncompleteCache, naming the command to run."""
    if not complete(graph, node):
        raise IncompleteCache(f"{node.name} is not trained yet; run `rcnn run {graph.recipe.path}` first")
    return Reader(graph.folder(node))
