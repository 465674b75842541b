"""The orientation of a dataset's images: as stored, or turned upright by their EXIF orientation.

Some annotation tools show photos upright and others as stored, and boxes are in the frame that was shown. The size
stated in an annotation distinguishes the two if they differ in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stages.images.reading import Header, ImageFile

AUTO, UPRIGHT, STORED = "auto", "upright", "stored"
CHOICES = (AUTO, UPRIGHT, STORED)


def reads_upright(header: Header, stated: tuple[int, int] | None, choice: str) -> bool:
    """Whether to read an image upright, given the size (width, height) stated in its annotation.

    With "auto", images are read as stored if only that matches the stated size, else upright, as today's annotation
    tools show them.
    """
    if choice == AUTO:
        return stated is None or stated != header.size(upright=False) or stated == header.size(upright=True)
    return choice == UPRIGHT


def is_undecided(header: Header, stated: tuple[int, int] | None) -> bool:
    """Whether an image with an orientation matches its annotation both upright and as stored."""
    sizes = {header.size(upright=False), header.size(upright=True)}
    return header.orientation != 1 and (stated is None or sizes == {stated})


def described_size(image: ImageFile) -> str:
    """The size of an image in words; both sizes, if its EXIF orientation swaps width and height."""
    assert image.header is not None
    stored, upright = image.header.size(upright=False), image.header.size(upright=True)
    if stored == upright:
        return f"{stored[0]} x {stored[1]}"
    both = f"{stored[0]} x {stored[1]} as it is stored and {upright[0]} x {upright[1]} upright"
    return f"{both} (EXIF orientation {image.header.orientation})"


def turned_note(name: str, undecided: Sequence[tuple[Path, int]]) -> str:
    """The note on images that match both ways and are read upright, given (file, EXIF orientation) of each."""
    path, orientation = undecided[0]
    many = f"{len(undecided)} images have" if len(undecided) > 1 else "1 image has"
    first = "the first is " if len(undecided) > 1 else ""
    return (
        f"{name}: {many} an EXIF orientation, and annotations that do not say which way up they were drawn "
        f"({first}{path}, orientation {orientation}); they are read upright, so if their boxes are in the pixels as "
        'stored, set exif = "stored" for the dataset'
    )
