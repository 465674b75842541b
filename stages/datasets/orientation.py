"""Which way up the images of a dataset are: as they are stored, or as their EXIF orientation turns them.

Some annotation programs show a photograph upright and others as it is stored, and boxes are in the frame that was
shown. The size that an annotation states tells the two apart wherever upright and stored differ in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stages.images.reading import Header, ImageFile

AUTO, UPRIGHT, STORED = "auto", "upright", "stored"
CHOICES = (AUTO, UPRIGHT, STORED)


def reads_upright(header: Header, stated: tuple[int, int] | None, choice: str) -> bool:
    """Whether an image is to be read upright whose annotation states this size (width, height).

    With "auto", stored pixels are taken where only they fit the stated size, and upright ones otherwise: annotation
    programs of today show photographs upright.
    """
    if choice == AUTO:
        return stated is None or stated != header.size(upright=False) or stated == header.size(upright=True)
    return choice == UPRIGHT


def is_undecided(header: Header, stated: tuple[int, int] | None) -> bool:
    """Whether an image with an orientation fits its annotation both ways."""
    sizes = {header.size(upright=False), header.size(upright=True)}
    return header.orientation != 1 and (stated is None or sizes == {stated})


def described_size(image: ImageFile) -> str:
    """The size of an image in words, both ways where its EXIF orientation makes it two."""
    assert image.header is not None
    stored, upright = image.header.size(upright=False), image.header.size(upright=True)
    if stored == upright:
        return f"{stored[0]} x {stored[1]}"
    told = f"{stored[0]} x {stored[1]} as it is stored and {upright[0]} x {upright[1]} upright"
    return f"{told} (EXIF orientation {image.header.orientation})"


def turned_note(name: str, undecided: Sequence[tuple[Path, int]]) -> str:
    """What is said of images that fit both ways and are read upright: (file, EXIF orientation) of each."""
    path, orientation = undecided[0]
    many = f"{len(undecided)} images have" if len(undecided) > 1 else "1 image has"
    first = "the first is " if len(undecided) > 1 else ""
    return (
        f"{name}: {many} an EXIF orientation, and annotations that do not say which way up they were drawn "
        f"({first}{path}, orientation {orientation}); they are read upright, so if their boxes are in the pixels as "
        'stored, set exif = "stored" for the dataset'
    )
