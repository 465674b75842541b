"""Stage `maps`: the feature map of every whole image, which all its regions share (Fast R-CNN section 2).

The network's convolutions run once per image, at one scale or several, instead of once per region.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input, Stage
from stages.contract.settings import setting
from stages.image_sides import check_sides
from stages.networks import NETWORK_TABLES, PlannedNetwork
from stages.networks.precision import precision_setting


@dataclass(frozen=True)
class Settings:
    """How images enter the network, and how their maps are stored."""

    sides: tuple[int, ...] = setting(
        (600,),
        "The shorter side of the image in pixels, one for each scale.",
        at_least=1,
        distinct=True,
        source="Fast R-CNN section 5.2; five scales: 480, 576, 688, 864, 1200",
    )
    longest: int = setting(
        1000,
        "The longer side at most, in pixels; longer images are scaled down further.",
        at_least=1,
        at_most=10_000,
        source="Fast R-CNN section 5.2; with five scales 2000",
    )
    precision: str = precision_setting()
    dtype: str = setting(
        "float16",
        "Data type of the maps; overflow is an error.",
        choices=("float16", "float32"),
        source="ours; Caffe pooled from float32",
    )
    mirrored: bool = setting(
        False,
        "Whether to compute the maps of the mirrored image too, for training on a trunk that does not change.",
        later=True,
        source="Fast R-CNN section 2.3: images are mirrored with probability 0.5",
    )
    border: int = setting(
        0,
        "Pixels of the mean colour around the scaled image, for a network that is read densely: windows may reach over "
        "the image's edges by as many.",
        at_least=0,
        at_most=1000,
        later=True,
        source="ours",
    )
    cache: bool = setting(
        False,
        "Whether to keep the maps; if false, they are computed as extract reads them.",
        identity=False,
        source="ours",
    )


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting unless there are sides, none over `longest`."""
    check_sides(settings.sides, settings.longest)


STAGE = Stage(
    name="maps",
    summary="Run the network's convolutions once on every whole image.",
    schema_version=1,
    settings=Settings,
    makes="maps",
    inputs=(
        Input("images", kinds=("dataset",), annotations=False),
        Input("network", kinds=("network",), default=NETWORK_TABLES),
    ),
    module="stages.maps.stage",
    follows_split=True,
    part_size=4,
    by_item=True,
    example="recipes/shapes-roi-pool.toml",
    check=check,
)
