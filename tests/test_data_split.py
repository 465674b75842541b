"""`rcnn data split`: two lists that can be used as sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.datasets import open_detection
from stages.datasets.shapes import ShapesSettings, draw_shapes
from tests.in_process import rcnn
from tests.stages.ilsvrc_folders import VAL, first_layout


def test_halves_of_a_voc_folder(tmp_path: Path) -> None:
    draw_shapes(tmp_path / "shapes", ShapesSettings(train=30, val=1, test=1))
    source = f"voc:{tmp_path / 'shapes'}"
    said = rcnn("data", "split", f"{source}:train", "-o", tmp_path / "halves", "--seed", "3", work=tmp_path).stdout
    assert "relative imbalance of the classes: " in said
    assert "at most, median " in said
    lists = [(tmp_path / "halves" / f"train{half}.txt").read_text().split() for half in (1, 2)]
    whole = open_detection(f"{source}:train", work=tmp_path)
    assert sorted([*lists[0], *lists[1]]) == sorted(whole.image_ids)
    counts = []
    for half, ids in zip((1, 2), lists, strict=True):
        dataset = open_detection(f"{source}:{tmp_path / 'halves' / f'train{half}.txt'}", work=tmp_path)
        assert dataset.image_ids == tuple(ids)
        labels = np.concatenate([dataset.record(image_id).labels for image_id in ids])
        counts.append(np.bincount(labels, minlength=len(dataset.classes)))
    assert np.abs(counts[0] - counts[1]).max() <= 1
    again = rcnn("data", "split", f"{source}:train", "-o", tmp_path / "other", "--seed", "3", work=tmp_path)
    assert (tmp_path / "other" / "train1.txt").read_text().split() == lists[0]
    assert again.stdout.splitlines()[:-2] == said.splitlines()[:-2]
    refused = rcnn("data", "split", f"{source}:train", "-o", tmp_path / "other", work=tmp_path, check=False)
    assert refused.returncode == 2
    assert "train1.txt: exists; name another folder, or remove it" in refused.stderr


def test_a_half_is_divided_again_under_a_name_of_its_own(tmp_path: Path) -> None:
    folder = first_layout(tmp_path / "data")
    (tmp_path / "val1.txt").write_text("".join(f"{image_id}\n" for image_id in tuple(VAL)[:2]))
    rcnn("data", "split", f"ilsvrc:{folder}:{tmp_path / 'val1.txt'}", "-o", tmp_path, work=tmp_path)
    assert (tmp_path / "val1-1.txt").read_text() + (tmp_path / "val1-2.txt").read_text()


def test_halves_of_val_without_the_blacklist(tmp_path: Path) -> None:
    folder = first_layout(tmp_path / "data")
    rcnn("data", "split", f"ilsvrc:{folder}:val", "-o", tmp_path, work=tmp_path)
    ids = [(tmp_path / f"val{half}.txt").read_text().split() for half in (1, 2)]
    assert sorted([*ids[0], *ids[1]]) == sorted(tuple(VAL)[:3])
    for half, of_half in zip((1, 2), ids, strict=True):
        dataset = open_detection(f"ilsvrc:{folder}:{tmp_path / f'val{half}.txt'}", work=tmp_path)
        assert dataset.image_ids == tuple(of_half)
        assert not dataset.images_not_exhaustive


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("shapes:train", "shapes:train: has no lists of image ids; `rcnn data split` divides voc:DIR:SPLIT"),
        ("voc:{folder}/shapes:val", "has 1 image, and halves need 2 or more"),
    ],
)
def test_what_cannot_be_split(source: str, message: str, tmp_path: Path) -> None:
    draw_shapes(tmp_path / "shapes", ShapesSettings(train=1, val=1, test=1))
    named = source.format(folder=tmp_path)
    refused = rcnn("data", "split", named, "-o", tmp_path / "halves", work=tmp_path / "work", check=False)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert not (tmp_path / "halves").exists()
