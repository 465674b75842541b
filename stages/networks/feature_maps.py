"""The trunk's maps of one image, at one scale or several: how they are computed and cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cache import Column, Record, Schema
from stages.contract.errors import BadSetting
from stages.contract.inputs import ItemReader, OnDemand
from stages.images.reading import Pixels
from stages.images.scale import image_scale, scaled_image
from stages.networks.cards import Preprocessing, Trunk
from stages.networks.network import Network
from stages.networks.source import NetworkSource


@dataclass(frozen=True)
class FeatureMaps:
    """The maps of one image at S scales: float16 or float32 [H, W, C] each.

    `scales` are the factors from the image's pixels to those of the network's input; `image_size` is the image's
    (width, height). `mirrored` are the maps of the mirrored image at the same scales, if they were asked for: not the
    plain maps mirrored, since a margin and strides need not be symmetric. An image that was skipped has size (0, 0) and
    maps without cells.
    """

    maps: tuple[NDArray[np.floating], ...]
    scales: tuple[float, ...]
    image_size: tuple[int, int]
    mirrored: tuple[NDArray[np.floating], ...] = ()

    def record(self) -> Record:
        """The maps as a record of `maps_schema`."""
        every = (*self.maps, *self.mirrored)
        return {
            "cells": np.concatenate([cells.reshape(-1, cells.shape[2]) for cells in every]),
            "map_size": np.array([cells.shape[1::-1] for cells in every], np.int32),
            "scale": np.array(self.scales, np.float64),
            "image_size": np.array(self.image_size, np.int32),
        }

    @staticmethod
    def of_record(record: Record) -> FeatureMaps:
        """The inverse of `record`."""
        cells, sizes = record["cells"], record["map_size"].tolist()
        ends = np.cumsum([width * height for width, height in sizes])
        parts = np.split(cells, ends[:-1])
        maps = tuple(
            part.reshape(height, width, cells.shape[1]) for part, (width, height) in zip(parts, sizes, strict=True)
        )
        width, height = record["image_size"].tolist()
        scales = tuple(record["scale"].tolist())
        return FeatureMaps(maps[: len(scales)], scales, (width, height), maps[len(scales) :])


class ComputedMaps(OnDemand):
    """Maps that are computed on demand, by the trunk of `source`."""

    source: NetworkSource


def border_of(maps: ItemReader) -> int:
    """The pixels of the mean colour around the scaled images that the maps were computed from, besides the trunk's
    margin."""
    return int(maps.manifest["summary"].get("border", 0))


def check_maps(stage: str, maps: ItemReader, source: NetworkSource, border: int = 0) -> None:
    """Raises BadSetting, for the `stage` that reads them, unless the `maps` are those of the network's trunk and of
    images with this `border`.

    Networks with the same trunk may have different heads. Trunks are compared only where the networks differ, as that
    may take reading their weights.
    """
    summary = maps.manifest["summary"]
    if border_of(maps) != border:
        raise BadSetting(f"{stage}: its maps have border = {border_of(maps)}, not {border}; give it maps that have")
    if summary["network"] == source.identity():
        return
    trunk = maps.source.trunk_identity() if isinstance(maps, ComputedMaps) else summary.get("trunk")
    if trunk is None:
        raise BadSetting(
            f"{stage}: its maps are those of another network, and their cache was written by an earlier version, which "
            "did not record the trunk; run maps again with --force, or give the same network to both"
        )
    if trunk != source.trunk_identity():
        raise BadSetting(
            f"{stage}: its maps are those of another network; give the same network to both, or two with the same "
            "trunk, in the inputs of the recipe's tables"
        )


def read_maps(maps: ItemReader, image_id: str) -> tuple[FeatureMaps, str]:
    """An image's maps, and why it was skipped ("" if it was not)."""
    read = FeatureMaps.of_record(maps.read(image_id))
    return read, maps.manifest.get("skipped", {}).get(image_id, "")


def maps_schema(trunk: Trunk, scales: int, dtype: str, mirrored: bool = False) -> Schema:
    """One row per cell of an image's maps, row by row, one map after another, those of the mirrored image last; per
    image the maps' sizes (width, height), the scales, and the image's own size (0, 0 if it was skipped)."""
    return Schema(
        item="image",
        rows={"cells": Column(dtype, (trunk.channels,))},
        per_item={
            "map_size": Column("int32", (2 * scales if mirrored else scales, 2)),
            "scale": Column("float64", (scales,)),
            "image_size": Column("int32", (2,)),
        },
    )


def compute_maps(
    pixels: Pixels,
    network: Network,
    sides: Sequence[int],
    longest: int,
    dtype: str,
    mirrored: bool = False,
    border: int = 0,
) -> FeatureMaps:
    """The trunk's maps of an image uint8 [H, W, 3], RGB, with its shorter side at each of `sides` pixels (the longer
    one at most `longest`), stored as `dtype`; if `mirrored`, those of the mirrored image too.

    The image gets the trunk's margin and `border` further pixels all around, in the mean colour. Values beyond the
    range of `dtype` become infinite.
    """
    height, width = pixels.shape[:2]
    scales = [image_scale(width, height, side, longest) for side in sides]
    maps, flipped = [], []
    for scale in scales:
        image = scaled_image(pixels, scale)
        maps.append(map_of(image, network, dtype, border))
        if mirrored:
            flipped.append(map_of(image[:, ::-1], network, dtype, border))
    return FeatureMaps(tuple(maps), tuple(scales), (width, height), tuple(flipped))


def map_of(image: NDArray[np.float32], network: Network, dtype: str, border: int = 0) -> NDArray[np.floating]:
    """The trunk's map [H', W', C], as `dtype`, of a scaled image float32 [H, W, 3], 0..255."""
    with torch.inference_mode():
        cells = network.maps(network_input(image, network, border))[0]
        return cells.to(getattr(torch, dtype)).permute(1, 2, 0).cpu().numpy()


def network_input(image: NDArray[np.float32], network: Network, border: int = 0) -> torch.Tensor:
    """A scaled image float32 [H, W, 3], 0..255, as the trunk's input, in its type: `prepared_image`."""
    return prepared_image(image, network.card.trunk, network.preprocessing, network.device, border).to(network.dtype)


def prepared_image(
    image: NDArray[np.float32],
    trunk: Trunk,
    preprocessing: Preprocessing,
    device: torch.device | str,
    border: int = 0,
) -> torch.Tensor:
    """A scaled image float32 [H, W, 3], 0..255, preprocessed, with the trunk's margin and `border` in the mean colour,
    and at least as large as the trunk needs: float32 [1, 3, H', W']."""
    own = np.array(image, order="C")  # a mirrored column counts as contiguous, and PyTorch takes no negative strides
    planes = torch.from_numpy(own).to(device).permute(2, 0, 1)
    before, after = (margin + border for margin in trunk.margin)
    below, right = (max(after, trunk.least_side - before - side) for side in image.shape[:2])
    padded = torch.nn.functional.pad(preprocessing.apply(planes), (before, right, before, below))
    return padded[None].to(memory_format=torch.channels_last)


def planes_of(cells: NDArray[np.floating], device: torch.device | str) -> torch.Tensor:
    """A stored map [H', W', C] as the layers after the trunk take it: float32 [C, H', W'], its channels last in
    memory."""
    return torch.from_numpy(cells).to(device).permute(2, 0, 1).to(torch.float32)
