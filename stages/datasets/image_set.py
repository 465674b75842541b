"""What all datasets have in common: images with ids, each in a file whose content is known before it is decoded."""

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
    """Images by their ids. `exif` says which way up they are: "auto", "upright" or "stored" (see `orientation`).

    A file's content is looked at once (or remembered); whoever decodes it later, in whichever process, decodes just
    that content or gets ChangedInput.
    """

    name: str
    image_ids: tuple[str, ...]
    exif: str = AUTO
    warns: bool = True
    _files: DigestMemory

    def image_path(self, image_id: str) -> Path:
        """The image's file, which need not exist."""
        raise NotImplementedError

    def stated_size(self, image_id: str) -> tuple[int, int] | None:
        """(width, height) as the image's annotation states it, None if it does not or cannot be read."""
        return None

    def image_file(self, image_id: str) -> ImageFile:
        """The image's file, its content and which way up it is read. Raises BadImage if it is not there."""
        path = self.image_path(image_id)
        return self._as_file(image_id, path, self._files.entry(path, image=True))

    def read_image(self, image_id: str) -> Pixels:
        """The image's pixels, uint8 [H, W, 3] RGB, as its annotations mean them. Raises BadImage and ChangedInput."""
        return self.image_file(image_id).read()

    def image_size(self, image_id: str) -> tuple[int, int]:
        """(width, height) of `read_image` in pixels, from the file's header. Raises BadImage."""
        return self.image_file(image_id).size

    def image_digest(self, image_id: str) -> str:
        """What decides the image's pixels: the SHA-256 (hex) of its file, and its EXIF orientation if that is obeyed.

        Raises BadImage if the file is not there.
        """
        return digest_of(self.image_file(image_id))

    @cached_property
    def image_digests(self) -> tuple[str, ...]:
        """`image_digest` of every image, in order; the files are read by several threads. Raises BadImage.

        A warning says how many images fit their annotations both ways.
        """
        paths = [self.image_path(image_id) for image_id in self.image_ids]
        entries = self._files.entries(paths, images=True)
        files = [self._as_file(*one) for one in zip(self.image_ids, paths, entries, strict=True)]
        undecided = self.undecided(list(zip(self.image_ids, files, strict=True)))
        if undecided and self.warns:
            log.warning("%s", turned_note(self.name, undecided))
        return tuple(map(digest_of, files))

    def forget(self) -> None:
        """Has every file read anew, whatever is remembered of it or was found out before.

        That is for who looks at all of it and tells the `orientation_notes`, which therefore are no warning.
        """
        self._files.forget()
        self.warns = False

    def remember(self) -> None:
        """Keeps what was found out of the files for the next opening."""
        self._files.keep()

    def orientation_notes(self) -> list[str]:
        """What is to be known of the EXIF orientations of the images that are there, one sentence each."""
        files = []
        for image_id in self.image_ids:
            with contextlib.suppress(BadImage):
                files.append((image_id, self.image_file(image_id)))
        undecided = self.undecided(files)
        return [turned_note(self.name, undecided)] if undecided else []

    def undecided(self, files: Sequence[tuple[str, ImageFile]]) -> list[tuple[Path, int]]:
        """(file, EXIF orientation) of those of the (image ids and) `files` that fit their annotations both ways."""
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
    """What decides the pixels that are read from a file."""
    return f"{file.sha256} orientation {file.header.orientation}" if file.is_turned and file.header else file.sha256


def images_digest(kind: str, image_ids: Sequence[str], digests: Sequence[str]) -> str:
    """One digest over ids and the digests of their images."""
    return combined(kind, [f"{one} {digest}" for one, digest in zip(image_ids, digests, strict=True)])
