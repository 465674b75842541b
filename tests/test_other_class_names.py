"""A detector trained on classes with COCO's names, evaluated on a dataset with VOC's: by the real commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cache import Reader
from stages.datasets import open_detection
from stages.datasets.shapes import ShapesSettings, draw_shapes
from stages.eval.coco import write_coco_annotations
from tests.in_process import rcnn

COCO = ("airplane", "pizza", "couch", "dog", "truck", "tv")
VOC = ("aeroplane", "pizza", "sofa", "dog", "truck", "tvmonitor")
"""The same in VOC's words; it has no pizza and no truck."""
RECIPE = """
[datasets.train]
source = "coco:train.json:voc/JPEGImages"
[datasets.test]
source = "coco:test.json:voc/JPEGImages"
classes = ["aeroplane", "dog", "sofa", "tvmonitor"]
[network]
name = "shapenet"
weights = "random"
[propose]
method = "sliding-window"
max_boxes = 40
[finetune]
iterations = 2
[extract]
layers = ["pool4", "softmax"]
[train-svm]
layer = "pool4"
[train-bbox]
layer = "pool4"
[detect]
classes = ["aeroplane", "dog", "couch:sofa", "tvmonitor"]
[detect-softmax]
stage = "detect"
classes = ["aeroplane", "dog", "sofa", "tvmonitor"]
score = "softmax"
cap = "image"
least_score = 0
[detect-own]
stage = "detect"
[eval]
[eval-softmax]
stage = "eval"
inputs = { detections = "detect-softmax" }
[eval-own]
stage = "eval"
inputs = { detections = "detect-own" }
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    """(recipe, work folder, what the run printed)."""
    folder = tmp_path_factory.mktemp("names")
    draw_shapes(folder / "voc", ShapesSettings(train=5, val=1, test=4))
    for split, names in (("train", COCO), ("test", VOC)):
        shapes = open_detection(f"voc:{folder}/voc:{split}", work=folder / "work")
        write_coco_annotations(shapes, folder / f"{split}.json")
        content = json.loads((folder / f"{split}.json").read_text())
        assert len(content["categories"]) >= len(names)
        for category, name in zip(content["categories"], names, strict=False):
            category["name"] = name
        (folder / f"{split}.json").write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "names.toml").write_text(RECIPE)
        yield folder / "names.toml", folder / "work", rcnn("run", "names.toml", work=folder / "work")


def summary_of(work: Path, stage: str, label: str) -> dict:
    return Reader(next((work / "caches" / stage).glob(f"{label}.*"))).manifest["summary"]


def test_the_caches_say_the_datasets_names(run) -> None:
    _, work, _ = run
    chosen = ["aeroplane", "dog", "sofa", "tvmonitor"]
    for label in ("names-test", "names-detect-softmax-test"):
        assert summary_of(work, "detect", label)["classes"] == chosen
    reader = Reader(next((work / "caches" / "detect").glob("names-detect-softmax-test.*")))
    labels = {int(label) for _, record in reader.records(["label"]) for label in record["label"]}
    assert labels == {0, 1, 2, 3}
    for label in ("names-test", "names-eval-softmax-test"):
        assert "unknown_classes" not in summary_of(work, "eval", label)
    assert list(summary_of(work, "eval", "names-test")["classes"]) == chosen


def test_classes_under_another_name_are_missed_aloud(run) -> None:
    _, work, printed = run
    assert summary_of(work, "eval", "names-eval-own-test")["unknown_classes"] == ["aeroplane", "sofa", "tvmonitor"]
    warning = "missed: aeroplane, sofa, tvmonitor; COCO's and VOC's names for aeroplane, sofa, tvmonitor differ"
    assert warning in printed.stderr
    note = "eval-own: the detector does not know aeroplane, sofa, tvmonitor, so all their objects are missed"
    assert note in printed.stdout


def test_what_is_shown_has_the_datasets_names(run, tmp_path) -> None:
    recipe, work, _ = run
    image = Reader(next((work / "caches" / "detect").glob("names-test.*"))).item_ids[0]
    for evaluation in ("eval", "eval-softmax"):
        told = rcnn("explain", recipe, image, "--evaluation", evaluation, "-o", tmp_path, work=work).stdout
        assert "in 4 classes" in told
        assert "does not know" not in told
    assert not {"airplane", "couch", "tv", "pizza"} & set(told.replace(",", " ").split())
    both = ("--evaluation", "eval", "--evaluation-b", "eval-softmax", "--resamples", 5)
    compared = rcnn("compare", recipe, recipe, *both, "-o", tmp_path / "compared", work=work)
    assert "tvmonitor" in compared.stdout
    assert "unknown to the detector" not in compared.stderr
    rcnn("figures", recipe, "--only", "detections", "-o", tmp_path / "figures", work=work)
    rcnn("report", recipe, "-o", tmp_path / "report", work=work)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "sofa" in page
    assert "the detector does not know aeroplane" in page
    photo = next(recipe.parent.glob("voc/JPEGImages/test_*.jpg"))
    rcnn("predict", recipe, photo, "--detector", "detect-softmax", "-o", tmp_path / "out", work=work)
    predicted = json.loads((tmp_path / "out" / f"{photo.stem}.json").read_text())["detections"]
    assert {each["class"] for each in predicted} <= {"aeroplane", "dog", "sofa", "tvmonitor"}
    assert len(predicted)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ('["dog", "sheep"]', "detect: classes has 'sheep', but the detector has no class 'sheep'"),
        ('["dog:sofa", "couch:sofa"]', "detect: classes calls both 'dog' and 'couch' 'sofa'; two classes cannot"),
    ],
)
def test_what_cannot_be_chosen_ends_with_a_sentence(run, classes: str, message: str) -> None:
    recipe, work, _ = run
    refused = rcnn("run", recipe, "--set", f"detect.classes={classes}", work=work, check=False)
    assert refused.returncode == 2
    assert message in refused.stderr
