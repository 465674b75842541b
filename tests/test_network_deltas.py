"""A detector whose network moves its boxes, by the real commands: Fast R-CNN's layers, put into a cache by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cache import Reader, Writer
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from stages.boxes import clip_boxes, decode_deltas
from stages.networks import BACKGROUND, NETWORKS, PlannedNetwork
from stages.networks.architectures import build
from stages.networks.heads import Heads, RegionHead
from stages.networks.weights import weight_columns, weight_record
from stages.training.state import seeded
from tests.in_process import rcnn

HEADS = Heads(None, RegionHead("align", 3, (16,), 0.1))
RECIPE = """
[datasets.train]
source = "shapes:train"
images = 2
[datasets.test]
source = "shapes:test"
images = 5
[network]
name = "shapenet"
weights = "random"
[propose]
method = "edge-boxes"
max_boxes = 40
[finetune]
[maps]
sides = [160]
longest = 240
[extract]
method = "roi-pool"
layers = ["softmax", "deltas"]
[detect]
score = "softmax"
regression = "network"
cap = "image"
[eval]
[detect-plain]
stage = "detect"
score = "softmax"
cap = "image"
[eval-plain]
stage = "eval"
inputs = { detections = "detect-plain" }
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    """(recipe, work folder) of a run whose [finetune] is a network with a region head, with random weights."""
    folder = tmp_path_factory.mktemp("deltas")
    (folder / "fast.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "rcnn_cli.recipes.recipe.planned_by",
            lambda use, network: PlannedNetwork(network.card.with_heads(HEADS), True),
        )
        graph = Graph(load_recipe(folder / "fast.toml"), folder / "work")
        write_network(graph)
        rcnn("run", folder / "fast.toml", work=folder / "work")
        yield folder / "fast.toml", folder / "work"


def write_network(graph: Graph) -> None:
    """The complete cache of [finetune]."""
    classes = graph.dataset("train").classes
    with seeded(1, 0):
        state = build(NETWORKS["shapenet"].with_heads(HEADS), len(classes) + 1).state_dict()
    node = graph.nodes["finetune"]
    stage, columns = node.use.stage.load(), node.use.stage.log
    assert columns is not None
    schema = stage.network_schema(build(NETWORKS["shapenet"].with_heads(HEADS), len(classes) + 1), columns)
    assert set(weight_columns(state)) == set(schema.per_item)
    writer = Writer(graph.folder(node), graph.identity(node), ["network"], schema, part_size=1)
    for part in writer.claim():
        log = {f"log/{name}": np.ones(1, dtype) for name, dtype in columns.dtypes.items()}
        writer.write(part, [{**weight_record(state), **log}])
    summary = {
        "network": "shapenet",
        "classes": len(classes) + 1,
        "class_names": [*classes, BACKGROUND],
        "heads": HEADS.as_json(),
    }
    writer.finish({}, lambda reader: summary)
    writer.release()


def cache_of(work: Path, stage: str, label: str) -> Reader:
    return Reader(next((work / "caches" / stage).glob(f"{label}.*")))


def test_boxes_are_those_that_the_deltas_of_their_class_lead_to(run):
    """Each detection is a proposal of the features, moved by the four columns of its class, with its probability."""
    _, work = run
    features, detections = cache_of(work, "extract", "fast-test"), cache_of(work, "detect", "fast-test")
    assert features.manifest["all_settings"]["pooling"] == "align"
    assert features.schema.rows["deltas"].dtype == "float32"
    assert detections.manifest["summary"]["bbox_regression"] is True
    for image in detections.item_ids:
        record, found = features.read(image), detections.read(image)
        proposals = ~record["is_object"]
        assert len(found["boxes"])
        for box, score, label in zip(found["boxes"], found["score"], found["label"], strict=True):
            rows = np.flatnonzero(proposals & (record["softmax"][:, label] == score))
            moved = decode_deltas(record["boxes"][rows], record["deltas"][rows, 4 * label : 4 * label + 4], short=0)
            assert (clip_boxes(moved, *record["image_size"].tolist()) == box).all(axis=1).any()
    plain = cache_of(work, "detect", "fast-detect-plain-test")
    assert plain.manifest["summary"]["bbox_regression"] is False


