"""Importing the authors' detectors: what the network computes is what their definitions say, and files of another
layout are refused in one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional
from torchvision.ops import roi_pool

from rcnn_cli.recipes.recipe import load_recipe
from stages.benchmark_classes import COCO_CLASSES, VOC_CLASSES
from stages.contract.errors import StageError
from stages.networks import BACKGROUND, DELTAS, NETWORKS, SOFTMAX, NetworkSettings, NetworkSource, architectures
from stages.networks.cards import CAFFE_FAST
from stages.networks.heads import Heads, ProposalHead, RegionHead
from stages.networks.importer import import_weights
from stages.networks.weights_file import read_record, write_weights
from tests.in_process import caller
from tests.stages.caffe_files import caffemodel, dropout
from tests.stages.detector_layers import UNSCALED, WIDTH, detector_layers, tensors_of, zf_trunk
from tests.stages.test_networks import one_sentence


@pytest.fixture(autouse=True)
def narrow_networks(monkeypatch):
    """fc6 and fc7 of 16 units, so that files are small."""
    for name in ("tnet", "onet", "zf"):
        monkeypatch.setitem(architectures.OURS, name, partial(getattr(architectures, name), width=WIDTH))
        layers = NETWORKS[name].layers
        narrow = {layer: replace(layers[layer], dimension=WIDTH) for layer in ("fc6", "fc7")}
        monkeypatch.setitem(NETWORKS, name, replace(NETWORKS[name], layers={**layers, **narrow}))


@pytest.fixture
def imported(tmp_path):
    """imported(layers, network, version): the file of imported weights."""

    def write(layers, network="zf", version=2, classes=(), dropouts=UNSCALED, dropout=None):
        path = tmp_path / "detector.caffemodel"
        path.write_bytes(caffemodel(layers, version, dropouts))
        weights = import_weights(str(path), network, class_names=classes, dropout=dropout)
        write_weights(tmp_path / "detector.safetensors", weights.state, weights.record)
        return tmp_path / "detector.safetensors"

    return write


@pytest.mark.parametrize(("version", "convolution"), [(1, "rpn_conv/3x3"), (2, "rpn_conv1")])
def test_a_released_detector_computes_what_its_definition_says(imported, version, convolution):
    """RPN and Fast R-CNN of ZF, in functions of PyTorch on the numbers of the file: classes from background first to
    background last, fc6 and fc7 halved by the release's dropout at test."""
    layers = detector_layers(convolution=convolution)
    path = imported(layers, version=version)
    source = NetworkSource.from_settings(NetworkSettings("zf", str(path)))
    assert source.class_names == (*VOC_CLASSES, BACKGROUND)
    assert source.heads == Heads(ProposalHead((8.0, 16.0, 32.0), (0.5, 1.0, 2.0), 8), RegionHead("max", 6))
    assert source.preprocessing == CAFFE_FAST
    network = source.load()
    image = 60 * torch.randn(1, 3, 96, 128)
    boxes = torch.tensor([[0.0, 3.0, 5.0, 60.0, 80.0], [0.0, 40.0, 10.0, 120.0, 90.0]])
    with torch.inference_mode():
        parameters = tensors_of(layers)
        maps = zf_trunk(parameters, image)
        torch.testing.assert_close(network.maps(image), maps, rtol=1e-4, atol=2e-3)
        hidden = functional.conv2d(maps, *parameters[convolution], padding=1).relu()
        scores = functional.conv2d(hidden, *parameters["rpn_cls_score"])
        height, width = maps.shape[2:]
        probabilities = scores.reshape(1, 2, 9 * height, width).softmax(1).reshape(18, height, width)[9:]
        deltas = functional.conv2d(hidden, *parameters["rpn_bbox_pred"])[0].permute(1, 2, 0).reshape(-1, 4)
        objectness, moved = network.anchors(maps)
        torch.testing.assert_close(objectness, probabilities.permute(1, 2, 0).reshape(-1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(moved, deltas, rtol=1e-4, atol=1e-4)
        regions = roi_pool(maps, boxes, 6, 1 / 16)
        fc6 = 0.5 * functional.linear(regions.flatten(1), *parameters["fc6"]).relu()
        fc7 = 0.5 * functional.linear(fc6, *parameters["fc7"]).relu()
        assert fc7.max() > 0
        expected = functional.linear(fc7, *parameters["cls_score"]).softmax(1)
        outputs = network.head(regions, ["fc7", SOFTMAX, DELTAS])
        torch.testing.assert_close(outputs["fc7"], fc7, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(outputs[SOFTMAX], torch.cat([expected[:, 1:], expected[:, :1]], 1))
        torch.testing.assert_close(outputs[DELTAS], functional.linear(fc7, *parameters["bbox_pred"])[:, 4:])


def test_fast_rcnn_of_vgg_16_has_no_proposals_and_is_not_halved(imported):
    layers = detector_layers("onet", anchors=0)
    source = NetworkSource.from_settings(
        NetworkSettings("onet", str(imported(layers, "onet", dropouts={"drop6": dropout(), "drop7": dropout()})))
    )
    assert source.heads == Heads(None, RegionHead("max", 7))
    assert source.preprocessing == CAFFE_FAST
    state = source.module().state_dict()
    assert np.array_equal(state["fc6.weight"], layers["fc6"][0])
    assert np.array_equal(state["fc8.weight"], layers["cls_score"][0][[*range(1, 21), 0]])
    assert np.array_equal(state["regions.bbox_pred.bias"], layers["bbox_pred"][1][4:])


def test_coco_has_twelve_anchors_and_its_own_classes(imported):
    source = NetworkSource.from_settings(NetworkSettings("zf", str(imported(detector_layers(classes=80, anchors=12)))))
    assert source.class_names == (*COCO_CLASSES, BACKGROUND)
    assert source.heads.proposals == ProposalHead((4.0, 8.0, 16.0, 32.0), (0.5, 1.0, 2.0), 8)


def test_names_of_classes_are_part_of_the_key(imported):
    """The same tensors under other names are another detector."""
    layers = detector_layers(classes=2)
    identities = []
    for names in (["cat", "dog"], ["dog", "cat"]):
        source = NetworkSource.from_settings(NetworkSettings("zf", str(imported(layers, classes=names))))
        assert source.class_names == (*names, BACKGROUND)
        identities.append(source.identity())
    assert identities[0]["weights"] == identities[1]["weights"]
    assert identities[0] != identities[1]


def test_the_network_without_its_heads_can_be_loaded(imported):
    """As training stages take it: the trunk is the same."""
    source = NetworkSource.from_settings(NetworkSettings("zf", str(imported(detector_layers()))))
    assert set(source.base.module()._modules) == {*architectures.zf(21)._modules}
    assert source.base.trunk_identity() == source.trunk_identity()


FACTORS = {
    "as the file records": (UNSCALED, None, {"fc6": 0.5, "fc7": 0.5}),
    "of other ratios": ({"drop6": dropout(0.25, False), "drop7": dropout(0.5, True)}, None, {"fc6": 0.75}),
    "as Caffe writes it": ({"drop6": dropout(), "drop7": dropout(0.7)}, None, {}),
    "as said": ({}, "unscaled", {"fc6": 0.5, "fc7": 0.5}),
    "as said, scaled": ({}, "scaled", {}),
    "said again": (UNSCALED, "unscaled", {"fc6": 0.5, "fc7": 0.5}),
    "half recorded": ({"drop6": dropout(0.25, False)}, "unscaled", {"fc6": 0.75, "fc7": 0.5}),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("case", FACTORS)
def test_outputs_are_those_at_test(imported, case, version):
    """Where dropout was not scaled in training, the layer is multiplied by what it keeps, and the file says so."""
    dropouts, said, factors = FACTORS[case]
    layers = detector_layers()
    path = imported(layers, version=version, dropouts=dropouts, dropout=said)
    state = NetworkSource.from_settings(NetworkSettings("zf", str(path))).module().state_dict()
    for name in ("fc6", "fc7"):
        for kind, blob in zip(("weight", "bias"), layers[name], strict=True):
            assert np.array_equal(state[f"{name}.{kind}"], np.float32(factors.get(name, 1)) * blob)
    record = read_record(path)
    assert record is not None
    changed = [change for change in record.changes if "dropout" in change]
    assert [change.partition(" is multiplied by ")[::2] for change in changed] == [
        (name, f"{factor}: its dropout was not scaled in training ({source_of(name, dropouts)})")
        for name, factor in factors.items()
    ]


def source_of(name, dropouts):
    return "as the file records" if name.replace("fc", "drop") in dropouts else "--dropout unscaled"


def test_a_classifier_is_treated_likewise(tmp_path):
    """ZF's release for ImageNet has the same dropout."""
    layers = detector_layers(anchors=0)
    del layers["bbox_pred"]
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(layers, dropouts=UNSCALED))
    imported = import_weights(str(tmp_path / "net.caffemodel"), "zf", scores="cls_score")
    assert np.array_equal(imported.state["fc7.weight"], layers["fc7"][0] / 2)
    assert len(imported.record.changes) == 2


@pytest.mark.parametrize(
    ("dropouts", "said", "message"),
    [
        ({}, None, r"does not record whether dropout on fc6 was scaled .*; choose --dropout unscaled, or .*scaled"),
        (UNSCALED, "scaled", r"--dropout scaled: .* records unscaled dropout on fc6; leave the option out"),
        ({"drop6": dropout()}, "unscaled", r"--dropout unscaled: .* records scaled dropout on fc6; leave the"),
        ({"drop7": dropout(1.0)}, None, r"layer 'drop7' drops 1 of its inputs; fetch the file again"),
    ],
)
def test_dropout_is_not_guessed(imported, dropouts, said, message):
    with pytest.raises(StageError, match=message) as error:
        imported(detector_layers(), dropouts=dropouts, dropout=said)
    one_sentence(error)


def test_dropout_of_other_files(tmp_path):
    """A state dict comes from a network that scales in training."""
    torch.save({"fc6.bias": torch.zeros(2)}, tmp_path / "state.pth")
    with pytest.raises(StageError, match=r"--dropout scaled: is for a \.caffemodel; leave this option out") as error:
        import_weights(str(tmp_path / "state.pth"), "zf", "caffe", dropout="scaled")
    one_sentence(error)


@pytest.mark.parametrize("missing", ["bbox_pred", "fc6", "rpn_cls_score", "rpn_conv1", "conv3"])
def test_missing_layers(imported, missing):
    layers = detector_layers()
    del layers[missing]
    with pytest.raises(StageError, match=r"detector\.caffemodel: ") as error:
        imported(layers)
    one_sentence(error)


SHAPES = {
    "one set of deltas for all classes": (
        "bbox_pred",
        (8, WIDTH),
        r"'bbox_pred' has 8 outputs, not 4 for each of the 21",
    ),
    "other anchors": ("rpn_cls_score", (6, 8, 1, 1), "two scores for each of 3 anchors"),
    "deltas of other anchors": ("rpn_bbox_pred", (48, 8, 1, 1), r"'rpn.bbox_pred.weight' should be \[36, 8, 1, 1\]"),
    "another trunk": ("rpn_conv1", (8, 512, 3, 3), r"'rpn.conv.weight' should be \[8, 256, 3, 3\]"),
    "other fc7": ("cls_score", (21, 3), r"'fc8.weight' should be \[21, 16\]"),
    "not square": ("rpn_conv1", (8, 256), "does not have weights and one bias for each output"),
}


@pytest.mark.parametrize("case", SHAPES)
def test_wrong_shapes(imported, case):
    name, shape, message = SHAPES[case]
    layers = detector_layers()
    layers[name] = [np.zeros(shape, np.float32), np.zeros(shape[0], np.float32)]
    with pytest.raises(StageError, match=message) as error:
        imported(layers)
    one_sentence(error)


def test_classes_have_to_be_named(imported):
    layers = detector_layers(classes=3)
    for names, message in (
        ((), r"has 3 classes; name them, in the file's order, with --classes"),
        (("cat", "dog"), "names 2 classes, but .* has 3 besides the background"),
        (("cat", "dog", "cat"), "each class needs a name of its own"),
        (("cat", "dog", BACKGROUND), "each class needs a name of its own, other than 'background'"),
    ):
        with pytest.raises(StageError, match=message) as error:
            imported(layers, classes=names)
        one_sentence(error)


RECIPE = """
[datasets.test]
source = "shapes:test"
[network]
name = "zf"
weights = "{}"
[propose]
[extract]
layers = ["softmax"]
[detect]
score = "softmax"
"""


def test_a_recipe_knows_the_heads_of_the_file_that_it_names(imported, tmp_path):
    """A file that is not there leaves the network as it is."""
    recipe = tmp_path / "r.toml"
    for path, trained in ((imported(detector_layers()), True), (Path("absent.safetensors"), False)):
        recipe.write_text(RECIPE.format(path))
        loaded = load_recipe(recipe)
        network = loaded.network_of(loaded.uses["extract"])
        assert network is not None
        assert (DELTAS in network.card.layers, network.trained) == (trained, trained)


HEADS = Heads(ProposalHead(hidden=8), RegionHead("max", 6)).as_json()


@pytest.mark.parametrize(
    ("head", "key", "value"),
    [
        ("proposals", "hidden", -8),
        ("proposals", "scales", []),
        ("proposals", "scales", [8.0, 16.0, float("nan")]),
        ("proposals", "ratios", 1),
        ("regions", "side", 0),
        ("regions", "pooling", "mean"),
        ("regions", "scale", float("inf")),
        (None, None, ["proposals"]),
    ],
)
def test_a_record_with_heads_that_cannot_be(imported, head, key, value, tmp_path):
    record = read_record(imported(detector_layers()))
    assert record is not None
    text = json.loads(record.as_json())
    text["heads"] = value if head is None else {**HEADS, head: {**HEADS[head], key: value}}
    save_file({"a": torch.zeros(1)}, tmp_path / "d.safetensors", {"rcnn": json.dumps(text)})
    with pytest.raises(StageError, match=r"d\.safetensors: its record is damaged") as error:
        read_record(tmp_path / "d.safetensors")
    one_sentence(error)


def test_a_missing_file_is_said_first(tmp_path, capsys):
    """What else follows from it, such as no background class, is not the reader's mistake."""
    (tmp_path / "r.toml").write_text(RECIPE.format("absent.safetensors"))
    code, _, said = caller(capsys)("run", tmp_path / "r.toml", "--work", tmp_path)
    assert code == 2
    assert "network.weights = 'absent.safetensors': no such file absent.safetensors" in said


def test_import_and_show(imported, tmp_path, capsys):
    """The commands, with --classes."""
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(detector_layers(classes=2), dropouts=UNSCALED))
    output = tmp_path / "zf.safetensors"
    call = caller(capsys)
    options = ("--network", "zf", "--classes", "cat,dog", "-o", output)
    code, printed, _ = call("weights", "import", tmp_path / "net.caffemodel", *options)
    assert code == 0
    for words in ("classes: cat, dog, background", "fc6 is multiplied by 0.5", "scales (8.0, 16.0, 32.0)", "6 x 6"):
        assert words in printed
    code, shown, _ = call("weights", "show", output)
    assert (code, "classes: cat, dog, background" in shown) == (0, True)
    record = read_record(output)
    assert record is not None
    assert record.class_names == ("cat", "dog", BACKGROUND)
