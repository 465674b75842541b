"""A recipe on data in COCO's format, from the real commands to COCO's own reading of the results."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rcnn_cli.main import main
from stages.datasets import open_detection
from stages.datasets.shapes import ShapesSettings, draw_shapes
from stages.eval.coco import write_coco_annotations

RECIPE = """
[datasets.train]
source = "coco:{folder}/train.json:{folder}/voc/JPEGImages"
[datasets.test]
source = "coco:{folder}/test.json:{folder}/voc/JPEGImages"
[network]
name = "shapenet"
weights = "random"
[propose]
method = "sliding-window"
max_boxes = 60
[extract]
layers = ["pool4"]
[train-svm]
layer = "pool4"
[detect]
[detect-all]
stage = "detect"
nms_iou = 0.9
[eval]
coco = true
bootstrap = 100
[eval-all]
stage = "eval"
inputs = {{ detections = "detect-all" }}
bootstrap = 100
"""


def test_a_recipe_on_coco_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCNN_WORK", str(tmp_path / "work"))
    monkeypatch.setattr("rcnn_cli.running.device.cores", lambda: 1)
    draw_shapes(tmp_path / "voc", ShapesSettings(train=6, val=1, test=4))
    for split in ("train", "test"):
        voc = open_detection(f"voc:{tmp_path}/voc:{split}", work=tmp_path / "work")
        write_coco_annotations(voc, tmp_path / f"{split}.json")
    stated = json.loads((tmp_path / "train.json").read_text())
    things = stated["annotations"]
    things[0]["iscrowd"] = 1
    (tmp_path / "train.json").write_text(json.dumps(stated))
    recipe = tmp_path / "coco.toml"
    recipe.write_text(RECIPE.format(folder=tmp_path))
    with pytest.raises(SystemExit) as ended:
        main(["run", str(recipe)])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert "mAP (11-point), eval-all minus eval:" in printed
    assert "COCO AP @ .5:.95" in printed
    folder = tmp_path / "work/results/coco/eval"
    assert not (folder / "coco-annotations.json").exists()
    truth = COCO(str(tmp_path / "test.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(folder / "coco-results.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    summary = json.loads((folder / "results.json").read_text())
    assert summary["coco"]["AP"] == pytest.approx(evaluation.stats[0], abs=1e-9)
    assert summary["coco"]["AR100"] == pytest.approx(evaluation.stats[8], abs=1e-9)
    low, high = summary["bootstrap"]["map"]
    assert f"{100 * summary['map']:.1f} [{100 * low:.1f}, {100 * high:.1f}]" in printed
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert float(rows[-1]["AP"]) == pytest.approx(summary["coco"]["AP"])
    # no crowd is an example
    trained = json.loads(next((tmp_path / "work/caches/train-svm").glob("*/manifest.json")).read_text())
    for category in stated["categories"]:
        own = [one for one in things if one["category_id"] == category["id"] and not one["iscrowd"]]
        assert trained["summary"]["classes"][category["name"]]["positives"] == len(own)
