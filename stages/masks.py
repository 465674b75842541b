"""Masks of regions as run lengths, in the characters in which COCO keeps them and which pycocotools decodes.

A mask bool [H, W] is read column by column. The lengths of its runs, of zeros and ones in turn and zeros first (perhaps
none), stand for it; from the fourth on, a length is kept as its difference from the one two before. Each number is cut
into groups of five bits, the lowest first, and each group is a character: 48 + the group, + 32 if more groups follow.
The highest bit of the last group is the number's sign. (maskApi.c of the COCO API.)

In a cache the characters of an image's masks follow one another, `masks/counts`; where those of each mask end is
`mask_end`. A mask has the size at which the image was searched, `searched_size` (width, height).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Column, Record, Schema
from stages.contract.errors import BadSetting

Characters = NDArray[np.bytes_]
"""S1 [c]."""
Mask = NDArray[np.bool_]
"""[H, W]."""

COUNTS = "masks/counts"
COLUMNS = ("mask_end", "searched_size", "image_size", COUNTS)
"""The columns of a proposals cache that `read_mask` needs."""
FIRST_CHARACTER = 48
BITS = 5  # of a number in each character
MORE = 1 << BITS
SIGN = 1 << (BITS - 1)
MOST_GROUPS = 8  # of a number of up to 35 bits; images have at most 2^30 pixels


def added_to(schema: Schema) -> Schema:
    """The schema of proposals without masks, and their masks'."""
    return replace(
        schema,
        rows={**schema.rows, "mask_end": Column("uint32")},
        per_item={**schema.per_item, "searched_size": Column("int32", (2,))},
        tables={**schema.tables, "masks": {"counts": Column("S1")}},
    )


def encode(mask: Mask) -> Characters:
    """The characters S1 [c] of a mask bool [H, W]."""
    flat = np.ascontiguousarray(mask.T).ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    first = [0] if flat.size and flat[0] else []
    numbers = np.diff(np.concatenate([[0], first, changes, [flat.size]]).astype(np.int64))
    numbers[3:] -= numbers[1:-2].copy()
    groups = np.ones(len(numbers), np.int64)  # of five bits, the highest of all being the sign
    for count in range(1, MOST_GROUPS):
        groups += (numbers < -(1 << (BITS * count - 1))) | (numbers >= 1 << (BITS * count - 1))
    places = np.arange(groups.sum()) - np.repeat(np.cumsum(groups) - groups, groups)
    codes = (np.repeat(numbers, groups) >> (BITS * places)) & (MORE - 1)
    codes += np.where(places < np.repeat(groups, groups) - 1, MORE, 0) + FIRST_CHARACTER
    return codes.astype(np.uint8).view("S1")


def mask_columns(masks: Sequence[Characters], size: tuple[int, int]) -> Record:
    """The columns of a record that hold these masks, all of `size` (width, height) as searched.

    Raises ValueError for 2^32 characters or more.
    """
    ends = np.cumsum([len(characters) for characters in masks], dtype=np.int64)
    if len(ends) and ends[-1] > np.iinfo(np.uint32).max:
        raise ValueError(f"the masks of an image take {ends[-1]:,} characters, more than {np.iinfo(np.uint32).max:,}")
    return {
        "mask_end": ends.astype(np.uint32),
        COUNTS: np.concatenate([*masks, np.empty(0, "S1")]),
        "searched_size": np.array(size, np.int32),
    }


def run_lengths(characters: Characters) -> NDArray[np.int64]:
    """The lengths of the runs, int64 [r], zeros first. Raises ValueError if these are not a mask's characters."""
    codes = np.ascontiguousarray(characters).view(np.uint8).astype(np.int64) - FIRST_CHARACTER
    if not len(codes):
        return codes
    if codes.min() < 0 or codes.max() >= 2 * MORE or codes[-1] & MORE:
        raise ValueError("these characters are not those of a mask in COCO's encoding")
    ends = np.flatnonzero((codes & MORE) == 0) + 1
    starts = np.concatenate([[0], ends[:-1]])
    sizes = ends - starts
    places = np.arange(len(codes)) - np.repeat(starts, sizes)
    numbers = np.add.reduceat((codes & (MORE - 1)) << (BITS * places), starts)
    numbers -= np.where(codes[ends - 1] & SIGN, np.int64(1) << (BITS * sizes), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def decode(characters: Characters, size: tuple[int, int]) -> Mask:
    """The mask of these `characters` S1 [c], of `size` (width, height): bool [H, W].

    Raises ValueError if they are not those of a mask of that size.
    """
    width, height = size
    lengths = run_lengths(characters)
    if (lengths < 0).any() or lengths.sum() != width * height:
        raise ValueError(f"these characters are not those of a mask of {width} x {height} pixels")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T


def nearest(mask: Mask, size: tuple[int, int]) -> Mask:
    """The mask [H, W] scaled to `size` (width, height): each pixel is that of the mask in which its centre lies."""
    columns, rows = (
        (2 * np.arange(wanted) + 1) * given // (2 * wanted)
        for wanted, given in zip(size, mask.shape[::-1], strict=True)
    )
    return mask[rows[:, None], columns[None, :]]


def mask_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The box around each mask [n, H, W], none of them empty: float32 [n, 4], zero-based and half-open.

    Raises ValueError for an empty mask."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            raise ValueError("a mask without pixels has no box")
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def check_masks(stage: str, needed_by: str, proposals: Any) -> None:
    """Raises BadSetting unless a reader of `proposals` has their masks, which something (`needed_by`) of the stage
    needs."""
    if "mask_end" not in proposals.schema.rows:
        raise BadSetting(
            f"{stage}: {needed_by} needs proposals with masks, and these have none; set propose.masks = true, "
            "or another method"
        )


def read_mask(record: Mapping[str, np.ndarray], number: int, *, as_searched: bool = False) -> Mask:
    """The region of an image's proposal `number`, from the image's record in a cache of proposals with masks.

    Returns bool [H, W], of the original image's size, or as exactly as it is known, of the size as searched. Raises
    IndexError for a proposal that the image does not have, ValueError for a record without masks.
    """
    missing = [name for name in COLUMNS if name not in record]
    if missing:
        raise ValueError(
            f"the record has no {', '.join(missing)}; masks are in caches made with propose.masks = true, and need the "
            f"columns {', '.join(COLUMNS)}"
        )
    ends = record["mask_end"]
    if not 0 <= number < len(ends):
        raise IndexError(f"there is no proposal {number}; the image has {len(ends)}")
    first, end = (int(ends[number - 1]) if number else 0), int(ends[number])
    width, height = record["searched_size"].tolist()
    mask = decode(record[COUNTS][first:end], (width, height))
    if as_searched:
        return mask
    width, height = record["image_size"].tolist()
    return nearest(mask, (width, height))
