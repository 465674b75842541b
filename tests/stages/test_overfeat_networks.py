"""OverFeat's two networks: sizes layer by layer at every scale of the paper, parameters, multiplications."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from stages.networks import NETWORKS
from stages.networks.architectures import empty_module
from stages.networks.network import Network

# layer: the shape of its output for a training crop, and its number of parameters
FAST = {
    "conv1": ((96, 56, 56), 34_944),
    "pool1": ((96, 28, 28), 0),
    "conv2": ((256, 24, 24), 614_656),
    "pool2": ((256, 12, 12), 0),
    "conv3": ((512, 12, 12), 1_180_160),
    "conv4": ((1024, 12, 12), 4_719_616),
    "conv5": ((1024, 12, 12), 9_438_208),
    "pool5": ((1024, 6, 6), 0),
    "fc6": ((3072,), 113_249_280),
    "fc7": ((4096,), 12_587_008),
    "fc8": ((1000,), 4_097_000),
}
ACCURATE = {
    "conv1": ((96, 108, 108), 14_208),
    "pool1": ((96, 36, 36), 0),
    "conv2": ((256, 30, 30), 1_204_480),
    "pool2": ((256, 15, 15), 0),
    "conv3": ((512, 15, 15), 1_180_160),
    "conv4": ((512, 15, 15), 2_359_808),
    "conv5": ((1024, 15, 15), 4_719_616),
    "conv6": ((1024, 15, 15), 9_438_208),
    "pool6": ((1024, 5, 5), 0),
    "fc7": ((4096,), 104_861_696),
    "fc8": ((4096,), 16_781_312),
    "fc9": ((1000,), 4_097_000),
}

# the six scales of the accurate network's table: the input's height and width, and the sides of its maps
SCALES = [
    ((245, 245), (120, 120), (40, 40), (34, 34), (17, 17), (5, 5)),
    ((281, 317), (138, 156), (46, 52), (40, 46), (20, 23), (6, 7)),
    ((317, 389), (156, 192), (52, 64), (46, 58), (23, 29), (7, 9)),
    ((389, 461), (192, 228), (64, 76), (58, 70), (29, 35), (9, 11)),
    ((425, 497), (210, 246), (70, 82), (64, 76), (32, 38), (10, 12)),
    ((461, 569), (228, 282), (76, 94), (70, 88), (35, 44), (11, 14)),
]
FAST_SCALES = [(12, 12), (15, 17), (17, 21), (21, 26), (24, 28), (26, 33)]


def on_meta(name: str) -> Network:
    """The network with 1,000 classes, without memory for weights."""
    card = NETWORKS[name]
    return Network(card, empty_module(card, 1000), 1000, card.preprocessing)


@pytest.mark.parametrize(
    ("name", "table", "parameters", "multiplications"),
    [
        ("overfeat-fast", FAST, 145_920_872, 2.80e9),
        ("overfeat-accurate", ACCURATE, 144_656_488, 5.36e9),
    ],
)
def test_shapes_parameters_and_multiplications_of_a_crop(name, table, parameters, multiplications):
    card = NETWORKS[name]
    module = empty_module(card, 1000)
    outputs = {}
    for layer, part in module.named_children():
        part.register_forward_hook(lambda _, __, output, layer=layer: outputs.update({layer: tuple(output.shape[1:])}))
    module(torch.empty((2, 3, card.input_size, card.input_size), device="meta"))
    parts = {
        layer: (shape, sum(tensor.numel() for tensor in module.get_submodule(layer).parameters()))
        for layer, shape in outputs.items()
        if layer.startswith(("conv", "pool", "fc"))
    }
    assert parts == table
    assert list(parts) == list(table)
    assert sum(count for _, count in table.values()) == parameters
    products = sum(
        math.prod(outputs[layer][1:]) * module.get_parameter(f"{layer}.weight").numel()
        for layer, (_, count) in table.items()
        if count
    )
    assert products == pytest.approx(multiplications, rel=2e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_the_accurate_network_at_the_papers_scales(scale):
    """The sides of each map by floor arithmetic; all are 2 modulo 3 before the last pooling, so that its three offsets
    along an axis give equally many windows."""
    (height, width), *sides = scale
    module = on_meta("overfeat-accurate").module
    maps = torch.empty((1, 3, height, width), device="meta")
    outputs = {}
    for layer, part in module.named_children():
        if layer == "flatten":
            break
        maps = outputs[layer] = part(maps)
    names = ("conv1", "pool1", "conv2", "conv6", "pool6")
    assert [tuple(outputs[name].shape[2:]) for name in names] == sides
    assert outputs["conv6"].shape[1] == 1024
    assert {side % 3 for side in outputs["conv6"].shape[2:]} == {2}


@pytest.mark.parametrize(("scale", "sides"), [*zip(SCALES, FAST_SCALES, strict=True)])
def test_the_fast_network_at_the_papers_scales(scale, sides):
    (height, width), *_ = scale
    maps = on_meta("overfeat-fast").maps(torch.empty((1, 3, height, width), device="meta"))
    assert tuple(maps.shape) == (1, 1024, *sides)


@pytest.mark.parametrize(
    ("name", "kernel", "stride", "pooled", "lost"),
    [("overfeat-fast", 11, 4, 8, 6), ("overfeat-accurate", 7, 2, 18, 5)],
)
def test_windows_of_larger_images(name, kernel, stride, pooled, lost):
    """The release's README: an image of H rows has ((H - 11) / 4 + 1) / 8 - 6 rows of class scores in the fast network
    and ((H - 7) / 2 + 1) / 18 - 5 in the accurate one, rounded down."""
    card = NETWORKS[name]
    network, start = on_meta(name), card.head.start
    for height in range(card.input_size, card.input_size + 80):
        batch = torch.empty((1, 3, height, card.input_size), device="meta")
        rows, columns = network.outputs(batch, None, [start])[start].shape[2:]
        assert rows - card.head.side + 1 == ((height - kernel) // stride + 1) // pooled - lost
        assert columns == card.head.side


@pytest.mark.parametrize("name", ["overfeat-fast", "overfeat-accurate"])
def test_dropout_is_on_the_two_hidden_layers(name):
    children = list(empty_module(NETWORKS[name], 3).named_children())
    dropped = [before for (before, _), (_, after) in itertools.pairwise(children) if isinstance(after, nn.Dropout)]
    hidden = NETWORKS[name].fully_connected[:-1]
    assert [name.replace("relu", "fc") for name in dropped] == list(hidden)
    assert {part.p for _, part in children if isinstance(part, nn.Dropout)} == {0.5}


def test_preprocessing_is_one_number_for_all_channels():
    pixel = torch.tensor([200, 100, 50], dtype=torch.uint8)[:, None, None]
    for name in ("overfeat-fast", "overfeat-accurate"):
        prepared = NETWORKS[name].preprocessing.apply(pixel).flatten().tolist()
        assert prepared == pytest.approx([(value - 118.380948) / 61.896913 for value in (200, 100, 50)])