def test_explaining_tells_both_boxes_and_the_scored_proposals_around(run, tmp_path):
    recipe, work = run
    texts = []
    for image in cache_of(work, "detect", "fast-test").item_ids:
        printed = rcnn("explain", recipe, image, "-o", tmp_path, work=work).stdout
        told = json.loads((tmp_path / f"{image}.json").read_text())
        for each in told["objects"]:
            assert len(each["proposals_around"]) <= 3
            best = each["best_proposal"]
            assert best["box_after_regression"] != best["box"]
            missed = each.get("verdict") == "missed"
            assert missed == (f"{each['name']} was missed" in printed)
        texts.append(printed)
    assert any("after regression; score" in text and "proposals around it, of 40: IoU" in text for text in texts)


def test_a_photo_has_the_detections_of_its_image(run, tmp_path):
    recipe, work = run
    photo = next((work / "datasets").glob("shapes-v1-*/JPEGImages/test_00003.jpg"))
    shutil.copy(photo, tmp_path / "photo.jpg")
    rcnn("predict", recipe, tmp_path / "photo.jpg", "-o", tmp_path / "out", work=work)
    predicted = json.loads((tmp_path / "out" / "photo.json").read_text())["detections"]
    cached = cache_of(work, "detect", "fast-test")
    names, record = cached.manifest["summary"]["classes"], cached.read("test_00003")
    rows = zip(record["label"], record["score"], record["boxes"], strict=True)
    expected = sorted((names[label], float(score), box.tolist()) for label, score, box in rows)
    found = sorted((each["class"], each["score"], each["box"]) for each in predicted)
    assert [each[0] for each in found] == [each[0] for each in expected]
    np.testing.assert_allclose([each[1] for each in found], [each[1] for each in expected], atol=1e-5)
    np.testing.assert_allclose([each[2] for each in found], [each[2] for each in expected], atol=0.02)


def test_comparison_recall_and_report(run, tmp_path):
    recipe, work = run
    plain = ("--evaluation", "eval", "--evaluation-b", "eval-plain", "--resamples", 20)
    compared = rcnn("compare", recipe, recipe, *plain, "-o", tmp_path / "compared", work=work).stdout
    assert "detect / detect-plain.regression network -> ridge" in compared
    table = rcnn("recall", recipe, "-o", tmp_path / "recall", work=work).stdout
    assert "at .5" in table
    rcnn("report", recipe, "-o", tmp_path / "report", work=work)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "detect-plain" in page
    assert "IoU, %" in page


def test_merged_boxes_are_explained_and_predicted(run, tmp_path):
    """Of the same features: each detection is the mean of its candidates and scores their sum; without an evaluation,
    those that score 1 are shown."""
    recipe, work = run
    merging = ("--set", "detect.suppression=merge", "--set", "detect.merge_threshold=1.5")
    rcnn("detect", recipe, *merging, work=work)
    merged = [
        reader
        for reader in map(Reader, (work / "caches" / "detect").glob("fast-test.*"))
        if reader.manifest["settings"].get("suppression") == "merge"
    ]
    (cached,) = merged
    shown = 0
    assert cached.manifest["all_settings"]["merge_threshold"] == 1.5
    for image in cached.item_ids:
        rcnn("explain", recipe, image, "--detector", "detect", *merging, "-o", tmp_path, work=work)
        told = json.loads((tmp_path / f"{image}.json").read_text())
        assert told["counts"]["left_by_suppression"] < told["counts"]["candidates"]
        assert sum(len(each["merged"]) for each in told["detections"]) <= told["counts"]["candidates"]
        record = cached.read(image)
        for each in told["detections"]:
            candidates, shown = each["merged"], shown + 1
            assert each["score"] == pytest.approx(sum(one["score"] for one in candidates), rel=1e-6)
            mean = np.mean([one["box"] for one in candidates], axis=0)
            np.testing.assert_allclose(each["box"], mean, rtol=1e-5, atol=1e-4)
            assert (record["score"] == np.float32(each["score"])).any()
    assert shown
    photo = next((work / "datasets").glob("shapes-v1-*/JPEGImages/test_00003.jpg"))
    shutil.copy(photo, tmp_path / "photo.jpg")
    rcnn("predict", recipe, tmp_path / "photo.jpg", "--detector", "detect", *merging, "-o", tmp_path / "out", work=work)
    told = json.loads((tmp_path / "out" / "photo.json").read_text())
    assert told["score"] == "summed softmax probability"
    scores = sorted(each["score"] for each in told["detections"])
    np.testing.assert_allclose(scores, np.sort(cached.read("test_00003")["score"]), rtol=1e-4)
    refused = rcnn("run", recipe, *merging, "--set", "detect.classes_per_scale=3", work=work, check=False)
    assert refused.returncode == 2
    assert "classes_per_scale needs features that say at which scale each window was found" in refused.stderr
