"""The regions of selective search as masks: from segmentations and trees to COCO's run lengths (stages/masks.py).

If the regions of a segmentation are numbered in the order in which the branches of a tree lead to them, every region of
the tree has consecutive ones: whether a pixel belongs to it takes one comparison. And pixels of one label that follow
one another in a column are compared together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache import Record
from stages.contract.errors import StageError
from stages.masks import COUNTS, MOST_GROUPS, Characters
from stages.propose.compiled import compiled
from stages.propose.grouping import Integers, Tree
from stages.propose.segmentation import Labels

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Forest:
    """A segmentation `labels` int32 [H, W], and the `trees` that grouping its regions by several strategies makes."""

    labels: Labels
    trees: tuple[Tree, ...]


@dataclass(frozen=True)
class MaskedRegions:
    """Some of the regions that are found in an image: their `numbers` int64 [n], which count through `all_boxes`."""

    forests: Sequence[Forest]
    numbers: NDArray[np.int64]

    def take(self, rows: NDArray[np.intp]) -> MaskedRegions:
        """The regions at `rows`, in their order."""
        return MaskedRegions(self.forests, self.numbers[rows])

    def columns(self) -> Record:
        """The columns of a cache that hold their masks (stages/masks.py)."""
        characters, ends = encode_regions(self.forests, self.numbers)
        height, width = self.forests[0].labels.shape
        return {"mask_end": ends, COUNTS: characters, "searched_size": np.array([width, height], np.int32)}


def all_boxes(forests: Sequence[Forest]) -> NDArray[np.int32]:
    """The boxes of all regions, int32 [N, 4]: forest by forest, tree by tree, in the order in which they were made."""
    return np.vstack([tree.boxes for forest in forests for tree in forest.trees])


def areas_of(forest: Forest) -> NDArray[np.int64]:
    """The areas of a forest's regions in pixels, int64 [N], tree by tree, in the order in which they were made."""
    leaves = np.bincount(forest.labels.ravel())
    areas = []
    for tree in forest.trees:
        spans = leaf_spans(tree.parts, len(tree.boxes))
        before = np.zeros(len(leaves) + 1, np.int64)  # the area of so many leaves, as they are numbered
        before[spans[: len(leaves), 1]] = leaves
        before = np.cumsum(before)
        areas.append(before[spans[:, 1]] - before[spans[:, 0]])
    return np.concatenate(areas)


def largest_regions(forests: Sequence[Forest]) -> NDArray[np.int64]:
    """For each region the largest of those that have its box, of equally large ones the first: int64 [N]. Regions
    count through `all_boxes`.

    Several trees and segmentations find much the same region with a box; the others mostly have holes.
    """
    areas = np.concatenate([areas_of(forest) for forest in forests])
    order = np.argsort(-areas, kind="stable")
    _, first, of_box = np.unique(all_boxes(forests)[order], axis=0, return_index=True, return_inverse=True)
    largest = np.empty_like(order)
    largest[order] = order[first][of_box]
    return largest


def encode_regions(forests: Sequence[Forest], regions: NDArray[np.int64]) -> tuple[Characters, NDArray[np.uint32]]:
    """The masks of `regions` int64 [n], which count through `all_boxes`.

    Returns (the masks' characters, one mask after another, S1 [c]; where those of each mask end, uint32 [n]). Raises
    StageError for 2^32 characters or more.
    """
    pieces: list[Bytes] = [np.empty(0, np.uint8)] * len(regions)
    first = 0
    for forest in forests:
        runs = column_runs(forest.labels)
        for tree in forest.trees:
            wanted = np.flatnonzero((regions >= first) & (regions < first + len(tree.boxes)))
            if len(wanted):
                spans = leaf_spans(tree.parts, len(tree.boxes))
                text, ends = encode_tree(*runs, spans, tree.boxes, regions[wanted] - first, forest.labels.size)
                for number, piece in zip(wanted.tolist(), np.split(text, ends[:-1]), strict=True):
                    pieces[number] = piece
            first += len(tree.boxes)
    text = np.concatenate([*pieces, np.empty(0, np.uint8)])
    return text.view("S1"), ends_of([len(piece) for piece in pieces])


