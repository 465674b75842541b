"""`rcnn predict`: the trained detector of a recipe on any image, without caches on the way."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache import IncompleteCache, Reader
from rcnn_cli.looking.photos import Photo, check_photos, readable
from rcnn_cli.looking.showing import Showing, showing_of
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.recipes.detectors import choice_told, detector_node
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import complete
from stages.contract.errors import BadImage, StageError
from stages.contract.execution import Execution
from stages.images.reading import Pixels

log = logging.getLogger("rcnn")

BOXES = "x1, y1, x2, y2 in pixels of the image, zero-based, half-open: width = x2 - x1"


@dataclass(frozen=True)
class Wish:
    """What is asked for: the detector's name (None: the main one), the least score or precision that is drawn (None:
    what `showing_of` says). Raises StageError where both are given."""

    detector: str | None = None
    threshold: float | None = None
    precision: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and self.precision is not None:
            raise StageError("--threshold is a score and --precision a share of 1: leave one of the two out")


def prepare(photos: Sequence[Photo], output: Path, skip_bad_images: bool) -> tuple[list[Photo], OutputFolder]:
    """The photos that can be opened, and the folder for what becomes of them; nothing heavy is loaded yet.

    Raises BadImage for a photo that cannot be opened, StageError where a file is there that must not be replaced.
    """
    sound = check_photos(photos, skip_bad_images)
    folder = OutputFolder(output, inputs=[photo.path for photo in photos])
    folder.check(f"{name}{ending}" for photo in sound for name in photo.output_names() for ending in (".png", ".json"))
    return sound, folder


def predict_photos(
    graph: Graph, photos: Sequence[Photo], folder: OutputFolder, execution: Execution, wish: Wish
) -> Iterator[str]:
    """Writes NAME.png and NAME.json for every photo and frame into `folder`; yields a line for each."""
    node = detector_node(graph, wish.detector)
    if wish.detector is None and choice_told(graph, node):
        log.info(choice_told(graph, node))
    detect = Detector(graph, node, execution)
    showing = showing_of(graph, node, detect.classes, wish.threshold, wish.precision)
    made = {"written_by": "rcnn predict", "recipe": str(graph.recipe.path), "detector": node.name}
    for photo in photos:
        try:
            for frame, image in photo.pictures():
                yield predict_one(photo, frame, image, detect, showing, made, folder)
        except BadImage as error:
            if not execution.skip_bad_images:
                raise
            log.warning("skipped: %s", error)


def predict_one(
    photo: Photo,
    frame: int | None,
    image: Pixels,
    detect: Detector,
    showing: Showing,
    made: Mapping[str, str],
    folder: OutputFolder,
) -> str:
    """Writes PNG and JSON of a photo or a frame of a video; a line that says what is drawn."""
    from stages.pictures.drawing import save_image

    name = photo.name if frame is None else photo.frame_name(frame)
    path = Path(readable(photo.path))
    found = detect(image, path.stem if frame is None else f"{path.stem}-{frame:05d}")
    which = {"image": path.name, "path": str(path), **({} if frame is None else {"frame": frame})}
    size = {"width": image.shape[1], "height": image.shape[0]}
    told = {**made, **which, **size, "boxes": BOXES, **showing.as_json(found)}
    with folder.file(f"{name}.png") as file:
        save_image(showing.picture(image, found), file)
    folder.write(f"{name}.json", json.dumps(told, indent=1, allow_nan=False) + "\n")
    at = "" if frame is None else f", frame {frame}"
    return f"{path}{at}: {showing.drawn_line(found)} -> {folder.path / name}.png, .json"


class Detector:
    """The stages propose, extract and detect on one image in memory, with the models of a recipe."""

    def __init__(self, graph: Graph, node: Node, execution: Execution) -> None:
        from stages.detect.scoring import Head, class_probabilities
        from stages.extract.features import load_network
        from stages.features.linear_models import read_regressors, read_svms

        self.settings = node.settings
        features = self.source(node, "features")
        self.extract = features.settings
        self.propose = self.source(features, "proposals").settings
        self.execution = execution
        source = self.network_source(graph, features)
        self.network = load_network(source, self.extract, execution.device)
        scorer = (
            class_probabilities(source.class_names)
            if self.settings.score == "softmax"
            else read_svms(trained(graph, self.source(node, "svm")))
        )
        with_regression = self.settings.bbox_regression and "regressor" in node.sources
        regressors = read_regressors(trained(graph, self.source(node, "regressor"))) if with_regression else None
        self.classes = scorer.classes
        self.head = Head(scorer, regressors)
        self.head.check_layers(self.extract.layers)

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
        return (
            NetworkSource.from_reader(trained(graph, source)) if isinstance(source, Node) else graph.described(source)
        )

    def __call__(self, image: np.ndarray, name: str) -> Any:
        """The detections in an image, uint8 [H, W, 3] RGB; `name` seeds the choice among too many proposals."""
        return self.trace(image, name).detections

    def trace(self, image: np.ndarray, name: str) -> Any:
        """How the detections in an image come about; arguments as above."""
        from stages.detect.trace import detect_image

        return detect_image(self.head.scored(*self.regions(image, name)), self.settings)

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
