"""Fast R-CNN on dense windows, at one scale and at several, by the real commands: Faster R-CNN, Table 10."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from cache import Reader
from tests.in_process import rcnn

RECIPE = """
[datasets.train]
source = "shapes:train"
images = 4

[datasets.test]
source = "shapes:test"
images = 3

[network]
name = "shapenet"
weights = "random"

[propose]
method = "dense"
anchor_stride = 16
anchor_scales = [2.0, 4.0]
anchor_side = 96
anchor_longest = 160

[train-fast]
iterations = 3
sides = [64]
longest = 160

[maps]
sides = [64]
longest = 160

[extract]
method = "roi-pool"
layers = ["pool4", "softmax", "deltas"]
dtype = "float32"

[detect]
score = "softmax"
regression = "network"
cap = "image"

[eval]
"""


def features_of(work: Path) -> dict[str, np.ndarray]:
    """All regions of the test images: `boxes` [n, 4] and their features."""
    (folder,) = (work / "caches/extract").glob("*-test.*")
    records = [record for _, record in Reader(folder).records(["boxes", "pool4", "softmax", "deltas"])]
    return {name: np.concatenate([record[name] for record in records]) for name in records[0]}


def test_one_stage_at_one_scale_and_at_two(tmp_path: Path) -> None:
    recipe, one, two = tmp_path / "dense.toml", tmp_path / "one", tmp_path / "two"
    recipe.write_text(RECIPE)
    assert "mAP, 11-point" in rcnn("run", recipe, work=one).stdout
    shutil.copytree(one, two, ignore=shutil.ignore_patterns("extract", "detect", "eval"))
    assert "train-fast: complete" in rcnn("run", recipe, "--set", "maps.sides=[64,128]", work=two).stderr
    (folder,) = (one / "caches/propose").glob("*-test.*")
    windows = sum(len(record["boxes"]) for _, record in Reader(folder).records(["boxes"]))
    features, others = features_of(one), features_of(two)
    boxes = features["boxes"]
    assert windows < len(boxes) < windows + 30  # the objects, too
    np.testing.assert_allclose(features["softmax"].sum(axis=1), 1, rtol=1e-5)
    assert features["deltas"].shape == (len(boxes), 40)
    # A region comes from the scale at which its area is nearest to 64 x 64: small ones from the larger map.
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    same = (features["pool4"] == others["pool4"]).all(axis=1)
    assert same[areas == areas.max()].all()
    assert not same[areas == areas.min()].any()


def test_a_network_is_trained_at_several_scales(tmp_path: Path) -> None:
    recipe = tmp_path / "dense.toml"
    recipe.write_text(RECIPE)
    words = ("--set", "train-fast.sides=[64,128]", "--set", "maps.sides=[64,128]", "--set", "extract.cache=false")
    assert "mAP, 11-point" in rcnn("run", recipe, *words, work=tmp_path / "work").stdout
    assert not (tmp_path / "work" / "caches" / "extract").exists()