def ends_of(lengths: Sequence[int]) -> NDArray[np.uint32]:
    """Where masks of so many characters, one after another, end: uint32 [n]. Raises StageError for 2^32 or more."""
    ends = np.cumsum(lengths, dtype=np.int64)
    most = np.iinfo(np.uint32).max
    if len(ends) and ends[-1] > most:
        raise StageError(
            f"propose: the masks of an image take {ends[-1]:,} characters, more than {most:,}; lower "
            "propose.max_boxes, or search the image smaller (propose.resize_width, propose.max_side)"
        )
    return ends.astype(np.uint32)


@compiled
def column_runs(labels: Labels) -> tuple[Integers, Integers, Integers]:
    """The pixels of `labels` int32 [H, W], column by column, in runs of equal labels, none longer than a column.

    Returns (where each of the r runs starts, then where the last ends, int32 [r + 1]; its label, int32 [r]; the first
    run of each column, then r, int32 [W + 1]).
    """
    height, width = labels.shape
    starts = np.empty(height * width + 1, np.int32)
    values = np.empty(height * width, np.int32)
    columns = np.empty(width + 1, np.int32)
    runs = 0
    for x in range(width):
        columns[x] = runs
        for y in range(height):
            if y == 0 or labels[y, x] != labels[y - 1, x]:
                starts[runs], values[runs] = x * height + y, labels[y, x]
                runs += 1
    starts[runs], columns[width] = height * width, runs
    return starts[: runs + 1], values[:runs], columns


@compiled
def leaf_spans(parts: Integers, regions: int) -> Integers:
    """The leaves of each region of a tree (its `parts` as in Tree), numbered in the order in which the branches lead to
    them, as [first, end): int32 [regions, 2]. Regions that are no part of another follow one another."""
    leaves = regions - len(parts)
    spans = np.zeros((regions, 2), np.int32)
    sizes = np.ones(regions, np.int32)
    is_part = np.zeros(regions, np.bool_)
    for number in range(len(parts)):
        first, second = parts[number]
        sizes[leaves + number] = sizes[first] + sizes[second]
        is_part[first] = is_part[second] = True
    numbered = 0
    for region in range(regions - 1, -1, -1):  # a region was made after its parts
        if not is_part[region]:
            spans[region, 0] = numbered
            numbered += sizes[region]
        spans[region, 1] = spans[region, 0] + sizes[region]
        if region >= leaves:
            first, second = parts[region - leaves]
            spans[first, 0] = spans[region, 0]
            spans[second, 0] = spans[region, 0] + sizes[first]
    return spans


@compiled
def encode_tree(
    starts: Integers,
    labels: Integers,
    columns: Integers,
    spans: Integers,
    boxes: Integers,
    regions: NDArray[np.int64],
    pixels: int,
) -> tuple[Bytes, NDArray[np.int64]]:
    """The masks of some `regions` int64 [n] of a tree, in an image of so many `pixels`: (characters, uint8 [c]; where
    each mask's end, int64 [n]).

    `starts`, `labels`, `columns`: its segmentation as `column_runs` gives it; `spans` of its regions as `leaf_spans`.
    """
    text = np.empty(1 << 16, np.uint8)
    ends = np.empty(len(regions), np.int64)
    end = 0
    for number in range(len(regions)):
        region = regions[number]
        first, leaves = spans[region, 0], np.uint32(spans[region, 1] - spans[region, 0])
        first_run, last_run = columns[boxes[region, 0]], columns[boxes[region, 2]]
        most = end + MOST_GROUPS * (last_run - first_run + 2)
        if most > len(text):
            longer = np.empty(2 * most, np.uint8)
            longer[:end] = text[:end]
            text = longer
        inside, start, counts, last, last_but_one = False, 0, 0, 0, 0
        for run in range(first_run, last_run + 1):  # outside its columns there is nothing of it
            # of unsigned numbers, those below the first are beyond the last
            now = bool(run < last_run and np.uint32(spans[labels[run], 0] - first) < leaves)
            at = starts[run]
            if now != inside:
                end = write_number(text, end, at - start - (last_but_one if counts > 2 else 0))
                last_but_one, last = last, at - start
                counts += 1
                inside, start = now, at
        if start < pixels:
            end = write_number(text, end, pixels - start - (last_but_one if counts > 2 else 0))
        ends[number] = end
    return text[:end], ends


@compiled
def write_number(text: Bytes, end: int, number: int) -> int:
    """Writes a number to `text` from `end` on; returns where it ends then."""
    more = True
    while more:
        group = number & 31
        number >>= 5
        more = number != -1 if group & 16 else number != 0
        text[end] = 48 + group + (32 if more else 0)
        end += 1
    return end
