"""Stage `extract`: every region through the network, keeping the outputs of chosen layers.

R-CNN warps every region to the network's input (section 2.1, "Feature extraction", and Appendix A); Fast R-CNN pools it
from the map of the whole image (arXiv 1504.08083, section 2.1); OverFeat reads the network densely, in every window of
the map (arXiv 1312.6229, section 3.3), and needs no proposals. Features are extracted for the ground-truth boxes as
well, which come first, as in the authors' release (roidb_from_voc.m), but not if windows are dense.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting
from stages.features.layers import check_kept_masks
from stages.networks import DELTAS, EDGES, NETWORK_TABLES, NetworkCard, PlannedNetwork
from stages.networks.heads import POOLINGS
from stages.networks.precision import precision_setting

WARP, ROI_POOL, DENSE = "warp", "roi-pool", "dense"
FULL, FOREGROUND = "full", "foreground"
BOXES, MASKS, NONE = "boxes", "masks", "none"


def pooling_of(card: NetworkCard) -> str:
    """How a network's regions are pooled by default: as its region head was trained."""
    return "max" if card.heads.regions is None else card.heads.regions.pooling


@dataclass(frozen=True)
class Settings:
    """How features are extracted.

    `padding` is in pixels of the network's input. `precision` is that of the network's forward pass: "float32",
    "bfloat16" (faster or slower, depending on the CPU: `rcnn plan` measures it), and on CUDA also "float16" and "tf32".
    `dtype` is the type in which features are stored. With `cache = false`, the features of a split that only `detect`
    reads are not cached but computed as they are read.
    """

    method: str = setting(
        WARP,
        "Where regions are cut out. warp: of the image, each warped to the network's input; roi-pool: of the map that "
        "the maps stage computes once per image, pooled to the size that the network's later layers take; dense: not "
        "of proposals, but every window of the network on these maps.",
        choices=(WARP, ROI_POOL, DENSE),
        later=True,
        source="R-CNN section 2.1; roi-pool: Fast R-CNN section 2.1; dense: OverFeat section 3.3",
    )
    layers: tuple[str, ...] = setting(
        ("fc7", "pool5"),
        "The layers whose outputs are kept as features.",
        source="R-CNN section 2.1: fc7; Appendix C: pool5 for boxes",
        of_network=lambda card: card.kept_layers,
    )
    mode: str = setting(
        "warp",
        "How a region is fitted into the network's square input. warp: stretched, ignoring its aspect ratio; square: "
        "cropped as its tightest enclosing square; square-masked: the same, with the mean colour outside the region.",
        choices=("warp", "square", "square-masked"),
        only_with=("method", WARP),
        source="R-CNN Appendix A",
    )
    padding: int = setting(
        16,
        "Context around a region, in pixels of the network's input.",
        at_least=0,
        only_with=("method", WARP),
        source="R-CNN Appendix A",
    )
    fill: str = setting(
        FULL,
        "What the network sees of a region. full: the whole window around it; foreground: the region alone, with the "
        "mean colour in place of everything outside its mask, for proposals with masks.",
        choices=(FULL, FOREGROUND),
        later=True,
        source="R-CNN section 5: full and fg",
    )
    objects: str = setting(
        BOXES,
        "Which objects come before the proposals. boxes: the annotated boxes; masks: the dataset's object masks, with "
        "the boxes around them; none: no objects.",
        choices=(BOXES, MASKS, NONE),
        later=True,
        source="roidb_from_voc.m: boxes; masks: ours, as in O2P",
    )
    pooling: str = setting(
        "max",
        "How a region of the map is pooled; a network trained on pooled regions has its own default. max: RoI max "
        "pooling; align: RoIAlign, the mean of 2 x 2 bilinear samples per bin, at positions that are not rounded to "
        "cells; warp: RoI warping, the largest of 2 x 2 such samples.",
        choices=POOLINGS,
        only_with=("method", ROI_POOL),
        later=True,
        of_network=pooling_of,
        source="Fast R-CNN section 2.1; align: Mask R-CNN section 3; warp: Dai et al. 2015, section 3.2",
    )
    truncated_svd: tuple[str, ...] = setting(
        (),
        "Fully connected layers to be computed with only some of their singular values, which is faster and changes "
        "the features a little, as in fc6:1024, fc7:256.",
        only_with=("method", ROI_POOL),
        later=True,
        source="Fast R-CNN section 4.4",
    )
    fine: bool = setting(
        True,
        "Whether windows begin at every cell of the map (fine stride), or only where the network's last pooling would "
        "begin (coarse).",
        only_with=("method", DENSE),
        later=True,
        source="OverFeat section 3.3: resolution augmentation",
    )
    precision: str = precision_setting()
    dtype: str = setting(
        "float16",
        "Data type of the stored features; float16 takes half the disk space, and overflow is an error.",
        choices=("float16", "float32"),
        source="ours",
    )
    cache: bool = setting(
        True,
        "Whether to keep the features; if false, those that only detect reads are computed as it reads them.",
        identity=False,
        source="ours",
    )

    @property
    def ranks(self) -> dict[str, int]:
        """The singular values to keep, by layer, of `truncated_svd`."""
        return {layer: int(rank) for layer, _, rank in (entry.partition(":") for entry in self.truncated_svd)}

    def __post_init__(self) -> None:
        if self.fill == FOREGROUND and self.method != WARP:
            raise BadSetting(
                f"fill = '{FOREGROUND}' is for regions of the image; leave it out, or set method = '{WARP}'"
            )
        if self.fill == FOREGROUND and self.objects == BOXES:
            raise BadSetting(
                f"fill = '{FOREGROUND}' needs the masks of objects too; set objects = '{MASKS}', or '{NONE}' to leave "
                "objects out"
            )
        if self.objects != BOXES and self.method == DENSE:
            raise BadSetting(f"objects = '{self.objects}': dense windows come without objects; leave it out")
        for entry in self.truncated_svd:
            if not re.fullmatch("[^:]+:[1-9][0-9]*", entry):
                raise BadSetting(
                    f"truncated_svd = '{entry}' must be a layer and how many singular values to keep, such as "
                    "'fc6:1024'"
                )
        if len(self.ranks) < len(self.truncated_svd):
            raise BadSetting(f"truncated_svd = {list(self.truncated_svd)} must name each layer once")
        # The order changes nothing, so it must not change the key.
        object.__setattr__(self, "truncated_svd", tuple(sorted(self.truncated_svd)))


