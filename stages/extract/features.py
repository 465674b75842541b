"""From an image, or its maps, and its boxes to features."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from stages.boxes import Boxes
from stages.contract.settings import check_device
from stages.extract import Settings, check_layers, check_ranks
from stages.images.reading import Pixels
from stages.images.warp import MaskOf, warp_batches
from stages.networks import DELTAS, EDGES, SOFTMAX, NetworkSource
from stages.networks.dense_reading import dense_outputs, windows_of
from stages.networks.feature_maps import FeatureMaps, planes_of
from stages.networks.network import Network
from stages.networks.precision import arithmetic, load, loaded, not_finite
from stages.networks.roi_pooling import map_regions, pooled_regions
from stages.networks.truncated_svd import TruncatedLayers, decomposed, with_truncated_layers

log = logging.getLogger("stages.extract")

Features = dict[str, NDArray[np.floating]]
CPU_BATCH = 32
CUDA_BATCH = 512


def default_batch_size(device: str) -> int:
    """Regions per forward pass, unless the user sets it."""
    return CUDA_BATCH if device.startswith("cuda") else CPU_BATCH


def layer_dimensions(settings: Settings, network: NetworkSource) -> dict[str, int]:
    """The dimension of each layer in `settings`. Raises BadSetting if these do not fit the network."""
    check_layers(settings, network.card)
    check_ranks(settings, network.card, network.layers)
    return {name: network.layers[name] for name in settings.layers}


def stored_dtype(settings: Settings, layer: str) -> str:
    """The type a layer is stored in: float32 for probabilities, which float16 could not tell apart near 1, and for box
    deltas and edges, which are coordinates."""
    return "float32" if layer in (SOFTMAX, DELTAS, EDGES) else settings.dtype


def load_network(source: NetworkSource, settings: Settings, device: str) -> Network:
    """The network in `settings.precision`. Raises BadSetting if `device` does not support it."""
    check_device(settings, device, "extract.")
    return load(source, settings.precision, device)


def network_of(source: NetworkSource, settings: Settings, device: str, layers: TruncatedLayers | None) -> Network:
    """As `load_network`, but loaded once per process, and with the `layers` that `truncated_layers` made of it."""
    check_device(settings, device, "extract.")
    if layers is None:
        return loaded(source, settings.precision, device)
    return loaded_and_truncated(source, settings.precision, device, layers)


@functools.lru_cache(maxsize=1)
def loaded_and_truncated(source: NetworkSource, precision: str, device: str, layers: TruncatedLayers) -> Network:
    """The network with truncated layers, once per process."""
    return with_truncated_layers(loaded(source, precision, device), layers)


def truncated_layers(source: NetworkSource, settings: Settings, device: str) -> TruncatedLayers | None:
    """The decomposed weights of the layers in `truncated_svd`; None if there are none.

    Computed in the process that gives out the work, once for all splits. Raises as `load_network`, and StageError for
    weights that are not finite.
    """
    if not settings.truncated_svd:
        return None
    check_device(settings, device, "extract.")
    return decomposed_once(source, settings.precision, device, tuple(settings.ranks.items()))


@functools.lru_cache(maxsize=1)
def decomposed_once(
    source: NetworkSource, precision: str, device: str, ranks: tuple[tuple[str, int], ...]
) -> TruncatedLayers:
    """As `decomposed`, once per process; says so, as it may take minutes."""
    names, started = " and ".join(name for name, _ in ranks), time.monotonic()
    log.info("truncated_svd: decomposing %s", names)
    with arithmetic(precision, device):
        layers = decomposed(load(source, precision, device), dict(ranks))
    log.info("truncated_svd: decomposed %s in %.1f s", names, time.monotonic() - started)
    return layers


def extract_features(
    image: Pixels | torch.Tensor,
    boxes: Boxes,
    network: Network,
    settings: Settings,
    batch_size: int | None = None,
    mask_of: MaskOf | None = None,
) -> Features:
    """Features of the boxes [N, 4] of one image: for each layer of `settings`, float16 or float32 [N, D].

    `image` is uint8 [H, W, 3], RGB (a tensor may be pinned). Regions are warped and run through the network in batches
    on its device; a batch never mixes regions of two images. With `mask_of`, which gives the mask of each box by its
    row, bool [h, w], of the image at any scale, the network sees the mean colour outside it. Raises StageError if a
    feature overflows the stored type. Call it inside `arithmetic` if the result must not depend on the number of
    threads.
    """
    size = batch_size or default_batch_size(str(network.device))
    pixels = image if isinstance(image, torch.Tensor) else torch.from_numpy(image)
    planes = pixels.to(network.device, non_blocking=True).permute(2, 0, 1)
    with torch.inference_mode():
        batches = warp_batches(
            planes,
            boxes,
            network.input_size,
            settings.mode,
            settings.padding,
            network.preprocessing,
            size,
            network.dtype,
            mask_of,
        )
        return collected((network.forward(batch, settings.layers) for batch in batches), network, settings)


def pooled_features(
    maps: FeatureMaps, boxes: Boxes, network: Network, settings: Settings, batch_size: int | None = None
) -> Features:
    """As `extract_features`, with the regions pooled from the image's maps instead of cut out of its pixels.

    The network continues from a pooled region as if it were its whole map. Of boxes that cover the same cells, one is
    computed.
    """
    card, size = network.card, batch_size or default_batch_size(str(network.device))
    regions = map_regions(boxes, maps.scales, card.trunk, card.input_size, settings.pooling)
    planes = [planes_of(cells, network.device).contiguous() for cells in maps.maps]
    with torch.inference_mode():
        batches = pooled_regions(planes, regions, card.head.side, settings.pooling, size)
        outputs = (network.head(batch.to(network.dtype), settings.layers) for batch in batches)
        features = collected(outputs, network, settings)
    return {name: values[regions.inverse] for name, values in features.items()}


def dense_features(maps: FeatureMaps, network: Network, settings: Settings, border: int) -> Features:
    """As `extract_features`, of the windows of all maps of an image, in the order of `map_windows`; `border` is the
    setting of the maps."""
    windows = windows_of(network.card)
    step = 1 if settings.fine else windows.step
    planes = [planes_of(cells, network.device)[None].to(network.dtype) for cells in maps.maps]
    margin = network.card.trunk.margin[0] + border
    with torch.inference_mode():
        dense = (
            dense_outputs(
                network, cells, settings.layers, windows.cells, windows.lower_scale(planes, maps.scales, level, margin)
            )
            for level, cells in enumerate(planes)
            if min(windows.on_map(*cells.shape[2:]))
        )
        outputs = ({name: layer.every(step) for name, layer in level.items()} for level in dense)
        return collected(outputs, network, settings)


def collected(outputs: Iterable[dict[str, torch.Tensor]], network: Network, settings: Settings) -> Features:
    """The outputs of batches of regions, each layer in the type it is stored in. Raises StageError if one overflows."""
    batches: dict[str, list[torch.Tensor]] = {name: [] for name in settings.layers}
    for output in outputs:
        for name, values in output.items():
            batches[name].append(values.to(getattr(torch, stored_dtype(settings, name))))
    return {
        name: gathered(name, parts, network.layers[name], stored_dtype(settings, name))
        for name, parts in batches.items()
    }


def gathered(layer: str, batches: Sequence[torch.Tensor], dimension: int, dtype: str) -> NDArray[np.floating]:
    """The batches of one layer as one array [N, dimension]. Raises StageError unless all values are finite."""
    if not batches:
        return np.zeros((0, dimension), dtype)
    values = torch.cat(list(batches))
    if not bool(torch.isfinite(values).all()):
        raise not_finite("extract", f"features of layer '{layer}'", dtype)
    return values.cpu().numpy()
