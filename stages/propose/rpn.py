"""Proposals of a region proposal network, from the map that it shares with the detector (Faster R-CNN section 3.3)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cache import Record, Schema
from stages.anchors import anchors_of_map, cell_anchors
from stages.boxes import Boxes, clip_boxes
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs, ItemReader, OnDemand
from stages.detections.region_proposals import Limits, anchor_steps, region_proposals
from stages.images.scale import scaled_size
from stages.networks import NetworkSource
from stages.networks.feature_maps import FeatureMaps, check_maps, planes_of, read_maps
from stages.networks.network import Network
from stages.networks.parts import Anchors, NetworkPart, about_network
from stages.networks.precision import arithmetic, load_first, loaded
from stages.propose import Settings
from stages.propose.anchor_trace import AnchorTrace
from stages.propose.selection import uniform_numbers

PRECISION = "float32"
"""Of the region proposal network; the trunk's is that of the maps."""


def of_maps(settings: Settings, inputs: Inputs, execution: Execution, schema: Schema) -> OnDemand:
    """The proposals of every image, computed when they are read.

    Raises BadSetting for maps of another trunk and StageError for weights that cannot be loaded.
    """
    source, maps = inputs.network("rpn"), inputs.item_reader("maps")
    source.card.check_proposals()
    check_maps("propose", maps, source)
    if not execution.device.startswith("cuda"):
        load_first(source, PRECISION, execution)
    return NetworkProposals(settings, source, maps, execution, schema)


def network_parts(settings: Settings, inputs: Inputs, image_id: str) -> list[NetworkPart]:
    """The region proposal network, with the map of this image."""
    network = inputs.network("rpn").load()
    maps, _ = read_maps(inputs.item_reader("maps"), image_id)
    head, trunk = network.card.check_proposals(), network.card.trunk
    about = {
        **about_network(network),
        "maps": "the map of the part maps",
        "anchors": "n = H x W x A boxes in pixels of the scaled image, row by row, the A of a cell together: those of "
        "the first cell, moved by the stride from cell to cell",
        "anchors_of_first_cell": cell_anchors(trunk.stride, head.scales, head.ratios).tolist(),
        "stride": trunk.stride,
        "objectness": "float32 [n]: the probability of an object",
        "deltas": "float32 [n, 4]: of the centre in units of the anchor's sides, and logarithms of the sides' ratios",
    }
    cells = {"maps": planes_of(maps.maps[0], "cpu")[None].contiguous()}
    free = {"maps": {2: "rows", 3: "columns"}}
    return [NetworkPart("rpn", Anchors(network), cells, ("objectness", "deltas"), free, about)]


class NetworkProposals(OnDemand):
    """The proposals of each image whose map can be read; skipped images have none."""

    def __init__(
        self, settings: Settings, source: NetworkSource, maps: ItemReader, execution: Execution, schema: Schema
    ) -> None:
        self.settings = settings
        self.source = source
        self.maps = maps
        self.execution = execution
        self.schema = schema
        self.manifest = {"skipped": {}, "summary": {}}

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The images whose maps can be read."""
        return self.maps.item_ids

    def record(self, item_id: str) -> Record:
        """One image's record. Raises BadImage unless bad images are skipped, StageError for outputs that are not
        finite."""
        maps, reason = read_maps(self.maps, item_id)
        if reason:
            self.manifest["skipped"][item_id] = reason
            return self.schema.empty()
        device = self.execution.device
        with arithmetic(PRECISION, device):
            return proposals_of(maps, loaded(self.source, PRECISION, device), self.settings, item_id)

    def trace(self, image_id: str) -> AnchorTrace | None:
        """What becomes of the anchors of one image; None if it is skipped. Raises as `record`."""
        maps, reason = read_maps(self.maps, image_id)
        if reason:
            return None
        device = self.execution.device
        with arithmetic(PRECISION, device):
            return traced_anchors(maps, loaded(self.source, PRECISION, device), self.settings, image_id)


def proposals_of(maps: FeatureMaps, network: Network, settings: Settings, image_id: str) -> Record:
    """The record of one image, given its maps at one scale: boxes in pixels of the image, by falling score."""
    scale, (width, height) = maps.scales[0], maps.image_size
    anchors, deltas, scores = anchor_outputs(maps, network, settings, image_id)
    input_size = scaled_size(width, height, scale)
    boxes, kept = region_proposals(anchors, deltas, scores, *input_size, **limits_of(settings, scale))
    return {
        "boxes": clip_boxes(boxes / np.float32(scale), width, height),
        "scores": kept,
        "image_size": np.array([width, height], np.int32),
    }


def traced_anchors(maps: FeatureMaps, network: Network, settings: Settings, image_id: str) -> AnchorTrace:
    """What becomes of the anchors of one image, given its maps at one scale."""
    scale, image_size = maps.scales[0], maps.image_size
    anchors, deltas, scores = anchor_outputs(maps, network, settings, image_id)
    input_size = scaled_size(*image_size, scale)
    steps = anchor_steps(anchors, deltas, scores, *input_size, **limits_of(settings, scale))
    per_cell = network.card.check_proposals().anchors
    return AnchorTrace(anchors, per_cell, scores, steps, scale, image_size, input_size)


def limits_of(settings: Settings, scale: float) -> Limits:
    """What is left of the anchors of an image that enters the network scaled by `scale`."""
    return {
        "least_side": settings.least_side * scale,
        "before_suppression": settings.before_suppression,
        "iou": settings.suppression_iou if settings.suppression_iou < 1 else None,
        "at_most": settings.max_boxes,
    }


def anchor_outputs(
    maps: FeatureMaps, network: Network, settings: Settings, image_id: str
) -> tuple[Boxes, NDArray[np.floating], NDArray[np.float32]]:
    """(the anchors of one image, float32 [n, 4] in pixels of the network's input; the deltas that they are moved by,
    [n, 4]; the scores that they are ranked by, float32 [n]). Raises StageError for outputs that are not finite."""
    cells, (width, height) = maps.maps[0], maps.image_size
    head = network.card.check_proposals()
    with torch.inference_mode():
        outputs = network.anchors(planes_of(cells, network.device)[None])
    scores, deltas = (values.cpu().numpy() for values in outputs)
    if not (np.isfinite(scores).all() and np.isfinite(deltas).all()):
        raise StageError(
            f"propose: the outputs of the region proposal network for image '{image_id}' are not finite; "
            "train it again with a lower learning_rate"
        )
    if settings.ranking == "random":
        numbers = uniform_numbers(len(scores), f"{width} x {height}", settings.ranking_seed)
        scores = numbers.astype(np.float32)
    stride = network.card.trunk.stride
    anchors = anchors_of_map(cells.shape[1], cells.shape[0], stride, head.scales, head.ratios)
    return anchors, deltas if settings.refinement else np.zeros_like(deltas), scores
