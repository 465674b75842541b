"""The base of all datasets: images with ids, each in a file whose digest is known before it is decoded."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from stages.contract.errors import BadImage
from stages.datasets.digests import DigestMemory, FileEntry, combined
from stages.datasets.orientation import AUTO, is_undecided, reads_upright, turned_note
from stages.images.reading import ImageFile, Pixels

log = logging.getLogger("stages.datasets")


class ImageSet:
    """Images by id. `exif` says how they are oriented: "auto", "upright" or "stored" (see `orientation`).

    A file's digest is computed once (or remembered); decoding it later, in any process, gives exactly that content or
    raises ChangedInput.
    """

    name: str
    image_ids: tuple[str, ...]
    exif: str = AUTO
    warns: bool = True
    generation: int = 0
    """Raised whenever ids may come to stand for other images, as only those of `Photos` do."""
    _files: DigestMemory

    def image_path(self, image_id: str) -> Path:
        """The path of an image, which need not exist."""
        raise NotImplementedError

    def stated_size(self, image_id: str) -> tuple[int, int] | None:
        """(width, height) in pixels, as stated in the image's annotation; None if missing or unreadable."""
        return None

    def flickr_id(self, image_id: str) -> str | None:
        """The number that the photograph has on flickr, as stated in the image's annotation; None if it is not."""
        return None

    def image_file(self, image_id: str) -> ImageFile:
        """The image's file, with its digest and how it is oriented. Raises BadImage if it is missing."""
        path = self.image_path(image_id)
        return self._as_file(image_id, path, self._files.entry(path, image=True))

    def read_image(self, image_id: str) -> Pixels:
        """The image's pixels uint8 [H, W, 3] RGB, oriented as its annotation needs. Raises BadImage, ChangedInput."""
        return self.image_file(image_id).read()

    def image_size(self, image_id: str) -> tuple[int, int]:
        """(width, height) in pixels of `read_image`, from the file's header. Raises BadImage."""
        return self.image_file(image_id).size

    def image_digest(self, image_id: str) -> str:
        """What determines the image's pixels: the SHA-256 (hex) of its file, and its EXIF orientation if applied.

        Raises BadImage if the file is missing.
        """
        return digest_of(self.image_file(image_id))

    @cached_property
    def image_digests(self) -> tuple[str, ...]:
        """`image_digest` of every image, in order. Raises BadImage."""
        return self.pixel_digests

    @cached_property
    def pixel_digests(self) -> tuple[str, ...]:
        """What determines each image's pixels and nothing else, in order, so that copies of an image have the same;
        files are read in several threads. Raises BadImage.

        Warns of images that match their annotations in both orientations.
        """
        paths = [self.image_path(image_id) for image_id in self.image_ids]
        entries = self._files.entries(paths, images=True)
        files = [self._as_file(*image) for image in zip(self.image_ids, paths, entries, strict=True)]
        undecided = self.undecided(list(zip(self.image_ids, files, strict=True)))
        if undecided and self.warns:
            log.warning("%s", turned_note(self.name, undecided))
        return tuple(map(digest_of, files))

    def forget(self) -> None:
        """Forgets all digests, so that every file is read again.

        This is for a complete check, which reports the `orientation_notes`, so they are no longer logged as warnings.
        """
        self._files.forget()
        self.warns = False

    def remember(self) -> None:
        """Saves the digests for the next time the dataset is opened."""
        self._files.keep()

    def orientation_notes(self) -> list[str]:
        """Notes on the EXIF orientations of the existing images, one sentence each."""
        files = []
        for image_id in self.image_ids:
            with contextlib.suppress(BadImage):
                files.append((image_id, self.image_file(image_id)))
        undecided = self.undecided(files)
        return [turned_note(self.name, undecided)] if undecided else []

    def undecided(self, files: Sequence[tuple[str, ImageFile]]) -> list[tuple[Path, int]]:
        """(file, EXIF orientation) of those `files`, given with their image ids, that match both orientations."""
        if self.exif != AUTO:
            return []
        return [
            (file.path, file.header.orientation)
            for image_id, file in files
            if file.is_turned and file.header is not None and is_undecided(file.header, self.stated_size(image_id))
        ]

    def _as_file(self, image_id: str, path: Path, entry: FileEntry) -> ImageFile:
        header = entry.header
        upright = (
            header is not None
            and header.orientation != 1
            and reads_upright(header, self.stated_size(image_id) if self.exif == AUTO else None, self.exif)
        )
        return ImageFile(path, entry.sha256, header, upright)


def digest_of(file: ImageFile) -> str:
    """The digest of what determines the pixels read from a file."""
    return f"{file.sha256} orientation {file.header.orientation}" if file.is_turned and file.header else file.sha256


def images_digest(kind: str, image_ids: Sequence[str], digests: Sequence[str]) -> str:
    """A single digest over ids and the digests of their images."""
    return combined(kind, [f"{image_id} {digest}" for image_id, digest in zip(image_ids, digests, strict=True)])
