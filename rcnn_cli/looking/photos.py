"""The photos that `rcnn predict` is given: files, folders, patterns, and the frames of videos and cameras."""

from __future__ import annotations

import glob
import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from rcnn_cli.ending import first_interrupt
from rcnn_cli.outputs import OutputFolder
from stages.contract.errors import BadImage, StageError
from stages.contract.settings import nearest
from stages.file_names import file_name
from stages.images import reading as images
from stages.images import videos
from stages.images.reading import Pixels, read_image
from stages.images.videos import camera_rate, frame_count, frame_rate, read_camera, read_frames
from stages.plurals import plural

log = logging.getLogger("rcnn")

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
PATTERN = re.compile(r"[*?\[]")
FEWER = 0.95
CAMERA = "camera"
RECIPE = ".toml"


class Picture(NamedTuple):
    """An image: `pixels` uint8 [H, W, 3] RGB, upright; of a video also the number of the `frame` and its `time` in
    seconds."""

    pixels: Pixels
    frame: int | None = None
    time: float | None = None


@dataclass(frozen=True)
class Photo:
    """An image file, or a video of which each `every`-th frame is an image; `name` is what its outputs begin with."""

    path: Path
    name: str
    every: int = 0
    seconds: float = math.inf

    @property
    def is_video(self) -> bool:
        """Whether there are frames."""
        return self.every > 0

    @property
    def count(self) -> int:
        """The number of its images; of a video as its header says, 0 if it does not. Raises BadImage for no video."""
        if not self.is_video:
            return 1
        frames = frame_count(self.path)
        if math.isfinite(self.seconds):
            frames = min(frames, math.ceil(self.seconds * frame_rate(self.path)))
        return len(range(0, frames, self.every))

    def frame_name(self, number: int) -> str:
        """What the outputs of a frame are called: "clip-00012"."""
        return f"{self.name}-{number:05d}"

    def output_names(self) -> list[str]:
        """What its outputs are called; of a video as many as its header counts. Raises BadImage for no video."""
        if not self.is_video:
            return [self.name]
        return [self.frame_name(self.every * place) for place in range(self.count)]

    def check(self) -> None:
        """Raises BadImage where the file's header is not that of an image, or of a video."""
        if self.is_video:
            frame_count(self.path)
        else:
            images.image_size(self.path)

    def rate(self) -> float:
        """The images per second of a video."""
        return frame_rate(self.path) / self.every

    def pictures(self) -> Iterator[Picture]:
        """The image, or each `every`-th frame of the first `seconds` of a video. Raises BadImage."""
        if not self.is_video:
            yield Picture(read_image(self.path))
            return
        read = 0
        for number, time, pixels in read_frames(self.path, self.every, self.seconds):
            read += 1
            yield Picture(pixels, number, time)
        if read < math.floor(FEWER * self.count):
            last, counted = (read - 1) * self.every, frame_count(self.path)
            log.warning("%s: ended after frame %d of the %d announced in its header", self.path, last, counted)


@dataclass(frozen=True)
class Camera:
    """A camera of the system, by its number, of which each `every`-th frame is an image, until `seconds` are over or
    Ctrl-C is pressed. As a Photo otherwise; `name` has the time, so that no recording takes another's place."""

    number: int
    name: str
    every: int
    seconds: float = math.inf

    is_video = True
    count = 0

    @property
    def path(self) -> Path:
        """What messages call it."""
        return Path(f"camera:{self.number}")

    def frame_name(self, number: int) -> str:
        """What the outputs of a frame are called."""
        return f"{self.name}-{number:05d}"

    def output_names(self) -> list[str]:
        """None are known."""
        return []

    def check(self) -> None:
        """Raises StageError where there is no such camera."""
        camera_rate(self.number)

    def rate(self) -> float:
        """The images per second."""
        return camera_rate(self.number) / self.every

    def pictures(self) -> Iterator[Picture]:
        """Each `every`-th frame. Raises StageError. The first Ctrl-C ends them, a second one interrupts."""
        with first_interrupt() as asked:
            for number, time, pixels in read_camera(self.number, self.every, self.seconds, asked.is_set):
                yield Picture(pixels, number, time)


Source = Photo | Camera


def find_photos(given: Sequence[str], every: int, seconds: float | None = None) -> list[Source]:
    """The files that the command line names, each once, in its order, those of a folder or a pattern by name; then the
    cameras ("camera:0", unless there is a file of that name).

    Raises StageError for what is not there, BadImage for nothing yet: no file is opened.
    """
    paths: dict[str, Path] = {}
    cameras: dict[int, Camera] = {}
    longest = math.inf if seconds is None else seconds
    for text in given:
        if (number := camera_number(text)) is not None:
            started = datetime.now().astimezone()
            cameras[number] = Camera(number, f"camera-{number}-{started:%Y%m%d-%H%M%S}", every, longest)
            continue
        for path in files_of(text):
            paths.setdefault(os.path.abspath(path), path)
    return [*named(list(paths.values()), every, longest), *cameras.values()]


