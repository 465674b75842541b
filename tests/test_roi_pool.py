"""R-CNN's network read by RoI pooling, by the real commands: `method = "roi-pool"` from a recipe to detections."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from cache import Reader
from tests.built_once import BuiltOnce
from tests.in_process import rcnn
from tests.pipeline import SMALLER, contents, run_small

POOLED = SMALLER.replace("padding = 4\n", 'method = "roi-pool"\n') + "\n[maps]\nsides = [160]\nlongest = 240\n"


@pytest.fixture(scope="module")
def run(built_once: BuiltOnce):
    """(recipe, work folder) of the small recipe with pooled regions, run beside the one with warped regions."""

    def build(folder):
        built_once.copy("small", run_small, folder)
        (folder / "pooled.toml").write_text(POOLED)
        done = rcnn("run", folder / "pooled.toml", work=folder / "work")
        (folder / "printed.txt").write_text(done.stdout + done.stderr)

    folder = built_once.folder("small-pooled", build)
    return folder / "pooled.toml", folder / "work"


@pytest.fixture
def copied(run, tmp_path):
    """The same, to be changed."""
    shutil.copytree(run[1], tmp_path / "work")
    return run[0], tmp_path / "work"


def test_a_run_shares_pretraining_and_proposals_and_keeps_no_maps(run):
    recipe, work = run
    printed = (recipe.parent / "printed.txt").read_text()
    assert "mAP, 11-point" in printed
    assert "pretrain: complete" in printed
    assert "propose@test: complete" in printed
    assert not (work / "caches" / "maps").exists()
    status = rcnn("status", recipe, work=work).stdout
    assert "maps@test" in status
    assert "not cached (cache = false): computed by extract@test" in status


def test_with_maps_that_are_kept_the_features_are_the_same(copied):
    """And the keys: `maps.cache` decides nothing but that."""
    recipe, work = copied
    before = contents(work)
    for stage in ("extract", "detect"):
        shutil.rmtree(next((work / "caches" / stage).glob("pooled-test.*")))
    rcnn("run", recipe, "--set", "maps.cache=true", work=work)
    after = contents(work)
    maps = {name for name in after if (work / "caches" / "maps" / name).exists()}
    assert {name.partition(".")[0] for name in maps} == {"pooled-train", "pooled-test"}
    assert {name: value for name, value in after.items() if name not in maps} == before


def test_features_that_are_not_kept(copied):
    """Neither maps nor features of the test set: detections are the same."""
    recipe, work = copied
    before = contents(work)
    features = next((work / "caches" / "extract").glob("pooled-test.*"))
    shutil.rmtree(features)
    shutil.rmtree(next((work / "caches" / "detect").glob("pooled-test.*")))
    rcnn("run", recipe, "--set", "extract.cache=false", work=work)
    assert contents(work) == {name: value for name, value in before.items() if name != features.name}


def test_a_photo_goes_through_the_same_graph(copied, tmp_path):
    """A copy of a test image has the detections of that image, though nothing of it is cached."""
    recipe, work = copied
    photo = next((work / "datasets").glob("shapes-v1-*/JPEGImages/test_00003.jpg"))
    shutil.copy(photo, tmp_path / "photo.jpg")
    rcnn("predict", recipe, tmp_path / "photo.jpg", "-o", tmp_path / "out", work=work)
    predicted = json.loads((tmp_path / "out" / "photo.json").read_text())["detections"]
    detections = sorted((each["class"], np.float32(each["score"]), each["box"]) for each in predicted)
    cached = Reader(next((work / "caches" / "detect").glob("pooled-test.*")))
    names, record = cached.manifest["summary"]["classes"], cached.read("test_00003")
    rows = zip(record["label"], record["score"], record["boxes"], strict=True)
    expected = sorted((names[label], score, box.tolist()) for label, score, box in rows)
    assert len(expected) > 100
    assert [each[:2] for each in detections] == [each[:2] for each in expected]
    np.testing.assert_allclose([box for _, _, box in detections], [box for _, _, box in expected], atol=0.0051)
    of_photo, of_dataset = (
        json.loads(rcnn("explain", recipe, image, "--json", work=work).stdout)["counts"]
        for image in (tmp_path / "photo.jpg", "test_00003")
    )
    assert all(of_photo[step] == of_dataset[step] > 0 for step in ("proposals", "candidates", "left_by_suppression"))


def test_looking_at_it(copied, tmp_path):
    """Figures of warped regions say why there are none; the comparison with warped regions works."""
    recipe, work = copied
    refused = rcnn("units", recipe, work=work, check=False)
    assert refused.returncode == 2
    assert "are cut out of maps, so its units have no receptive field within them" in refused.stderr
    compared = rcnn("compare", recipe.parent / "small.toml", recipe, work=work).stdout
    assert "extract.method" in compared


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("extract.padding=4",), "'padding' is a setting of method = 'warp', and method is 'roi-pool'; leave it out"),
        (("maps.sides=[300]",), "300 pixels, more than longest = 240; raise longest"),
        (('extract.layers=["conv4"]',), "layer 'conv4' is not computed from 'pool4'; choose a later layer"),
        (('extract.truncated_svd=["fc5:9"]',), "'fc5' is not computed for layers = ['pool4']; leave it out"),
        (
            ('extract.layers=["pool4", "fc5"]', 'extract.truncated_svd=["fc5:300"]'),
            "[extract] truncated_svd = 'fc5:300': fc5 has 256 singular values; keep fewer",
        ),
        (
            ("detect.regression=network",),
            "[detect] regression = 'network' needs the features of a network that predicts",
        ),
        (
            ("detect.regression=network", "detect.inputs.regressor=train-bbox"),
            "is not read with regression = 'network'",
        ),
        (('extract.method="warp"', 'extract.pooling="align"'), "'pooling' is a setting of method = 'roi-pool'"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_runs(run, changes, message):
    recipe, work = run
    options = [word for change in changes for word in ("--set", change)]
    refused = rcnn("run", recipe, *options, work=work, check=False)
    assert refused.returncode == 2
    assert message in refused.stderr


def test_a_recipe_without_maps_is_told_to_add_them(run, tmp_path):
    recipe, work = run
    (tmp_path / "r.toml").write_text(recipe.read_text().partition("[maps]")[0])
    refused = rcnn("run", tmp_path / "r.toml", work=work, check=False)
    assert refused.returncode == 2
    assert "[extract] needs maps; add a table [maps]" in refused.stderr
