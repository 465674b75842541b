"""The recipe of the authors' detectors by the real commands, on a generated file in their layout: proposals, features
and detections are those that functions of PyTorch and torchvision give for the numbers in the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.ops import batched_nms, nms, roi_pool

from cache import Reader
from stages.datasets.silhouettes import DETECTION
from stages.networks import NETWORKS, architectures
from tests.in_process import rcnn
from tests.pipeline import PROJECT
from tests.stages.caffe_files import caffemodel
from tests.stages.detector_layers import UNSCALED, WIDTH, Tensors, detector_layers, tensors_of, zf_trunk

RECIPE = PROJECT / "recipes" / "voc2007-faster-zf-released.toml"
CLASSES = tuple(DETECTION)
MEAN = (102.9801, 115.9465, 122.7717)
SIDE, LONGEST = 160, 256
CHANGES = (
    "datasets.test.source=shapes:test",
    "datasets.test.images=3",
    f"maps.sides=[{SIDE}]",
    f"maps.longest={LONGEST}",
    "propose.max_boxes=60",
)
OPTIONS = [word for change in CHANGES for word in ("--set", change)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tensors, Path]]:
    """(the numbers of the .caffemodel by layer, the work folder) of an import and a run of the recipe, with fc6 and fc7
    of WIDTH units."""
    folder = tmp_path_factory.mktemp("released")
    layers = detector_layers(classes=len(CLASSES))
    (folder / "ZF.caffemodel").write_bytes(caffemodel(layers, dropouts=UNSCALED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(architectures.OURS, "zf", partial(architectures.zf, width=WIDTH))
        own = NETWORKS["zf"].layers
        narrow = {layer: replace(own[layer], dimension=WIDTH) for layer in ("fc6", "fc7")}
        patch.setitem(NETWORKS, "zf", replace(NETWORKS["zf"], layers={**own, **narrow}))
        patch.setenv("RCNN_ZF_FASTER", str(folder / "zf.safetensors"))
        names = ("--classes", ",".join(CLASSES))
        output = ("-o", folder / "zf.safetensors")
        rcnn("weights", "import", folder / "ZF.caffemodel", "--network", "zf", *names, *output, work=folder)
        rcnn("run", RECIPE, *OPTIONS, work=folder / "work")
        yield tensors_of(layers), folder / "work"


def cache_of(work: Path, stage: str) -> Reader:
    return Reader(next((work / "caches" / stage).iterdir()))


def anchors_of(width: int, height: int) -> torch.Tensor:
    """Nine anchors at each cell of a map, half-open: the rows of generate_anchors.py, whose corners are inclusive."""
    rows = [
        [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199],
        [-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263],
        [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359],
    ]  # fmt: skip
    cell = torch.tensor(rows, dtype=torch.float64) + torch.tensor([0, 0, 1, 1])
    y, x = torch.meshgrid(16 * torch.arange(height), 16 * torch.arange(width), indexing="ij")
    return (torch.stack([x, y, x, y], -1).reshape(-1, 1, 4) + cell).reshape(-1, 4)


def moved(boxes: torch.Tensor, deltas: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Half-open boxes moved by deltas (R-CNN Appendix C) and clipped to an image of this size."""
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + sides / 2 + deltas[:, :2] * sides
    half = deltas[:, 2:].exp() * sides / 2
    limits = torch.tensor([width, height], dtype=boxes.dtype)
    return torch.cat([centres - half, centres + half], 1).clamp(min=0).minimum(limits.repeat(2))


def image_of(work: Path, image_id: str) -> np.ndarray:
    """The image, BGR."""
    path = next((work / "datasets").glob(f"shapes-v*/JPEGImages/{image_id}.jpg"))
    image = cv2.imread(str(path))
    assert image is not None
    return image


