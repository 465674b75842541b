"""The quality of regions by hand: best overlap, covering, what counts, and intervals over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import Identity, Reader, Writer
from stages.contract.errors import BadSetting
from stages.datasets.class_masks import VOID
from stages.masks import added_to, encode, mask_columns
from stages.matching.regions import RegionCoverage, region_coverage
from stages.propose.stage import SCHEMA
from tests.stages.given_datasets import GivenDataset


def strip(first: int, end: int) -> np.ndarray:
    """A mask [2, 10] of columns first to end."""
    mask = np.zeros((2, 10), bool)
    mask[:, first:end] = True
    return mask


class Masked(GivenDataset):
    has_masks = True
    objects: dict[str, list[np.ndarray]]
    void: dict[str, np.ndarray]

    def object_masks(self, image_id: str) -> Any:
        masks = self.objects[image_id]
        return np.zeros(len(masks), np.int32), np.array(masks, bool).reshape(len(masks), 2, 10)

    def class_mask(self, image_id: str) -> Any:
        return np.where(self.void.get(image_id, strip(0, 0)), VOID, 0).astype(np.uint8)


class Plain(GivenDataset):
    has_masks = False


def proposals(folder: Path, regions: Mapping[str, Sequence[np.ndarray]], *, masks: bool = True) -> Reader:
    """A cache of these regions."""
    schema = added_to(SCHEMA) if masks else SCHEMA
    writer = Writer(folder, Identity("propose", 1), list(regions), schema, part_size=2)
    for part in writer.claim():
        records = []
        for image_id in part.item_ids:
            record = {
                "boxes": np.zeros((len(regions[image_id]), 4), np.float32),
                "image_size": np.array([10, 2], np.int32),
                **mask_columns([encode(mask) for mask in regions[image_id]], (10, 2)),
            }
            records.append(record if masks else {name: record[name] for name in ("boxes", "image_size")})
        writer.write(part, records)
    writer.finish({})
    writer.release()
    return Reader(folder)


REGIONS: dict[str, list[np.ndarray]] = {"a": [strip(0, 10), strip(0, 4), strip(5, 7)], "b": [], "c": [strip(0, 1)]}
OBJECTS: dict[str, list[np.ndarray]] = {"a": [strip(0, 4), strip(5, 10)], "b": [strip(0, 2)], "c": []}


def test_best_overlap_and_covering_by_hand(tmp_path: Path) -> None:
    dataset = Masked(name="given", objects=OBJECTS, void={})
    covered = region_coverage(proposals(tmp_path / "cache", REGIONS), dataset, (1, 2, None))
    assert covered.images.tolist() == [0, 0, 1]
    assert covered.pixels.tolist() == [8, 10, 4]
    np.testing.assert_allclose(covered.overlaps, [[0.4, 1.0, 1.0], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(covered.regions, [2 / 3, 1, 4 / 3])
    np.testing.assert_allclose(covered.best_overlap(), [0.3, 0.5, 0.5])
    of_a = [(8 * 0.4 + 10 * 0.5) / 18, (8 + 10 * 0.5) / 18, (8 + 10 * 0.5) / 18]
    np.testing.assert_allclose(covered.covering(), np.array(of_a) / 2)


def test_void_pixels_do_not_count_and_small_objects_may_be_left_out(tmp_path: Path) -> None:
    dataset = Masked(name="given", objects=OBJECTS, void={"a": strip(7, 10)})
    reader = proposals(tmp_path / "cache", REGIONS)
    np.testing.assert_allclose(region_coverage(reader, dataset, (None,)).overlaps[:2, 0], [1, 1])
    assert region_coverage(reader, dataset, (None,), least_pixels=8).pixels.tolist() == [8, 10]
    assert region_coverage(reader, dataset, (None,), least_pixels=9).pixels.tolist() == [10]


def test_without_objects_nothing_is_covered(tmp_path: Path) -> None:
    dataset = Masked(name="given", objects={image_id: [] for image_id in REGIONS}, void={})
    covered = region_coverage(proposals(tmp_path / "cache", REGIONS), dataset, (5,))
    assert np.isnan(covered.best_overlap()).all()
    assert np.isnan(covered.covering()).all()
    assert covered.intervals(10, 0) == [{"best_overlap": None, "covering": None}]


def test_intervals_are_over_images() -> None:
    """One image has the only object that is covered; resamples draw it 0, 1 or 2 times."""
    covered = RegionCoverage((9,), np.array([3, 5]), np.array([4.0, 4.0]), np.array([[1.0], [0.0]]), np.array([1.0]))
    intervals = covered.intervals(2000, 0)[0]
    assert intervals == {"best_overlap": (0.0, 1.0), "covering": (0.0, 1.0)}
    alone = RegionCoverage((9,), np.zeros(2, np.int64), np.ones(2), np.array([[1.0], [0.0]]), np.array([1.0]))
    assert alone.intervals(50, 0)[0] == {"best_overlap": (0.5, 0.5), "covering": (0.5, 0.5)}


def test_both_need_masks(tmp_path: Path) -> None:
    dataset = Masked(name="given", objects=OBJECTS, void={})
    with pytest.raises(BadSetting, match="the proposals have no masks; set masks = true"):
        region_coverage(proposals(tmp_path / "boxes", REGIONS, masks=False), dataset, (5,))
    with pytest.raises(BadSetting, match="given was opened without masks"):
        region_coverage(proposals(tmp_path / "cache", REGIONS), Plain(name="given"), (5,))
