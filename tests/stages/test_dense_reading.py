"""A network read densely equals the loop over offsets and, where nothing is padded, the network on every window."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stages.contract.errors import BadSetting
from stages.networks import EDGES, NETWORKS, SOFTMAX
from stages.networks.architectures import build
from stages.networks.dense_reading import (
    Context,
    Dense,
    LowerScale,
    NotDense,
    Windows,
    check_dense,
    dense_outputs,
    map_windows,
    next_lower,
    pads,
    windows_of,
)
from stages.networks.feature_maps import FeatureMaps
from stages.networks.heads import Heads, RegionHead, WindowHead
from stages.networks.network import Network

NEW = Heads(windows=WindowHead((6,), True, (20, 10), pool=2, side=3, scale=0.5))
OWN = Heads(windows=WindowHead((8, 6)))
CONTEXT = Heads(windows=WindowHead((6,), True, (20, 10), pool=2, side=3, scale=0.5, context=True))


def network(name: str, heads: Heads | None = None, classes: int = 4) -> Network:
    torch.manual_seed(0)
    card = NETWORKS[name].with_heads(heads) if heads else NETWORKS[name]
    return Network(card, build(card, classes), classes, card.preprocessing)


def some_maps(read: Network, rows: int, columns: int) -> tuple[torch.Tensor, int]:
    """The map of an image with `rows` x `columns` windows, and the cells of a window."""
    cells = windows_of(read.card).cells
    return torch.rand(1, read.card.trunk.channels, cells + rows - 1, cells + columns - 1), cells


def assert_equal_to_windows(read: Network, maps: torch.Tensor, cells: int, layers: list[str]) -> None:
    """Every window cut out of the map and passed through the rest of the network alone."""
    rows, columns = maps.shape[2] - cells + 1, maps.shape[3] - cells + 1
    windows = [maps[:, :, y : y + cells, x : x + cells] for y in range(rows) for x in range(columns)]
    with torch.inference_mode():
        dense = dense_outputs(read, maps, layers, cells)
        alone = read.outputs(torch.cat(windows), read.card.trunk.layer, layers)
    for layer in layers:
        assert dense[layer].windows == (rows, columns)
        values, expected = dense[layer].every(), alone[layer].flatten(1)
        assert values.shape == expected.shape
        torch.testing.assert_close(values, expected, atol=2e-6 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize(
    ("name", "heads", "layers"),
    [
        ("shapenet", None, ["pool4", "fc5", "fc6", SOFTMAX]),
        ("shapenet", OWN, ["fc5", SOFTMAX, EDGES]),
        ("shapenet", NEW, ["roi_pool", "fc6", "fc7", SOFTMAX, EDGES]),
        ("squeezenet1_0", None, ["fire9_2x2", "fire9_3x3", "pool10", SOFTMAX]),
        ("squeezenet1_0", NEW, [SOFTMAX, EDGES]),
        ("efficientnet_lite0", NEW, [SOFTMAX, EDGES]),
    ],
)
def test_every_window_is_the_network_on_it(name: str, heads: Heads | None, layers: list[str]) -> None:
    read = network(name, heads)
    maps, cells = some_maps(read, 4, 3)
    assert_equal_to_windows(read, maps, cells, layers)


def test_a_window_with_context_is_the_network_on_both_scales() -> None:
    """Each window beside any one of another map, cut out, pooled and joined by hand."""
    read = network("shapenet", CONTEXT)
    check_dense(read.card, [SOFTMAX, EDGES])
    maps, cells = some_maps(read, 3, 4)
    below, _ = some_maps(read, 2, 3)
    lower = LowerScale(below, torch.tensor([0, 1, 1]), torch.tensor([2, 0, 0, 1]))
    layers = ["roi_pool", "fc6", "fc7", SOFTMAX, EDGES]

    def pooled(values: torch.Tensor, y: int, x: int) -> torch.Tensor:
        return nn.functional.max_pool2d(values[:, :, y : y + cells, x : x + cells], 2)

    joined = [
        torch.cat([pooled(maps, y, x), pooled(below, int(lower.rows[y]), int(lower.columns[x]))], dim=1)
        for y, x in np.ndindex(3, 4)
    ]
    with torch.inference_mode():
        dense = dense_outputs(read, maps, layers, cells, lower)
        alone = read.head(torch.cat(joined), layers[1:])
        some = dense["roi_pool"].of(torch.tensor([2, 0]), torch.tensor([1, 3]))
    assert torch.equal(dense["roi_pool"].every(), torch.cat(joined).flatten(1))
    assert torch.equal(some, torch.cat([joined[9], joined[3]]))
    assert torch.equal(dense["roi_pool"].every(2), torch.cat([joined[0], joined[2], joined[8], joined[10]]).flatten(1))
    for layer in layers[1:]:
        assert dense[layer].every().shape == (12, read.layers[layer])
        torch.testing.assert_close(dense[layer].every(), alone[layer], atol=1e-6, rtol=1e-5)


def test_an_operation_that_does_not_know_of_context_is_refused() -> None:
    dense = Dense(torch.zeros(1, 2, 3, 3), 1)
    joined = Dense(torch.zeros(1, 2, 3, 3), 1, context=Context(dense, torch.arange(3), torch.arange(3)))
    assert torch.relu(dense).context is None  # type: ignore[arg-type, attr-defined]
    with pytest.raises(NotDense):
        torch.relu(joined)  # type: ignore[arg-type]
    of_both_scales = torch.zeros(5, 4)
    assert nn.functional.linear(joined, of_both_scales).values.shape == (1, 5, 3, 3)  # type: ignore[arg-type, attr-defined]
    with pytest.raises(RuntimeError, match="channels"):  # rather than half of the weights in silence
        nn.functional.linear(dense, of_both_scales)  # type: ignore[arg-type]


def test_the_nearest_window_of_the_next_lower_scale_by_hand() -> None:
    """Windows of 64 pixels, 8 apart, in an image that lies 16 pixels inside its input: centred on pixels 16, 24, ... of
    the scaled image, so on 8, 12, 16, 20, 24 at scale 2, and on 16 and 24, or 32, 48 and 64, at scales 1 and 1/2."""
    windows = windows_of(NETWORKS["shapenet"])
    rows, columns = windows.nearest((2.0, 1.0), (12, 9), (9, 8), 16)
    assert rows.tolist() == [0, 0, 0, 1, 1]
    assert columns.tolist() == [0, 0]
    assert windows.nearest((1.0, 0.5), (8, 16), (8, 10), 16)[1].tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    maps = [torch.zeros(1, 96, side, side) for side in (12, 7, 9, 8)]
    assert windows.lower_scale(maps, (2.0, 1.5, 1.0, 0.5), 0, 16).maps is maps[2]
    assert windows.lower_scale(maps, (2.0, 1.5, 1.0, 0.5), 2, 16).maps is maps[3]
    lowest = windows.lower_scale(maps, (2.0, 1.5, 1.0, 0.5), 3, 16)
    assert (lowest.maps is maps[3], lowest.rows.tolist(), lowest.columns.tolist()) == (True, [0], [0])
    itself = windows.lower_scale(maps[:1], (2.0,), 0, 16)
    assert itself.rows.tolist() == [0, 1, 2, 3, 4]


def test_of_equal_scales_none_is_the_lower_one() -> None:
    assert next_lower((1.0, 1.0, 0.5), 0, range(3)) == 2
    assert next_lower((1.0, 1.0), 1, range(2)) == 1
    assert next_lower((0.5, 2.0, 1.0), 1, [0, 1]) == 0


def test_pooling_that_overlaps() -> None:
    """3 x 3 at stride 2: two offsets, and windows of 3 + 5 x 2 = 13 cells."""
    assert windows_of(NETWORKS["alexnet"]) == Windows(13, 224, 0.0, 16, 2)
    assert windows_of(NETWORKS["tnet"]) == Windows(13, 227, 0.0, 16, 2)
    with torch.device("meta"):
        module = build(NETWORKS["alexnet"], 4)  # pooling has no weights
    read = Network(NETWORKS["alexnet"], module, 4, NETWORKS["alexnet"].preprocessing)
    assert_equal_to_windows(read, torch.rand(1, 256, 16, 14), 13, ["pool5"])


@pytest.mark.parametrize(
    ("name", "layer", "margin"),
    [("resnet50", "layer4", 4), ("efficientnet_lite0", "stage8", 6), ("shapenet", "fc5", 0)],
)
def test_it_equals_the_loop_over_offsets(name: str, layer: str, margin: int) -> None:
    """The rest of the network on the map without its first rows and columns, at each offset (OverFeat section 3.3, a to
    e). Where convolutions pad, away from the edges."""
    read = network(name)
    card, size = read.card, 28
    cells, step = windows_of(card).cells, windows_of(card).step
    maps = torch.rand(1, card.trunk.channels, size, size)
    with torch.inference_mode():
        dense = dense_outputs(read, maps, [layer], cells)[layer]
        for dy, dx in np.ndindex(step, step):
            moved = maps[:, :, dy : size - step + dy, dx : size - step + dx]
            if name == "shapenet":  # fc5 as a convolution, by hand
                kernel = read.module.fc5.weight.view(256, 96, 4, 4)
                pooled = nn.functional.max_pool2d(moved, 2)
                expected = torch.relu(nn.functional.conv2d(pooled, kernel, read.module.fc5.bias))
            else:
                expected = read.outputs(moved, card.trunk.layer, [layer])[layer]
            units = dense.values[:, :, dy::step, dx::step]
            height, width = (
                min(first, second) for first, second in zip(units.shape[2:], expected.shape[2:], strict=True)
            )
            inside = (slice(None), slice(None), slice(margin, height - margin), slice(margin, width - margin))
            torch.testing.assert_close(units[inside], expected[inside], atol=1e-5, rtol=1e-5)
    assert dense.dilation == step


def test_coarse_windows_are_every_second_of_the_fine_ones() -> None:
    read = network("shapenet")
    maps, cells = some_maps(read, 5, 4)
    with torch.inference_mode():
        dense = dense_outputs(read, maps, [SOFTMAX, "pool4"], cells)
    for layer in dense.values():
        fine = layer.every().view(5, 4, -1)
        assert torch.equal(layer.every(2), fine[::2, ::2].reshape(6, -1))
    windows = windows_of(read.card)
    every = windows.boxes(12, 11, 16).reshape(5, 4, 4)
    np.testing.assert_array_equal(windows.boxes(12, 11, 16, step=2), every[::2, ::2].reshape(6, 4))


def test_boxes_by_hand() -> None:
    """ShapeNet: 64 pixels, 8 apart; the image lies 16 pixels inside its input and enters at twice its size."""
    windows = windows_of(NETWORKS["shapenet"])
    assert windows == Windows(8, 64, 0.0, 8, 2)
    assert windows.boxes(9, 8, 16).tolist() == [[-16, -16, 48, 48], [-16, -8, 48, 56]]
    assert windows.boxes(7, 20, 0).shape == (0, 4)
    assert windows.places(9, 10).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    maps = FeatureMaps((np.zeros((8, 9, 96)), np.zeros((7, 9, 96)), np.zeros((9, 8, 96))), (2.0, 1.0, 0.5), (40, 32))
    boxes, levels = map_windows(maps, NETWORKS["shapenet"], 16, fine=True)
    assert levels.tolist() == [0, 0, 2, 2]
    assert boxes.tolist() == [[-8, -8, 24, 24], [-4, -8, 28, 24], [-32, -32, 96, 96], [-32, -16, 96, 112]]
    assert map_windows(maps, NETWORKS["shapenet"], 16, fine=False)[1].tolist() == [0, 2]


def test_windows_of_new_layers_lie_where_their_cells_do() -> None:
    """SqueezeNet's first cell is centred 17.5 pixels inside the input, six cells of 16 pixels 57.5 inside."""
    assert windows_of(NETWORKS["squeezenet1_0"].with_heads(NEW)) == Windows(6, 96, 9.5, 16, 2)
    assert windows_of(NETWORKS["squeezenet1_0"]) == Windows(13, 227, 0.0, 16, 1)