def check_layers(settings: Settings, card: NetworkCard) -> None:
    """Raises BadSetting if `layers` is empty, repeats a layer or names one that the network does not have (or that it
    does not compute from pooled regions or dense windows), for a padding that leaves no room for the region, for
    regions of a network that takes context from a lower scale, for another pooling than the network was trained with,
    for box deltas of anything but pooled regions and box edges of anything but dense windows, and for a truncated layer
    that is not fully connected, or not needed for `layers`."""
    if not settings.layers or len(set(settings.layers)) < len(settings.layers):
        raise BadSetting(
            f"layers = {list(settings.layers)} must name one or more layers of {card.name}, each once "
            f"({', '.join(card.layers)})"
        )
    card.check_layers(settings.layers)
    for layer, method, moves in (
        (DELTAS, ROI_POOL, "box deltas move regions that are pooled from the map"),
        (EDGES, DENSE, "box edges belong to the windows of a network that is read densely"),
    ):
        if layer in settings.layers and settings.method != method:
            raise BadSetting(
                f"layers = {list(settings.layers)}: {moves}; leave out '{layer}', or set method = '{method}'"
            )
    if card.takes_context and settings.method != DENSE:
        raise BadSetting(
            f"method = '{settings.method}': this {card.name} sees each window at the next lower scale, too; set "
            f"method = '{DENSE}'"
        )
    if settings.method == WARP:
        card.check_padding(settings.padding)
    elif settings.method == DENSE:
        from stages.networks.dense_reading import check_dense  # imported here: PyTorch traces the network

        check_dense(card, settings.layers)
    else:
        if settings.pooling != pooling_of(card) and card.heads.regions is not None:
            raise BadSetting(
                f"pooling = '{settings.pooling}': this {card.name} was trained on regions pooled by "
                f"'{pooling_of(card)}'; leave the setting out"
            )
        card.needed(settings.layers, card.head.start)
    for layer in settings.ranks:
        if layer not in card.fully_connected:
            there = f"only {', '.join(card.fully_connected)}" if card.fully_connected else "none"
            raise BadSetting(f"truncated_svd: {card.name} has no fully connected layer '{layer}', {there}")
        if layer not in card.needed(settings.layers, card.head.start):
            raise BadSetting(
                f"truncated_svd: '{layer}' is not computed for layers = {list(settings.layers)}; leave it out"
            )


def check_ranks(settings: Settings, card: NetworkCard, dimensions: Mapping[str, int | None]) -> None:
    """Raises BadSetting if `truncated_svd` asks for more singular values than a layer of the network has.

    `dimensions` are those of the network's layers; None: not known yet.
    """
    for layer, rank in settings.ranks.items():
        sides = [dimensions[name] for name in (layer, card.layers[layer].parent) if name is not None]
        most = min(side for side in sides if side is not None)
        if rank > most:
            raise BadSetting(f"truncated_svd = '{layer}:{rank}': {layer} has {most:,} singular values; keep fewer")


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting for settings that do not fit the network or the maps."""
    check_layers(settings, network.card)
    check_ranks(settings, network.card, {name: layer.dimension for name, layer in network.card.layers.items()})
    if settings.fill == FOREGROUND:
        check_kept_masks(sources["proposals"], f"fill = '{FOREGROUND}'")
    maps = sources.get("maps")
    if settings.method == ROI_POOL and maps is not None and maps.border:
        raise BadSetting(
            f"method = '{ROI_POOL}': its maps have border = {maps.border}, which is for windows of a network that is "
            "read densely; leave the border out"
        )
    if settings.method == DENSE and maps is not None:
        from stages.networks.dense_reading import check_windows  # imported here: PyTorch computes sizes

        check_windows(network.card, maps.sides, maps.border)


STAGE = Stage(
    name="extract",
    summary="Run every region or window through the network and keep the outputs of its layers.",
    schema_version=1,
    settings=Settings,
    makes="features",
    inputs=(
        Input("images", kinds=("dataset",)),
        Input("proposals", kinds=("proposals",), default=("propose",), only_if=("method", WARP, ROI_POOL), once=True),
        Input("network", kinds=("network",), default=NETWORK_TABLES),
        Input("masks", kinds=("dataset",), annotations=False, masks=True, only_if=("objects", MASKS)),
        Input(
            "maps", kinds=("maps",), default=("maps",), only_if=("method", ROI_POOL, DENSE), once=True, of_trunk=True
        ),
    ),
    module="stages.extract.stage",
    follows_split=True,
    part_size=4,
    by_item=True,
    check=check,
)
