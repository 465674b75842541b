"""Stage `classify`: the classes of whole images, from a network read densely or from a few crops, and the top-1 and
top-5 errors (OverFeat section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting
from stages.image_sides import check_sides
from stages.networks import SOFTMAX, NetworkCard, PlannedNetwork
from stages.networks.precision import precision_setting

DENSE, CROPS = "dense", "crops"
OF_DENSE, OF_CROPS = ("method", DENSE), ("method", CROPS)
SCORES = "scores"
SCALES = (245, 281, 317, 389, 425, 461)
"""The shorter sides of the paper's six scales."""
OF_INPUT = (221, 231)
"""The inputs, in pixels, of the paper's two networks."""
SHORTER_SIDE = 256
"""Pixels of the shorter side of the image that crops of 221 pixels are cut from."""


def scales_of(card: NetworkCard) -> tuple[int, ...]:
    """The paper's six scales; in proportion for a network whose input is smaller or larger than the paper's two."""
    least, most = OF_INPUT
    if least <= card.input_size <= most:
        return SCALES
    return tuple(round(side * card.input_size / least) for side in SCALES)


@dataclass(frozen=True)
class Settings:
    """Which views of an image are classified, and what is averaged."""

    method: str = setting(
        DENSE,
        "Which views of an image the network sees. dense: every window of the whole image, at several scales; crops: "
        "four corners and the centre.",
        choices=(DENSE, CROPS),
        source="OverFeat section 3.3; crops: Krizhevsky et al. 2012, section 4.1",
    )
    sides: tuple[int, ...] = setting(
        SCALES,
        "The shorter side of the image in pixels, one for each scale; the sides of the paper's scales for an input of "
        "221 to 231 pixels, in proportion for others.",
        at_least=1,
        distinct=True,
        only_with=OF_DENSE,
        of_network=scales_of,
        source="OverFeat section 3.3: six scales",
    )
    longer_sides: tuple[int, ...] = setting(
        (),
        "The longer side in pixels at each scale, to which images are stretched; none: images keep their proportions.",
        at_least=1,
        later=True,
        source="OverFeat, appendix: 245, 317, 389, 461, 497, 569",
    )
    longest: int = setting(
        2000,
        "The longer side at most, in pixels; longer images are scaled down further.",
        at_least=1,
        at_most=10_000,
        only_with=OF_DENSE,
        source="ours",
    )
    fine: bool = setting(
        True,
        "Whether the last pooling is applied at every offset; if not, windows are as far apart as the whole network's "
        "stride.",
        only_with=OF_DENSE,
        source="OverFeat section 3.3",
    )
    side: int | None = setting(
        None,
        "The shorter side in pixels of the image that crops are cut from; none: 256 for an input of 221 pixels, in "
        "proportion for others.",
        at_least=1,
        only_with=OF_CROPS,
        source="OverFeat section 3.1",
    )
    flips: bool = setting(True, "Whether the mirrored image is classified, too.", source="OverFeat section 3.3")
    outputs: str = setting(
        SOFTMAX,
        "What is pooled and averaged: class probabilities, or the scores before the softmax.",
        choices=(SOFTMAX, SCORES),
        source="ours; OverFeat section 3.3 does not say; Krizhevsky et al. 2012, section 4.1: softmax",
    )
    class_file: str = setting(
        "",
        "A text file with the names of the network's classes, one per line in the order of its outputs; without it, "
        "those that the network records, else the dataset's.",
        identity=False,
        by_content=True,
        source="ours",
    )
    precision: str = precision_setting()

    @property
    def scales(self) -> tuple[tuple[int, int | None], ...]:
        """The shorter and the longer side of the image at each scale, in pixels; None: in proportion."""
        longer: tuple[int | None, ...] = self.longer_sides or (None,) * len(self.sides)
        return tuple(zip(self.sides, longer, strict=True))


def crop_side(settings: Settings, card: NetworkCard) -> int:
    """The shorter side in pixels of the image that crops are cut from."""
    return settings.side or round(SHORTER_SIDE * card.input_size / OF_INPUT[0])


def layer_of(settings: Settings, card: NetworkCard) -> str:
    """The layer that is pooled. Raises BadSetting for a network without a classifier."""
    scores = card.check_classifier()
    return SOFTMAX if settings.outputs == SOFTMAX else scores


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting for a network without a classifier, or one that takes context from a lower scale, or, with
    dense windows, one that cannot be read densely, for sides over `longest`, and for images smaller than the network's
    input."""
    card, layer = network.card, layer_of(settings, network.card)
    if card.takes_context:
        raise BadSetting(
            f"this {card.name} takes context from the next lower scale, and images are classified at each scale by "
            "itself; name a network trained without context"
        )
    if settings.method == CROPS:
        side = crop_side(settings, card)
        if settings.longer_sides:
            raise BadSetting(f"longer_sides is for method = '{DENSE}'; leave it out, or set another method")
        if side < card.input_size:
            raise BadSetting(
                f"side = {side} is less than the {card.input_size} pixels of {card.name}'s input; raise it"
            )
        return
    from stages.networks.dense_reading import check_dense, windows_of  # imported here: PyTorch traces the network

    check_dense(card, (layer,))
    check_sides(settings.sides, settings.longest)
    check_longer_sides(settings)
    pixels = windows_of(card).pixels
    if min(settings.sides) < pixels:
        raise BadSetting(
            f"sides = {list(settings.sides)}: no window of {card.name} fits into an image of {min(settings.sides)} "
            f"pixels; name sides of at least {pixels}"
        )


def check_longer_sides(settings: Settings) -> None:
    """Raises BadSetting unless `longer_sides`, if there are any, fit `sides` one by one, none over `longest`."""
    longer, sides = settings.longer_sides, settings.sides
    if not longer:
        return
    if len(longer) != len(sides):
        raise BadSetting(f"longer_sides = {list(longer)} and sides = {list(sides)} must have one number for each scale")
    if any(long < short for short, long in zip(sides, longer, strict=True)):
        raise BadSetting(
            f"longer_sides = {list(longer)}: none may be less than the shorter side of its scale, sides = {list(sides)}"
        )
    if max(longer) > settings.longest:
        raise BadSetting(
            f"longer_sides = {list(longer)} has {max(longer)} pixels, more than longest = {settings.longest}; raise "
            "longest"
        )


STAGE = Stage(
    name="classify",
    summary="Classify whole images, and measure top-1 and top-5 errors.",
    schema_version=1,
    settings=Settings,
    makes="class-scores",
    inputs=(
        Input("images", kinds=("classification",)),
        Input("network", kinds=("network",), default=("pretrain", "network")),
        Input("with", kinds=("class-scores",), optional=True),
    ),
    module="stages.classify.stage",
    split="test",
    part_size=64,
    reads_files=True,
    example="recipes/shapes-classify.toml",
    check=check,
)
