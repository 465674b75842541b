"""`rcnn predict`: a trained detector on any image or video; nothing is cached."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rcnn_cli.looking.film import Film
from rcnn_cli.looking.image_detector import ImageDetector, detector_of_recipe
from rcnn_cli.looking.photos import Picture, Source, check_photos, readable
from rcnn_cli.looking.prediction_formats import FORMATS, JSON, Format, Found, Place, written_line
from rcnn_cli.looking.showing import Showing, counts_line
from rcnn_cli.looking.thresholds import (
    Thresholds,
    models_key,
    read_thresholds_file,
    warn_of_another_detector,
    with_thresholds,
)
from rcnn_cli.looking.tiles import Tiling, detect_in_tiles
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.progress import progress
from rcnn_cli.recipes.detectors import choice_told, detector_node
from rcnn_cli.recipes.graph import Graph
from stages.contract.errors import BadImage, StageError
from stages.contract.execution import Execution
from stages.detections import Detections
from stages.detections.json_values import BOXES
from stages.plurals import number_of

log = logging.getLogger("rcnn")


@dataclass(frozen=True)
class Wish:
    """Which detections are asked for: the detector's name (None: the main one), the least score or precision that is
    drawn (None: what `showing_of` says) or a file of each class's. Raises StageError where more than one of
    score, precision and file are given."""

    detector: str | None = None
    threshold: float | None = None
    precision: float | None = None
    thresholds: Path | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and self.precision is not None:
            raise StageError("--threshold and --precision: give only one of them, a score or a share between 0 and 1")
        if self.thresholds is not None and (self.threshold is not None or self.precision is not None):
            other = "--precision" if self.threshold is None else "--threshold"
            raise StageError(f"--thresholds and {other}: give only one of them, a file or a number for all classes")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise StageError(f"--threshold {self.threshold}: must be a finite number")


@dataclass(frozen=True)
class Outputs:
    """What is written: `formats`; `pictures` with boxes, which are PNGs of photos and a video of each video; `copies`
    of the images, beside the annotations of datasets. With `frames`, those of videos are photos."""

    formats: tuple[str, ...] = (JSON,)
    pictures: bool = True
    copies: bool = True
    frames: bool = False

    def is_film(self, source: Source) -> bool:
        """Whether a source becomes a video, or one file of JSON Lines."""
        return source.is_video and not self.frames

    def files(self, name: str, film: bool) -> list[str]:
        """The names of the files for a photo or frame, or a video, that is called `name`."""
        endings = (".mp4", ".jsonl") if film else (".png", ".json")
        wanted = (self.pictures, JSON in self.formats)
        return [f"{name}{ending}" for ending, one in zip(endings, wanted, strict=True) if one]

    def names(self, source: Source) -> list[str]:
        """The names of all files that are written for a source, without those of other formats."""
        film = self.is_film(source)
        return [file for name in ([source.name] if film else source.output_names()) for file in self.files(name, film)]


class Writing:
    """What becomes of the pictures and their detections: files in `output` for each source, files of other formats.

    `made` says in each JSON file what the detections are from.
    """

    def __init__(self, output: Path, outputs: Outputs, sources: Sequence[Source]) -> None:
        self.outputs = outputs
        inputs = [source.path for source in sources]
        self.folder = OutputFolder(output, inputs=inputs)
        self.place = Place(output, inputs, outputs.copies)
        self.formats: list[Format] = []
        self.pictures = self.detections = 0

    def check(self, sources: Sequence[Source]) -> None:
        """Raises StageError where a file is there that must not be replaced."""
        self.folder.check(name for source in sources for name in self.outputs.names(source))
        for one in self.made_for(()):
            one.check(sources)

    def made_for(self, classes: Sequence[str]) -> list[Format]:
        """The formats that are wanted, of a detector of these classes."""
        return [FORMATS[name](self.place, classes) for name in self.outputs.formats if name != JSON]

    def add(self, found: Found) -> None:
        """Gives a picture to the other formats."""
        self.pictures += 1
        self.detections += len(found.detections)
        for one in self.formats:
            one.add(found)

    def finish(self) -> Iterator[str]:
        """Writes the files of all pictures; a line for each format."""
        for one in self.formats:
            yield written_line(one.finish(), self.pictures, self.detections)


def prepare(
    sources: Sequence[Source], output: Path, outputs: Outputs, skip_bad_images: bool
) -> tuple[list[Source], Writing]:
    """The sources that can be opened, and what will be written of them; nothing heavy is loaded yet.

    Raises BadImage for a photo that cannot be opened, StageError where a file is there that must not be replaced.
    """
    sound = check_photos(sources, skip_bad_images)
    writing = Writing(output, outputs, sources)
    writing.check(sound)
    return sound, writing


def wished_detector(graph: Graph, execution: Execution, wish: Wish) -> ImageDetector:
    """The detector that is asked for, which draws what is asked for. Raises as `detector_of_recipe`, and StageError for
    thresholds that are not those of its classes."""
    node = detector_node(graph, wish.detector)
    if wish.detector is None and choice_told(graph, node):
        log.info(choice_told(graph, node))
    chosen = chosen_thresholds(wish)
    detector = detector_of_recipe(graph, node, execution, wish.threshold, wish.precision)
    if chosen is None:
        return detector
    return with_chosen(detector, wish, chosen, models_key(graph, node))


def chosen_thresholds(wish: Wish) -> Thresholds | None:
    """The thresholds in the file that is asked for, if one is."""
    return None if wish.thresholds is None else read_thresholds_file(wish.thresholds)


def with_chosen(detector: ImageDetector, wish: Wish, chosen: Thresholds, key: str) -> ImageDetector:
    """The detector, whose `models_key` is `key`, with the thresholds that were chosen. Raises StageError for those of
    other classes."""
    assert wish.thresholds is not None
    showing = with_thresholds(detector.showing, chosen, wish.thresholds)
    warn_of_another_detector(key, chosen, wish.thresholds)
    return replace(detector, showing=showing)


def predict_photos(
    detector: ImageDetector, sources: Sequence[Source], writing: Writing, tiling: Tiling | None, skip_bad_images: bool
) -> Iterator[str]:
    """Writes what is asked for of every photo and video; yields a line for each, and for each other format."""
    writing.formats = writing.made_for(detector.classes)
    if tiling is not None:
        detector = replace(detector, showing=replace(detector.showing, side=tiling.side))
    for source in sources:
        try:
            yield from predict_source(source, detector, writing, tiling)
        except BadImage as error:
            if not skip_bad_images:
                raise
            log.warning("skipped: %s", error)
    yield from writing.finish()


def predict_source(source: Source, detector: ImageDetector, writing: Writing, tiling: Tiling | None) -> Iterator[str]:
    """Writes what is asked for of a photo or video; yields a line for each file, or each frame. Raises BadImage."""
    pictures = detected(detector, source, tiling)
    if writing.outputs.is_film(source):
        yield write_film(source, pictures, detector, writing)
        return
    for picture, detections in pictures:
        yield write_picture(source, picture, detections, detector, writing)


def detected(detector: ImageDetector, source: Source, tiling: Tiling | None) -> Iterator[tuple[Picture, Detections]]:
    """Each picture of a source and the detections in it. Raises BadImage."""
    for picture in source.pictures():
        name = picture_name(source, picture.frame)
        if tiling is None:
            yield picture, detector.detect(picture.pixels, name, source.path)
        else:
            yield picture, detect_in_tiles(detector, picture.pixels, name, source.path, tiling)


def picture_name(source: Source, frame: int | None) -> str:
    """What the picture of a photo, or of a frame of a video, is called."""
    stem = Path(readable(source.path)).stem
    return stem if frame is None else f"{stem}-{frame:05d}"


def found_in(source: Source, picture: Picture, detections: Detections, showing: Showing) -> Found:
    """What other formats get of a picture: the detections that are good enough."""
    chosen = detections.where(showing.good_enough(detections))
    name = source.name if picture.frame is None else source.frame_name(picture.frame)
    return Found(source, name, picture, chosen, showing.precision(chosen))


def values_of(
    source: Source, picture: Picture, detections: Detections, showing: Showing, origin: Mapping[str, str]
) -> dict[str, Any]:
    """A picture and its detections as JSON values."""
    height, width, _ = picture.pixels.shape
    path = Path(readable(source.path))
    frame = {} if picture.frame is None else {"frame": picture.frame, "time": round(picture.time or 0.0, 3)}
    which = {"image": path.name, "path": str(path), **frame, "width": width, "height": height}
    return {"written_by": "rcnn predict", **origin, **which, "boxes": BOXES, **showing.as_json(detections)}


def write_picture(
    source: Source, picture: Picture, detections: Detections, detector: ImageDetector, writing: Writing
) -> str:
    """Writes the files of a photo or a frame of a video; a line that says what is found."""
    from stages.pictures.drawing import save_image

    showing, folder = detector.showing, writing.folder
    found = found_in(source, picture, detections, showing)
    if writing.outputs.pictures:
        with folder.file(f"{found.name}.png") as file:
            save_image(showing.picture(picture.pixels, detections), file)
    if JSON in writing.outputs.formats:
        values = values_of(source, picture, detections, showing, detector.origin)
        folder.write(f"{found.name}.json", json.dumps(values, indent=1, allow_nan=False) + "\n")
    writing.add(found)
    at = "" if picture.frame is None else f", frame {picture.frame}"
    files = writing.outputs.files(found.name, film=False)
    return f"{readable(source.path)}{at}: {showing.drawn_line(detections)}{arrow(folder, files)}"


def write_film(
    source: Source, pictures: Iterator[tuple[Picture, Detections]], detector: ImageDetector, writing: Writing
) -> str:
    """Writes the video with boxes and the JSON Lines of a video, a line for each frame; a line that says what is found.

    In a frame in which nothing is good enough, nothing is drawn: what is drawn whatever its score would flicker.
    """
    showing = replace(detector.showing, few=0)
    files = writing.outputs.files(source.name, film=True)
    frames, classes = 0, list[str]()
    if not source.count:
        log.info("%s: Ctrl-C ends it", readable(source.path))
    with ExitStack() as opened:
        bar = opened.enter_context(progress(readable(source.path), source.count, "frames"))
        paths = {name.rpartition(".")[2]: opened.enter_context(writing.folder.file(name)) for name in files}
        film = opened.enter_context(Film(paths.get("mp4"), paths.get("jsonl"), source.rate()))
        for picture, detections in pictures:
            found = found_in(source, picture, detections, showing)
            values = values_of(source, picture, detections, showing, detector.origin)
            film.add(picture, showing.drawing(picture.pixels, detections) if "mp4" in paths else None, values)
            writing.add(found)
            classes.extend(showing.classes[label] for label in found.detections.labels)
            frames += 1
            bar.advance(1)
        if not frames:
            raise BadImage(source.path, "ended before its first frame")
        film.finish()
    named = counts_line(classes) or f"none has {showing.rule} or more"
    return f"{readable(source.path)}: {number_of(frames, 'frame')}: {named}{arrow(writing.folder, files)}"


def arrow(folder: OutputFolder, files: Sequence[str]) -> str:
    """Where the files of a picture or video are, for its line: " -> out/a.png, .json"; "" without any."""
    if not files:
        return ""
    return ", ".join([f" -> {folder.path / files[0]}", *(f".{file.rpartition('.')[2]}" for file in files[1:])])