def map_of(image: np.ndarray, layers: Tensors) -> tuple[torch.Tensor, float]:
    """conv5 of an image scaled as in lib/utils/blob.py, in half precision as it is stored, and the scale."""
    scale = min(SIDE / min(image.shape[:2]), LONGEST / max(image.shape[:2]))
    centred = image.astype(np.float32) - np.array(MEAN, np.float32)
    scaled = cv2.resize(centred, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return zf_trunk(layers, torch.from_numpy(scaled).permute(2, 0, 1)[None]).half().float(), scale


def proposals_of(image: np.ndarray, layers: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """(boxes, scores): lib/rpn/proposal_layer.py at test, 60 of them."""
    cells, scale = map_of(image, layers)
    height, width = cells.shape[2:]
    hidden = functional.conv2d(cells, *layers["rpn_conv1"], padding=1).relu()
    scores = functional.conv2d(hidden, *layers["rpn_cls_score"]).reshape(2, 9, height, width).softmax(0)[1]
    deltas = functional.conv2d(hidden, *layers["rpn_bbox_pred"]).reshape(9, 4, height, width)
    of_anchors = scores.permute(1, 2, 0).reshape(-1), deltas.permute(2, 3, 0, 1).reshape(-1, 4).double()
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    boxes = moved(anchors_of(width, height), of_anchors[1], *size)
    large = ((boxes[:, 2:] - boxes[:, :2]) >= 16 * scale).all(1)
    boxes, kept = boxes[large], of_anchors[0][large]
    best = nms(boxes, kept.double(), 0.7)[:60]
    limits = torch.tensor(image.shape[1::-1]).repeat(2)
    return (boxes[best] / scale).minimum(limits), kept[best]


def test_proposals_are_those_of_the_release(run):
    """Scores and boxes, in order, of every image."""
    layers, work = run
    proposals = cache_of(work, "propose")
    for image_id in proposals.item_ids:
        record = proposals.read(image_id)
        with torch.inference_mode():
            boxes, scores = proposals_of(image_of(work, image_id), layers)
        assert len(scores) > 20
        assert float(scores.max() - scores.min()) > 0.2
        np.testing.assert_allclose(record["scores"], scores, atol=2e-4)
        np.testing.assert_allclose(record["boxes"], boxes, atol=0.1)


def test_probabilities_and_deltas_are_those_of_the_release(run):
    """Of the cached proposals: the background is first in the file and last here, and outputs of fc6 and fc7 are
    halved."""
    layers, work = run
    features = cache_of(work, "extract")
    assert features.manifest["all_settings"]["pooling"] == "max"
    for image_id in features.item_ids:
        record = features.read(image_id)
        with torch.inference_mode():
            cells, scale = map_of(image_of(work, image_id), layers)
            inclusive = torch.from_numpy(record["boxes"]) - torch.tensor([0, 0, 1, 1])
            pooled = roi_pool(cells, [inclusive * scale], 6, 1 / 16)
            fc6 = functional.linear(pooled.flatten(1), *layers["fc6"]).relu() / 2
            fc7 = functional.linear(fc6, *layers["fc7"]).relu() / 2
            probabilities = functional.linear(fc7, *layers["cls_score"]).softmax(1)
            deltas = functional.linear(fc7, *layers["bbox_pred"])
        assert float(probabilities.std(0).max()) > 0.01
        np.testing.assert_allclose(record["softmax"], probabilities.roll(-1, 1), atol=2e-3)
        np.testing.assert_allclose(record["deltas"], deltas[:, 4:], atol=2e-3)


def test_detections_are_those_of_the_release(run):
    """Of the cached probabilities and deltas: lib/fast_rcnn/test.py, with half-open boxes."""
    _, work = run
    features, detections = cache_of(work, "extract"), cache_of(work, "detect")
    assert detections.manifest["summary"]["classes"] == list(CLASSES)
    for image_id in features.item_ids:
        record, detected = features.read(image_id), detections.read(image_id)
        of_network = ~record["is_object"]
        proposals = torch.from_numpy(record["boxes"][of_network]).double()
        rows, labels = np.nonzero(record["softmax"][of_network][:, :-1] > 0.05)
        scores = torch.from_numpy(record["softmax"][of_network])[rows, labels]
        deltas = torch.from_numpy(record["deltas"][of_network]).reshape(len(proposals), -1, 4)[rows, labels].double()
        width, height = record["image_size"].tolist()
        boxes = moved(proposals[rows], deltas, width, height)
        kept = batched_nms(boxes, scores.double(), torch.from_numpy(labels), 0.3)[:100]
        assert len(kept) > 5
        assert len({*detected["label"].tolist()}) > 2
        order = np.argsort(-detected["score"], kind="stable")
        np.testing.assert_array_equal(detected["label"][order], labels[kept])
        np.testing.assert_allclose(detected["score"][order], scores[kept])
        np.testing.assert_allclose(detected["boxes"][order], boxes[kept], atol=1e-3)


def test_the_run_is_evaluated(run):
    _, work = run
    assert set(cache_of(work, "eval").manifest["summary"]["classes"]) == set(CLASSES)


def test_a_photo_has_the_detections_of_its_image(run, tmp_path):
    _, work = run
    photo = next((work / "datasets").glob("shapes-v*/JPEGImages/test_00001.jpg"))
    shutil.copy(photo, tmp_path / "photo.jpg")
    rcnn("predict", RECIPE, tmp_path / "photo.jpg", *OPTIONS, "-o", tmp_path / "out", work=work)
    predicted = json.loads((tmp_path / "out" / "photo.json").read_text())["detections"]
    cached = cache_of(work, "detect").read("test_00001")
    rows = zip(cached["label"], cached["score"], cached["boxes"], strict=True)
    expected = sorted((CLASSES[label], float(score), box.tolist()) for label, score, box in rows)
    actual = sorted((each["class"], each["score"], each["box"]) for each in predicted)
    assert [each[0] for each in actual] == [each[0] for each in expected]
    np.testing.assert_allclose([each[1] for each in actual], [each[1] for each in expected], atol=1e-5)
    np.testing.assert_allclose([each[2] for each in actual], [each[2] for each in expected], atol=0.1)


def test_explaining_an_image_lists_its_proposals(run, tmp_path):
    _, work = run
    printed = rcnn("explain", RECIPE, "test_00001", *OPTIONS, "-o", tmp_path, work=work).stdout
    assert "proposals" in printed
    assert json.loads((tmp_path / "test_00001.json").read_text())["objects"]
