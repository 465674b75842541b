"""Settings that all stages share which train the region head of a detector (Fast R-CNN, arXiv 1504.08083)."""

from __future__ import annotations

from dataclasses import dataclass

from stages.contract.errors import BadSetting
from stages.contract.settings import setting
from stages.networks import NETWORKS, NetworkCard
from stages.networks.heads import RegionHead


@dataclass(frozen=True)
class RegionTraining:
    """The region head, which regions are foreground and background, how many are drawn, and how losses are weighed."""

    side: int | None = setting(
        None,
        "Cells per side that a region is pooled to; none: as many as the network's own layers take.",
        at_least=1,
        source="Fast R-CNN section 2.1: 7 for VGG-16, 6 for the smaller networks",
    )
    hidden: tuple[int, ...] = setting(
        (),
        "The sizes of new fully connected layers after the pooling; none: the network's own layers.",
        at_least=1,
        source="Fast R-CNN section 2.2: fc6 and fc7 are the pre-trained ones",
    )
    cells_scale: float = setting(
        1.0,
        "New fully connected layers take the cells times this; choose it so that the losses start near log(K + 1).",
        above=0,
        source="ours; 1/30 for SqueezeNet's large activations",
    )
    dropout: float = setting(
        0.5,
        "The dropout rate of the network's dropout layers, and before the deltas.",
        at_least=0,
        at_most=0.99,
        source="release, train.prototxt: on fc6 and fc7",
    )
    regions_per_image: int = setting(
        64, "Regions drawn per image.", at_least=2, source="Fast R-CNN section 2.3: 128 of 2 images"
    )
    foreground_fraction: float = setting(
        0.25, "The largest share of foreground regions.", above=0, at_most=1, source="Fast R-CNN section 2.3"
    )
    foreground_overlap: float = setting(
        0.5,
        "A region whose highest IoU with any object is at least this is foreground, of that object's class.",
        above=0,
        at_most=1,
        source="Fast R-CNN section 2.3",
    )
    background_overlap: float = setting(
        0.5,
        "A region whose highest IoU with any object is below this, and at least `background_least`, is background.",
        above=0,
        at_most=1,
        source="Fast R-CNN section 2.3",
    )
    background_least: float = setting(
        0.1,
        "The least IoU of a background region with an object: a heuristic for hard example mining.",
        at_least=0,
        at_most=1,
        source="Fast R-CNN section 2.3: 0.1; both configurations of py-faster-rcnn: 0",
    )
    box_weight: float = setting(
        1.0,
        "The weight of the box loss, lambda; 0 trains no box regression, and regions stay as they are.",
        at_least=0,
        source="Fast R-CNN equation 1",
    )
    new_classes_std: float = setting(
        0.01, "Standard deviation of the initial weights of the class scores.", above=0, source="Fast R-CNN section 2.3"
    )
    new_boxes_std: float = setting(
        0.001, "Standard deviation of the initial weights of the deltas.", above=0, source="Fast R-CNN section 2.3"
    )

    def __post_init__(self) -> None:
        if self.background_overlap > self.foreground_overlap:
            raise BadSetting(
                f"background_overlap = {self.background_overlap} is greater than foreground_overlap = "
                f"{self.foreground_overlap}; a region cannot be both background and foreground, lower "
                "background_overlap"
            )
        if self.background_least >= self.background_overlap:
            raise BadSetting(
                f"background_least = {self.background_least} leaves no region below background_overlap = "
                f"{self.background_overlap}; lower it"
            )
        if self.cells_scale != 1 and not self.hidden:
            raise BadSetting(
                "cells_scale is for new fully connected layers; name their sizes in hidden, or leave it out"
            )

    @property
    def most_foreground(self) -> int:
        """Foreground regions per image at most: 16 of 64."""
        return round(self.regions_per_image * self.foreground_fraction)

    def region_head(self, card: NetworkCard, pooling: str) -> RegionHead:
        """The region head that is trained on a network. Raises BadSetting for the network's own layers after the
        pooling if an earlier training has replaced them."""
        before = card.heads.regions
        if not self.hidden and before is not None and before.hidden:
            raise BadSetting(
                f"hidden = []: the own layers of this {card.name} were replaced by new fully connected ones, of "
                f"{' and '.join(map(str, before.hidden))}; set hidden = {list(before.hidden)}, or name the network "
                "from before that training"
            )
        side = NETWORKS[card.name].head.side if self.side is None else self.side
        return RegionHead(pooling, side, self.hidden, self.cells_scale)
