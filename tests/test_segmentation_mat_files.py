"""Semantic segmentation from .mat files alone: SBD's masks and CPMC's regions, by the real commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import scipy.io

from cache import Reader
from stages.masks import read_mask
from tests.in_process import rcnn
from tests.stages.sbd_folders import CAT, DOG, add_image, write_class_mask, write_object_mask

RECIPE = """
[datasets.train]
source = "sbd:{folder}/sbd:train"
classes = ["cat", "dog"]

[datasets.test]
source = "sbd:{folder}/sbd:val"
classes = ["cat", "dog"]

[network]
name = "shapenet"
weights = "random"

[propose]
method = "file"
file = "{folder}/cpmc"
max_boxes = 3

[extract]
layers = ["fc5"]
objects = "masks"
fill = "foreground"

[train-svr]
layer = "fc5"

[segment]
threshold = 0.3

[eval-segmentation]
bootstrap = 20
"""
SIZE = (40, 60)
SPLITS = {"train": [f"t{number}" for number in range(6)], "val": ["v0", "v1"]}


def written(folder: Path) -> Path:
    """A recipe whose images show a cat, which is red, and a dog, which is blue; the regions of each are these, their
    union, and a fourth that max_boxes leaves out."""
    rng = np.random.default_rng(0)
    (folder / "cpmc").mkdir()
    for split, image_ids in SPLITS.items():
        for image_id in image_ids:
            top, left = rng.integers(2, 12, 2)
            objects = np.zeros(SIZE, np.uint8)
            objects[top : top + 20, left : left + 14] = 1
            objects[top + 4 : top + 22, left + 26 : left + 40] = 2
            pixels = np.full((*SIZE, 3), 128, np.uint8)
            pixels[objects == 1], pixels[objects == 2] = (220, 30, 30), (30, 30, 220)
            add_image(folder / "sbd", image_id, pixels)
            write_class_mask(folder / f"sbd/cls/{image_id}.mat", np.choose(objects, [0, CAT, DOG]).astype(np.uint8))
            write_object_mask(folder / f"sbd/inst/{image_id}.mat", objects, (CAT, DOG))
            masks = [objects == 1, objects == 2, objects > 0, objects == 0]
            scipy.io.savemat(folder / f"cpmc/{image_id}.mat", {"masks": np.stack(masks, axis=2)}, do_compression=True)
        (folder / f"sbd/{split}.txt").write_text("\n".join(image_ids))
    (folder / "mat.toml").write_text(RECIPE.replace("{folder}", str(folder)))
    return folder / "mat.toml"


def test_a_recipe_of_mat_files(tmp_path: Path) -> None:
    recipe, work = written(tmp_path), tmp_path / "work"
    rcnn("run", recipe, work=work)
    (proposed,) = (work / "caches/propose").glob("mat-test.*")
    record = Reader(proposed).read("v0")
    assert len(record["boxes"]) == 3
    kept = [read_mask(record, number) for number in range(3)]
    listed = scipy.io.loadmat(tmp_path / "cpmc/v0.mat")["masks"].astype(bool)
    assert [mask.tolist() for mask in kept] == [listed[:, :, number].tolist() for number in range(3)]
    summary = json.loads((work / "results/mat/eval-segmentation/results.json").read_text())
    assert summary["images"] == 2
    assert list(summary["classes"]) == ["background", "cat", "dog"]
    assert sum(of["pixels"] for of in summary["classes"].values()) == 2 * SIZE[0] * SIZE[1]

    scipy.io.savemat(tmp_path / "cpmc/v1.mat", {"masks": np.zeros((5, 5, 2), bool)})
    failed = rcnn("run", recipe, work=work, check=False)
    assert failed.returncode == 2
    assert "v1.mat: its masks have 5 x 5 pixels but the image has 60 x 40" in failed.stderr
