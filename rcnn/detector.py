"""A trained detector, of a recipe or of an exported file, called with one image after another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcnn.detections import Detections
from rcnn.graphs import graph_of
from rcnn.pixels import picture_of
from rcnn.wording import in_python
from rcnn_cli.commands.options import make_options
from rcnn_cli.exporting.model_file import is_model_file, read_card
from rcnn_cli.exporting.prediction import check_of_recipes, wished_model
from rcnn_cli.looking.image_detector import ImageDetector
from rcnn_cli.looking.prediction import Wish, wished_detector
from rcnn_cli.recipes.detectors import detector_node
from stages.contract.errors import StageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image


class Detector:
    """Detects objects in one image after another; nothing is cached. Made by `load`; for one thread at a time."""

    def __init__(self, images: ImageDetector) -> None:
        self.images = images

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label."""
        return self.images.classes

    @property
    def origin(self) -> Mapping[str, str]:
        """What the detector is from: "recipe" or "model", a path, and "detector", its cache ("detect@test")."""
        return self.images.origin

    @property
    def score(self) -> str:
        """What scores are: "SVM margin", "softmax probability" or "sum of softmax probabilities"."""
        return self.images.showing.score

    @property
    def rule(self) -> str:
        """What detections need in order to be drawn: "a precision of 0.5", "a score of 0"."""
        return self.images.showing.rule

    def __call__(
        self, image: str | os.PathLike[str] | NDArray[Any] | Image.Image, *, name: str | None = None
    ) -> Detections:
        """The detections in an image.

        The same image gives the same numbers as `rcnn predict` and as the recipe's own detect cache.

        Args:
            image: a file's path, an array uint8 [H, W, 3] in RGB (OpenCV's `imread` gives BGR: `image[..., ::-1]`), or
                an image of Pillow. Files and images of Pillow are turned upright as their EXIF orientation says.
            name: what to call the image; by default its file's stem, or "image".

        Raises BadImage for a file that cannot be read as an image, and for an array of another type or shape.
        """
        picture = picture_of(image, name)
        found = self.images.detect(picture.pixels, picture.name, picture.path)
        return Detections.of(found, self.images.showing, picture.pixels, picture.name, picture.path)

    def __repr__(self) -> str:
        origin = " ".join(self.origin.values())
        return f"<Detector of {origin}: {len(self.classes)} classes; drawn: {self.rule} or more>"


def load(
    recipe: str | os.PathLike[str],
    *,
    work: str | os.PathLike[str] | None = None,
    detector: str | None = None,
    threshold: float | None = None,
    precision: float | None = None,
    thresholds: str | os.PathLike[str] | None = None,
    device: str = "auto",
    changes: Mapping[str, Any] | None = None,
) -> Detector:
    """The detector that a recipe trained: its graph, computed on demand for other images.

    Args:
        recipe: a recipe whose caches are complete (`rcnn run` or `run` completes them): its path, or the name of one
            that comes with rcnn. Or a file that `rcnn export` wrote (.safetensors), which needs neither recipe nor
            caches: `work`, `detector` and `changes` are for recipes alone.
        work: the folder of caches; by default $RCNN_WORK, else `work` in the current folder.
        detector: the detect table to use; by default [detect], else the first in the recipe.
        threshold: draw detections with at least this score.
        precision: draw detections that score at least as much as where the evaluation has this precision, from 0 to 1;
            by default 0.5, or, without an evaluation, a score of 0 for SVM margins and 0.5 for probabilities.
        thresholds: a file of `rcnn thresholds`: draw detections with at least their class's score in it.
        device: where networks run: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        changes: values of the recipe to override, {"detect.nms_iou": 0.4}, as with `--set` on the command line.

    Raises Error: IncompleteCache, which names the command to run, for a detector that is not trained yet; others for a
    recipe, setting, detector or device that does not exist, for a precision where nothing was evaluated, and for a file
    that is damaged or of another version.
    """
    with in_python():
        wish = Wish(detector, threshold, precision, None if thresholds is None else Path(thresholds))
        check_precision(precision)
        if is_model_file(Path(recipe)):
            check_of_recipes(Path(recipe), work=work, detector=detector, changes=changes)
            execution = make_options(list(read_card(Path(recipe)).nodes), device=device, jobs=1).execution
            return Detector(wished_model(Path(recipe), execution, wish))
        graph = graph_of(recipe, work, changes)
        node = detector_node(graph, detector)
        execution = make_options(list(node.image_path()), device=device, jobs=1).execution
        return Detector(wished_detector(graph, execution, wish))


def check_precision(precision: float | None) -> None:
    """Raises StageError for one that is no share."""
    if precision is not None and not 0 <= precision <= 1:
        raise StageError(f"precision = {precision}: must be a share between 0 and 1")