@pytest.mark.parametrize(
    ("name", "padded"),
    [
        ("shapenet", False),
        ("squeezenet1_0", False),
        ("overfeat-fast", False),
        ("resnet50", True),
        ("efficientnet_lite0", True),
    ],
)
def test_which_networks_pad_after_their_trunk(name: str, padded: bool) -> None:
    """Of their own layers; new ones never do."""
    assert pads(NETWORKS[name], SOFTMAX) is padded
    assert pads(NETWORKS[name].with_heads(NEW), SOFTMAX) is False


def test_places_of_single_windows() -> None:
    values = torch.arange(2 * 5 * 6, dtype=torch.float32).view(1, 2, 5, 6)
    dense = Dense(values, 2, 3)
    assert dense.windows == (2, 3)
    (window,) = dense.of(torch.tensor([1]), torch.tensor([2]))
    assert window.tolist() == [[[8, 11], [26, 29]], [[38, 41], [56, 59]]]
    assert torch.equal(dense.every()[5], window.flatten())


@pytest.mark.parametrize(
    ("card", "layers", "words"),
    [
        (NETWORKS["zf"], [SOFTMAX], "layer 'pool5' of zf cannot be read densely"),
        (NETWORKS["tnet"], ["conv3"], "layer 'conv3' is not computed from 'conv5'"),
        (NETWORKS["shapenet"].with_heads(Heads(regions=RegionHead("align", 3, (20,)))), [SOFTMAX], "read densely"),
    ],
)
def test_networks_and_layers_that_cannot_be_read_densely(card, layers, words) -> None:
    with pytest.raises(BadSetting, match=words):
        check_dense(card, layers)
