"""Trunk and head: maps of images of any size, where their cells lie, and the same numbers by either way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from stages.contract.errors import BadSetting
from stages.networks import NETWORKS, NetworkSettings, NetworkSource
from stages.networks.architectures import build, empty_module, onet, overfeat_accurate, overfeat_fast, tnet, zf
from stages.networks.network import Network
from stages.networks.receptive_field import receptive_fields

LARGE = 900
NARROW: dict[str, Callable[[int], nn.Module]] = {
    **{name: partial(network, width=12) for name, network in (("tnet", tnet), ("onet", onet), ("zf", zf))},
    "overfeat-fast": partial(overfeat_fast, widths=(12, 12)),
    "overfeat-accurate": partial(overfeat_accurate, widths=(12, 12)),
}


def small_network(name: str) -> Network:
    """A network with random weights; where its linear layers are large, narrow ones, or (vgg16) none to be computed."""
    card = NETWORKS[name]
    torch.manual_seed(0)
    if name in NARROW:
        module: nn.Module = NARROW[name](7)
    elif name in ("alexnet", "vgg16"):
        module = empty_module(card, 7)
        for part in module.get_submodule("features").modules():
            if isinstance(part, nn.Conv2d):
                part.to_empty(device="cpu")
                part.reset_parameters()
    else:
        module = build(card, 7)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):  # whose statistics would let nothing of the image through
            nn.init.uniform_(part.get_buffer("running_var"), 0.1, 0.3)
    return Network(card, module, 7, card.preprocessing)


def by_regions(name: str) -> list[str]:
    """The layers to compare: those that the head computes, as far as `small_network` has weights for them."""
    head = NETWORKS[name].head
    return (
        [head.start] if name in ("alexnet", "vgg16") else [head.start, head.hidden, head.outputs["classes"], "softmax"]
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_cards_tell_trunk_and_head(name: str) -> None:
    """The map of a large image and of the network's own input, and the head's layers, are what the card says."""
    card = NETWORKS[name]
    network = Network(card, empty_module(card, 7), 7, card.preprocessing)
    height, width = 600, 800
    maps = network.maps(torch.empty((2, 3, height, width), device="meta"))
    assert maps.shape[:2] == (2, card.trunk.channels)
    for cells, pixels in zip(maps.shape[2:], (height, width), strict=True):
        assert abs(cells - (pixels - sum(card.trunk.margin)) / card.trunk.stride) < 2
    regions = torch.empty((5, card.trunk.channels, card.head.side, card.head.side), device="meta")
    later = card.needed(list(card.layers)[-1:], card.head.start)
    assert {card.head.hidden, card.head.outputs["classes"], "softmax"} <= {card.head.start, *later}
    found = network.head(regions, later)
    assert {layer: tuple(values.shape) for layer, values in found.items()} == {
        layer: (5, network.layers[layer]) for layer in later
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_head_of_the_pooled_map_is_the_network(name: str) -> None:
    """On the network's own input, maximum pooling of the whole map to the head's size and the head on it give each
    layer as the forward pass does."""
    network = small_network(name)
    card, layers = network.card, by_regions(name)
    batch = torch.randn((1, 3, card.input_size, card.input_size))
    with torch.inference_mode():
        expected = network.forward(batch, layers)
        maps = network.maps(batch)
        found = network.head(nn.functional.adaptive_max_pool2d(maps, card.head.side), layers)
    assert maps.flatten(1).shape[1] == network.layers[card.trunk.layer]
    for layer in layers:
        assert expected[layer].std() > 0
        torch.testing.assert_close(found[layer], expected[layer], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_parts_of_the_trunk_are_what_its_map_is_computed_from(name: str) -> None:
    """Its parameters get a gradient from the map and no others do; each of its parts is a submodule with tensors."""
    network = small_network(name)
    trunk, side = network.card.trunk, network.card.trunk.least_side
    network.module.requires_grad_(True)
    network.maps(torch.randn((1, 3, 2 * side, 2 * side))).square().sum().backward()
    reached = {tensor for tensor, values in network.module.named_parameters() if values.grad is not None}
    assert reached == {tensor for tensor, _ in network.module.named_parameters() if trunk.owns(tensor)}
    for part in trunk.parts:
        assert network.module.get_submodule(part).state_dict()


@pytest.mark.parametrize("name", NETWORKS)
def test_cells_lie_where_the_card_says(name: str) -> None:
    """The middle of what each cell sees of a large image: exactly offset + stride x its number, away from the edges."""
    trunk = NETWORKS[name].trunk
    fields = receptive_fields(name, trunk.layer, LARGE)
    assert fields.channels == trunk.channels
    sizes = fields.rows[:, 1] - fields.rows[:, 0]
    whole = np.flatnonzero(sizes == sizes.max())
    assert len(whole) > 10
    np.testing.assert_array_equal(fields.rows[whole].mean(axis=1), trunk.offset + trunk.stride * whole)
    np.testing.assert_array_equal(fields.rows, fields.columns)


def test_centres_by_hand() -> None:
    """VGG-16: four poolings of 2 x 2, so cell 0 is centred between the pixels 7 and 8, as Faster R-CNN's anchors are;
    SqueezeNet, which does not pad: (7 - 1) / 2 + (2 + 4 + 8) = 17, the middle of pixel 17; ZF pads everything: 0.
    OverFeat, half of each window at its stride: 11 / 2 + 4 / 2 + 2 x 8 + 8 / 2 and 7 / 2 + 1 x 2 + 3 x 6 + 6 / 2."""
    assert [NETWORKS[name].trunk.offset for name in ("vgg16", "onet", "squeezenet1_0", "zf")] == [8, 8, 17.5, 0.5]
    assert [NETWORKS[name].trunk.offset for name in ("overfeat-fast", "overfeat-accurate")] == [27.5, 26.5]
    assert [NETWORKS[name].trunk.stride for name in ("vgg16", "shapenet", "overfeat-accurate")] == [16, 8, 12]


@pytest.mark.parametrize(
    "name", ["shapenet", "tnet", "squeezenet1_0", "zf", "resnet50", "efficientnet_lite0", "overfeat-accurate"]
)
def test_gradients_of_an_image_that_is_not_square(name: str) -> None:
    """What cells of the map of an oblong image are computed from, by gradients, is centred where the card says."""
    network = small_network(name)
    trunk = network.card.trunk
    fields = receptive_fields(name, trunk.layer, LARGE).rows
    side = int((fields[:, 1] - fields[:, 0]).max())
    batch = torch.rand((2, 3, side + 37, side + 60), requires_grad=True)
    maps = network.maps(batch)
    for row, column in ((maps.shape[2] // 2, maps.shape[3] // 2), (maps.shape[2] // 2, maps.shape[3] // 2 + 1)):
        (gradient,) = torch.autograd.grad(maps[:, :, row, column].sum(), batch, retain_graph=True)
        reached = gradient.abs().sum(dim=(0, 1)).numpy() > 0
        for axis, cell in ((1, row), (0, column)):
            pixels = np.flatnonzero(reached.any(axis=axis))
            assert pixels[0] > 0
            assert (pixels[0] + pixels[-1] + 1) / 2 == trunk.offset + trunk.stride * cell


def test_a_shifted_image_shifts_the_map() -> None:
    """By a cell for each stride, away from the edges."""
    network = small_network("squeezenet1_0")
    stride = network.card.trunk.stride
    image = torch.randn((1, 3, 320, 320))
    with torch.inference_mode():
        maps, shifted = network.maps(image), network.maps(image[:, :, 2 * stride :, stride:])
    torch.testing.assert_close(shifted[:, :, 5:-5, 5:-5], maps[:, :, 7:-5, 6:-5], rtol=1e-4, atol=1e-5)


def test_layers_before_the_head_are_refused() -> None:
    network = NetworkSource.from_settings(NetworkSettings("shapenet", "random")).load()
    regions = torch.zeros((1, 96, 4, 4))
    with pytest.raises(BadSetting, match="shapenet: layer 'conv4' is not computed from 'pool4'; choose a later layer"):
        network.head(regions, ["fc5", "conv4"])
    with pytest.raises(BadSetting, match="shapenet has no layer 'fc7', did you mean"):
        network.head(regions, ["fc7"])
    assert torch.equal(network.head(regions, ["pool4"])["pool4"], regions.flatten(1))