def camera_number(text: str) -> int | None:
    """The number of the camera that an argument names; None for anything else. Raises StageError for no number."""
    kind, colon, number = text.partition(":")
    if kind != CAMERA or not colon or os.path.lexists(text):
        return None
    if not re.fullmatch("[0-9]{1,3}", number):
        raise StageError(f"{text}: name a camera by its number, as in {CAMERA}:0 for the first one")
    return int(number)


def files_of(text: str) -> list[Path]:
    """The files that one argument stands for."""
    path = Path(text)
    if os.path.isdir(path):
        return files_in(path)
    if path.suffix.lower() == RECIPE:
        raise StageError(f"{text}: is a recipe, not a photo; rcnn predict takes one recipe, the first, and then photos")
    if os.path.exists(path):
        return [path]
    if ADDRESS.match(text):
        raise StageError(f"{text}: is a URL, and rcnn does not download photos; download it and name the file")
    if PATTERN.search(text):
        matching = sorted(map(Path, glob.glob(text, recursive=True)))
        files = without_drawings(matching)
        if not files:
            raise StageError(f"{text}: matches no image or video ({endings()})")
        return files
    try:
        there = os.listdir(path.parent)
    except OSError:
        raise StageError(f"{text}: no such file; there is no folder {path.parent}") from None
    close = nearest(path.name, there) if there else ""
    raise StageError(f"{text}: no such file{close if 'did you mean' in close else ''}")


def files_in(folder: Path) -> list[Path]:
    """The images and videos of a folder, not of those in it. Raises StageError where there is none."""
    photos = without_drawings(sorted(folder.iterdir()))
    if not photos:
        raise StageError(
            f"{folder}: contains no images or videos ({endings()}); for its subfolders write '{folder}/**/*.jpg'"
        )
    return photos


def without_drawings(paths: Sequence[Path]) -> list[Path]:
    """Those of the paths that are images and videos, without pictures that rcnn itself left there, which is said."""
    photos = [path for path in paths if is_photo(path) and path.is_file()]
    folders: dict[Path, list[Path]] = {}
    for path in photos:
        folders.setdefault(path.parent, []).append(path)
    drawn = {path for folder, files in folders.items() for path in OutputFolder(folder).own_among(files)}
    if drawn:
        log.info("left out: %d %s drawn by rcnn, for example %s", len(drawn), plural("picture", len(drawn)), min(drawn))
    return [path for path in photos if path not in drawn]


def is_photo(path: Path) -> bool:
    """Whether a file's name is that of an image or a video that is not hidden."""
    return path.suffix.lower() in (*images.SUFFIXES, *videos.SUFFIXES) and not path.name.startswith(".")


def endings() -> str:
    """The endings of images and videos."""
    return " ".join((*images.SUFFIXES, *videos.SUFFIXES))


def named(paths: Sequence[Path], every: int, seconds: float = math.inf) -> list[Photo]:
    """Each file with a name for its outputs, sound on every disk; those of one name are numbered: "a", "a-2".

    The frames of a video have numbers of their own, which no photo's name may be taken for.
    """
    photos: dict[Path, Photo] = {}
    taken: set[str] = set()
    numbers: dict[str, int] = {}  # how far each stem is: many folders may have a 0001.jpg
    for path in sorted(paths, key=is_video):
        stem = file_name(path.stem)
        name, number = stem, numbers.get(stem, 1)
        while is_taken(name, taken, is_video(path)):
            number += 1
            name = f"{stem}-{number}"
        numbers[stem] = number
        taken.add(name.casefold())
        photos[path] = Photo(path, name, every if is_video(path) else 0, seconds)
    return [photos[path] for path in paths]


def readable(path: Path | str) -> str:
    """A path as text that can be printed: bytes of its name that are no UTF-8 become question marks."""
    return os.fsencode(path).decode(errors="replace")


def is_video(path: Path) -> bool:
    """Whether a file's name is that of a video."""
    return path.suffix.lower() in videos.SUFFIXES


def is_taken(name: str, taken: set[str], video: bool) -> bool:
    """Whether outputs called this, or (of a `video`) this and a frame's number, would be those of another file."""
    folded = name.casefold()
    frames = re.compile(re.escape(folded) + r"-\d{5,}")
    return folded in taken or (video and any(frames.fullmatch(other) for other in taken))


def check_photos(photos: Sequence[Source], skip_bad_images: bool) -> list[Source]:
    """The photos whose headers can be read, and the cameras. Raises BadImage for another photo, or says so with
    `skip_bad_images`, and StageError for a camera that cannot be opened."""
    sound = []
    for photo in photos:
        try:
            photo.check()
        except BadImage as error:
            if not skip_bad_images:
                raise
            log.warning("skipped: %s", error)
            continue
        sound.append(photo)
    return sound
