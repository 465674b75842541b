"""The photos that `rcnn predict` is given: files, folders, patterns, and the frames of videos."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rcnn_cli.outputs import OutputFolder
from stages.contract.errors import BadImage, StageError
from stages.contract.settings import nearest
from stages.file_names import file_name
from stages.images import reading as images
from stages.images import videos
from stages.images.reading import Pixels, read_image
from stages.images.videos import frame_count, read_frames
from stages.plurals import plural

log = logging.getLogger("rcnn")

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
PATTERN = re.compile(r"[*?\[]")
FEWER = 0.95


@dataclass(frozen=True)
class Photo:
    """An image file, or a video of which each `every`-th frame is an image; `name` is what its outputs begin with."""

    path: Path
    name: str
    every: int = 0

    @property
    def is_video(self) -> bool:
        """Whether there are frames."""
        return self.every > 0

    def frame_name(self, number: int) -> str:
        """What the outputs of a frame are called: "clip-00012"."""
        return f"{self.name}-{number:05d}"

    def output_names(self) -> list[str]:
        """What its outputs are called; of a video as many as its header counts. Raises BadImage for no video."""
        if not self.is_video:
            return [self.name]
        return [self.frame_name(number) for number in range(0, frame_count(self.path), self.every)]

    def check(self) -> None:
        """Raises BadImage where the file's header is not that of an image, or of a video."""
        if self.is_video:
            frame_count(self.path)
        else:
            images.image_size(self.path)

    def pictures(self) -> Iterator[tuple[int | None, Pixels]]:
        """(frame, or None for a photo; pixels uint8 [H, W, 3] RGB, upright). Raises BadImage."""
        if not self.is_video:
            yield None, read_image(self.path)
            return
        last = -1
        for last, pixels in read_frames(self.path, self.every):
            yield last, pixels
        counted = frame_count(self.path)
        if last + self.every < FEWER * counted:
            log.warning("%s: ended after frame %d of the %d announced in its header", self.path, last, counted)


def find_photos(given: Sequence[str], every: int) -> list[Photo]:
    """The files that the command line names, each once, in its order; those of a folder or a pattern by name.

    Raises StageError for what is not there, BadImage for nothing yet: no file is opened.
    """
    paths: dict[str, Path] = {}
    for text in given:
        for path in files_of(text):
            paths.setdefault(os.path.abspath(path), path)
    return named(list(paths.values()), every)


def files_of(text: str) -> list[Path]:
    """The files that one argument stands for."""
    path = Path(text)
    if os.path.isdir(path):
        return files_in(path)
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


def named(paths: Sequence[Path], every: int) -> list[Photo]:
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
        photos[path] = Photo(path, name, every if is_video(path) else 0)
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


def check_photos(photos: Sequence[Photo], skip_bad_images: bool) -> list[Photo]:
    """The photos whose headers can be read. Raises BadImage for another, or says so with `skip_bad_images`."""
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
