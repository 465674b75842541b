"""What extract computes with a network, as a part of it for other runtimes."""

from __future__ import annotations

from typing import Any

import torch

from stages.boxes import Boxes
from stages.contract.errors import StageError
from stages.extract import DENSE, Settings
from stages.images.warp import warp_batches
from stages.networks.dense_reading import windows_of
from stages.networks.feature_maps import FeatureMaps, planes_of
from stages.networks.network import Network
from stages.networks.parts import Crops, NetworkPart, Regions, Windows, about_network
from stages.networks.roi_pooling import map_regions

FEW = 8
"""Regions of an image that a part is given."""


def network_part(
    cut_from: torch.Tensor | FeatureMaps, boxes: Boxes, network: Network, settings: Settings, border: int
) -> NetworkPart:
    """The part of the network that computes the layers of `settings`, with FEW of the regions `boxes` of an image: its
    pixels uint8 [H, W, 3], or its maps, made with this `border`. Raises StageError for an image with too few regions,
    and for windows that need other scales."""
    if isinstance(cut_from, torch.Tensor):
        return crops_part(cut_from, enough(boxes), network, settings)
    if settings.method == DENSE:
        return windows_part(cut_from, network, settings, border)
    return regions_part(cut_from, enough(boxes), network, settings)


def enough(boxes: Boxes) -> Boxes:
    """FEW of the boxes. Raises StageError for fewer than two, which would not show what may be free."""
    if len(boxes) < 2:
        raise StageError("extract: the image has fewer than two regions to try the network on; choose another image")
    return boxes[:FEW]


def crops_part(pixels: torch.Tensor, boxes: Boxes, network: Network, settings: Settings) -> NetworkPart:
    """The whole network, of warped crops."""
    planes, size = pixels.permute(2, 0, 1), network.input_size
    crops = next(warp_batches(planes, boxes, size, settings.mode, settings.padding, network.preprocessing, len(boxes)))
    about = {
        **about_network(network),
        "crops": f"float32 [N, 3, {size}, {size}]: regions of the image, cut out as R-CNN does, preprocessed",
        "mode": settings.mode,
        "padding": settings.padding,
        **described_outputs(network, settings),
    }
    given = {"crops": crops.contiguous()}
    return NetworkPart("crops", Crops(network, settings.layers), given, settings.layers, {"crops": {0: "n"}}, about)


def regions_part(maps: FeatureMaps, boxes: Boxes, network: Network, settings: Settings) -> NetworkPart:
    """Regions pooled from the map at the first scale, and the layers after the pooling."""
    card = network.card
    regions = map_regions(boxes, maps.scales[:1], card.trunk, card.input_size, settings.pooling)
    exact = settings.pooling == "max"
    corners = (
        "the first and last cell of each region: its corners, inclusive, in pixels of the scaled image, divided by the "
        "stride and rounded"
        if exact
        else "the corners of each region in units of cells: (pixels of the scaled image - first centre) / stride + 0.5"
    )
    about = {
        **about_network(network),
        "maps": "the map of the part maps",
        "regions": f"float32 [N, 4], x1 y1 x2 y2: {corners}",
        "stride": card.trunk.stride,
        "first_centre": card.trunk.first_centre,
        "pooling": f"{settings.pooling}, to {card.head.side} x {card.head.side} cells",
        **described_outputs(network, settings),
    }
    given = {
        "maps": planes_of(maps.maps[0], "cpu")[None].contiguous(),
        "regions": torch.from_numpy(regions.corners.astype("float32")),
    }
    free = {"maps": {2: "rows", 3: "columns"}, "regions": {0: "n"}}
    return NetworkPart(
        "regions", Regions(network, settings.layers, settings.pooling), given, settings.layers, free, about
    )


def windows_part(maps: FeatureMaps, network: Network, settings: Settings, border: int) -> NetworkPart:
    """The layers of windows cut out of the first map that has some."""
    if network.card.takes_context:
        raise StageError("extract: a window is seen together with one of the next lower scale; that cannot be exported")
    windows = windows_of(network.card)
    cells = next(cells for cells in maps.maps if min(windows.on_map(*cells.shape[:2])) > 1)
    planes, side, first = planes_of(cells, "cpu"), windows.cells, windows.begin - network.card.trunk.margin[0] - border
    cut = planes.unfold(1, side, 1).unfold(2, side, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    about = {
        **about_network(network),
        "windows": f"float32 [N, {planes.shape[0]}, {side}, {side}]: squares of cells of the part maps, one at every "
        f"cell: {windows.pixels} pixels of the scaled image, the first begins at {first:g}. Layers that pad their "
        "input see zeros there, where rcnn, which reads the whole map at once, sees the window's neighbours",
        "stride": windows.stride,
        **described_outputs(network, settings),
    }
    given = {"windows": cut[:: max(1, len(cut) // FEW)].contiguous()}
    return NetworkPart(
        "windows", Windows(network, settings.layers), given, settings.layers, {"windows": {0: "n"}}, about
    )


def described_outputs(network: Network, settings: Settings) -> dict[str, Any]:
    """The shape of each layer."""
    return {name: f"float32 [N, {network.layers[name]}]" for name in settings.layers}
