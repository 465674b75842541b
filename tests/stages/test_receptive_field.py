"""Receptive fields: by hand, against gradients, and against changing the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stages.contract.errors import BadSetting
from stages.networks import NETWORKS
from stages.networks.architectures import build, steps_of, tnet
from stages.networks.receptive_field import NotAMap, receptive_fields


def maps_of(network: str, layer: str, module: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """The layer's maps [N, C, H, W], computed by the network itself."""
    card = NETWORKS[network]
    steps = steps_of(card, module)
    values: dict[str | None, torch.Tensor] = {None: batch}
    for name in card.needed([layer]):
        values[name] = steps[name](values[card.layers[name].parent])
    return values[layer]


def test_tnet_pool5_is_the_papers() -> None:
    """Section 3.1: pool5 is 6 x 6 x 256; a unit sees 195 x 195 of 227 x 227 pixels with a stride of 32, less at the
    edges. By hand: 11 + 2 x 4 = 19, + 4 x 8 = 51, + 2 x 8 = 67, + 3 x (2 x 16) = 163, + 2 x 16 = 195."""
    fields = receptive_fields("tnet", "pool5")
    assert fields.shape == (256, 6, 6)
    assert fields.rows.tolist() == [[0, 131], [0, 163], [0, 195], [32, 227], [64, 227], [96, 227]]
    np.testing.assert_array_equal(fields.columns, fields.rows)
    assert fields.box(2, 3) == (32, 0, 227, 195)


def test_other_layers_by_hand() -> None:
    assert receptive_fields("tnet", "conv1").rows[[0, 1, 54]].tolist() == [[0, 11], [4, 15], [216, 227]]
    # 5 at stride 2, 7 pooled; 15, 19 pooled; 35, 51, 59 pooled: at stride 16, from -22 on
    assert receptive_fields("shapenet", "pool4").rows.tolist() == [[0, 37], [0, 53], [10, 64], [26, 64]]
    # VGG-16: 212 pixels at stride 32, from -90 on
    assert receptive_fields("onet", "pool5").rows[[0, 3, 6]].tolist() == [[0, 122], [6, 218], [102, 224]]
    assert receptive_fields("onet", "conv1_2").rows[[0, 1, 9]].tolist() == [[0, 3], [0, 4], [7, 12]]
    # ZF: Faster R-CNN's 171 pixels are those of 3 x 3 positions of conv5, 139 of one; normalising within maps adds 20
    conv5, pool5 = receptive_fields("zf", "conv5").rows, receptive_fields("zf", "pool5").rows
    assert conv5[7, 1] - conv5[7, 0] == 139 + 20
    assert conv5[8, 0] - conv5[7, 0] == 16
    bins = [(0, 2), (2, 4), (5, 7), (7, 9), (10, 12), (12, 14)]  # of 15 positions
    assert pool5.tolist() == [[conv5[first, 0], conv5[last, 1]] for first, last in bins]


@pytest.mark.parametrize(
    ("network", "layer"),
    [("shapenet", "pool4"), ("squeezenet1_0", "fire9_3x3"), ("squeezenet1_0", "fire9_2x2"), ("tnet", "pool5")],
)
def test_gradients_reach_just_the_field(network: str, layer: str) -> None:
    """What a unit's gradient reaches, over all channels and some random images, is its field and no pixel more."""
    torch.manual_seed(0)
    card = NETWORKS[network]
    module = (tnet(2, width=4) if network == "tnet" else build(card, 2)).eval()
    fields = receptive_fields(network, layer)
    for y, x in {(0, 0), (fields.shape[1] // 2, 1), (fields.shape[1] - 1, fields.shape[2] - 1)}:
        batch = torch.randn(3, 3, card.input_size, card.input_size, requires_grad=True)
        maps = maps_of(network, layer, module, batch)
        assert tuple(maps.shape[1:]) == fields.shape
        (gradient,) = torch.autograd.grad(maps[:, :, y, x].sum(), batch)
        reached = gradient.abs().sum(dim=(0, 1)).numpy() > 0
        rows, columns = np.flatnonzero(reached.any(axis=1)), np.flatnonzero(reached.any(axis=0))
        assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == fields.box(y, x)


def test_what_lies_outside_the_field_changes_nothing() -> None:
    """Of the demo's network: a unit is the same whatever is outside, and another where the inside is changed."""
    torch.manual_seed(1)
    module = build(NETWORKS["shapenet"], 10).eval()
    fields = receptive_fields("shapenet", "pool4")
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = maps_of("shapenet", "pool4", module, image)[0]
        for y in range(4):
            for x in range(4):
                left, top, right, bottom = fields.box(y, x)
                outside, inside = torch.randn(1, 3, 64, 64), image.clone()
                outside[..., top:bottom, left:right] = image[..., top:bottom, left:right]
                inside[..., top:bottom, left:right] = torch.randn(3, bottom - top, right - left)
                after = maps_of("shapenet", "pool4", module, torch.cat([outside, inside]))[:, :, y, x]
                torch.testing.assert_close(after[0], before[:, y, x], rtol=1e-5, atol=1e-6)
                assert (after[1] - before[:, y, x]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("network", "layer"), [("shapenet", "fc5"), ("tnet", "fc7"), ("alexnet", "fc6"), ("tnet", "softmax")]
)
def test_a_layer_without_places_is_no_map(network: str, layer: str) -> None:
    with pytest.raises(NotAMap) as error:
        receptive_fields(network, layer)
    assert str(error.value) == f"layer '{layer}' of {network} is not a convolutional map"


def test_an_unknown_layer_or_operation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSetting, match="tnet has no layer 'pool6', did you mean 'pool5'"):
        receptive_fields("tnet", "pool6")
    receptive_fields.cache_clear()
    monkeypatch.setattr("stages.networks.receptive_field.POINTWISE", (nn.ReLU,))
    with pytest.raises(BadSetting, match="of shapenet: the receptive field of 'BatchNorm2d' is not known"):
        receptive_fields("shapenet", "pool4")
    receptive_fields.cache_clear()
