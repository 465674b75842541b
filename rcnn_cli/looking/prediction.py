"""`rcnn predict`: the trained detector of a recipe on any image; nothing is cached."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rcnn_cli.looking.image_detector import detector_of_recipe
from rcnn_cli.looking.photos import Photo, check_photos, readable
from rcnn_cli.looking.showing import Showing
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.recipes.detectors import choice_told, detector_node
from rcnn_cli.recipes.graph import Graph
from stages.contract.errors import BadImage, StageError
from stages.contract.execution import Execution
from stages.detections import Detections
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
            raise StageError("--threshold and --precision: give only one of them, a score or a share between 0 and 1")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise StageError(f"--threshold {self.threshold}: must be a finite number")


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
    detector = detector_of_recipe(graph, node, execution, wish.threshold, wish.precision)
    made = {"written_by": "rcnn predict", **detector.origin}
    for photo in photos:
        try:
            for frame, image in photo.pictures():
                name = picture_name(photo, frame)
                detections = detector.detect(image, name, photo.path)
                yield write_picture(photo, frame, image, detections, detector.showing, made, folder)
        except BadImage as error:
            if not execution.skip_bad_images:
                raise
            log.warning("skipped: %s", error)


def picture_name(photo: Photo, frame: int | None) -> str:
    """What the picture of a photo, or of a frame of a video, is called."""
    stem = Path(readable(photo.path)).stem
    return stem if frame is None else f"{stem}-{frame:05d}"


def write_picture(
    photo: Photo,
    frame: int | None,
    image: Pixels,
    detections: Detections,
    showing: Showing,
    made: Mapping[str, str],
    folder: OutputFolder,
) -> str:
    """Writes PNG and JSON of a photo or a frame of a video; a line that says what is drawn."""
    from stages.pictures.drawing import save_image

    name = photo.name if frame is None else photo.frame_name(frame)
    path = Path(readable(photo.path))
    which = {"image": path.name, "path": str(path), **({} if frame is None else {"frame": frame})}
    size = {"width": image.shape[1], "height": image.shape[0]}
    values = {**made, **which, **size, "boxes": BOXES, **showing.as_json(detections)}
    with folder.file(f"{name}.png") as file:
        save_image(showing.picture(image, detections), file)
    folder.write(f"{name}.json", json.dumps(values, indent=1, allow_nan=False) + "\n")
    at = "" if frame is None else f", frame {frame}"
    return f"{path}{at}: {showing.drawn_line(detections)} -> {folder.path / name}.png, .json"
