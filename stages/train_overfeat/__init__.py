"""Stage `train-overfeat`: training a network to classify and to localise in every window of its map (OverFeat, arXiv
1312.6229v4, sections 4 and 5).

The classifier is the network's own, with a background class and new class scores, or new fully connected layers; the
regressor is new. Both are trained on dense maps, where windows see what lies beyond their edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import LogColumns, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting
from stages.networks import EDGES, PlannedNetwork
from stages.networks.heads import Heads, WindowHead
from stages.training.settings import ON_WHOLE_IMAGES, TRUNK, WholeImageTraining

OBJECT, UNION = "object", "union"


@dataclass(frozen=True)
class Settings(WholeImageTraining):
    """How the network is trained, on which windows."""

    sides: tuple[int, ...] = setting(
        (245, 281, 317, 389, 425, 461),
        "The shorter side of the image in pixels; of several, one is drawn for each image.",
        at_least=1,
        distinct=True,
        source="OverFeat section 4.3: the scales of classification",
    )
    momentum: float = setting(
        0.6, "The momentum of SGD.", at_least=0, only_with=("optimiser", "sgd"), source="OverFeat section 3.1"
    )
    weight_decay: float = setting(
        1e-5, "The weight decay; biases are not decayed.", at_least=0, source="OverFeat section 3.1"
    )
    frozen: tuple[str, ...] = setting(
        (TRUNK,),
        "Layers whose weights stay fixed, named as in the cache's columns weights/; trunk: all convolutions that the "
        "heads share; none: no layer.",
        distinct=True,
        source="OverFeat section 4.3: the regressor alone is trained, on fixed layers 1 to 5",
    )
    border: int = setting(
        0,
        "Pixels of the mean colour around the scaled image; windows may reach over the image's edges by as many.",
        at_least=0,
        at_most=1000,
        source="ours",
    )
    box_hidden: tuple[int, ...] = setting(
        (4096, 1024),
        "The sizes of the regressor's fully connected layers, before the four edges.",
        at_least=1,
        source="OverFeat section 4.2",
    )
    per_class: bool = setting(
        False,
        "Whether the regressor's last layer has four edges for each class (PCR), or four for all (SCR).",
        source="OverFeat Figure 9: 44.1 % error with PCR, 31.3 % with SCR",
    )
    hidden: tuple[int, ...] = setting(
        (),
        "The sizes of new fully connected layers of the classifier; none: the network's own layers.",
        at_least=1,
        source="OverFeat section 5: the network's own",
    )
    pool: int | None = setting(
        None,
        "For new fully connected layers: cells per side that the max pooling before them takes together.",
        at_least=1,
        source="OverFeat Table 1: 2 or 3",
    )
    side: int | None = setting(
        None,
        "For new fully connected layers: cells per side of a window after the pooling.",
        at_least=1,
        source="OverFeat Table 1: 5 or 6",
    )
    context: bool = setting(
        False,
        "For new fully connected layers, and the regressor: whether they take the window of the next lower scale that "
        "is centred nearest, too; the lowest scale takes itself.",
        later=True,
        source="OverFeat section 5, which does not say how",
    )
    cells_scale: float = setting(
        1.0,
        "The regressor and new fully connected layers take the cells times this.",
        above=0,
        source="ours; 1/30 for SqueezeNet's large activations",
    )
    dropout: float = setting(
        0.5,
        "The dropout rate of the classifier's dropout layers.",
        at_least=0,
        at_most=0.99,
        source="OverFeat section 3.1: on layers 6 and 7",
    )
    windows_per_image: int = setting(
        64, "Windows drawn per image for the classifier.", at_least=2, source="ours; OverFeat section 5: several"
    )
    positive_fraction: float = setting(
        0.25, "The largest share of windows on objects.", above=0, at_most=1, source="ours, as in Fast R-CNN"
    )
    positive_overlap: float = setting(
        0.5,
        "A window whose highest IoU with any object is at least this has that object's class.",
        above=0,
        at_most=1,
        source="ours, as in R-CNN section 2.3",
    )
    background_overlap: float = setting(
        0.3,
        "A window whose highest IoU with any object is below this is background; those in between are not used.",
        above=0,
        at_most=1,
        source="ours",
    )
    offending: float = setting(
        0.5,
        "The share of background windows that are the most offending of the `candidates`; the others are random.",
        at_least=0,
        at_most=1,
        source="OverFeat section 5: a few negatives per image, such as random or most offending ones",
    )
    candidates: int = setting(
        256,
        "Background windows of an image that the network scores to find the most offending ones.",
        at_least=1,
        source="ours",
    )
    box_windows: int = setting(64, "Windows drawn per image for the regressor.", at_least=1, source="ours")
    box_overlap: float = setting(
        0.5,
        "The regressor is trained on windows that an object overlaps by at least this share.",
        above=0,
        at_most=1,
        source="OverFeat section 4.3: less than 50 % are left out",
    )
    overlap_of: str = setting(
        OBJECT,
        "What that share is of. object: the object's area; union: the union of both (IoU).",
        choices=(OBJECT, UNION),
        source="OverFeat section 4.3, which can be read both ways",
    )
    box_weight: float = setting(
        1.0, "The weight of the regressor's loss.", at_least=0, source="ours; the paper trains the two one by one"
    )
    new_classes_std: float = setting(
        0.01, "Standard deviation of the initial weights of the class scores.", above=0, source="OverFeat section 3.1"
    )
    new_boxes_std: float = setting(
        0.001,
        "Standard deviation of the initial weights of the edges, which begin as the window's.",
        above=0,
        source="ours",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.background_overlap > self.positive_overlap:
            raise BadSetting(
                f"background_overlap = {self.background_overlap} is greater than positive_overlap = "
                f"{self.positive_overlap}; a window cannot be both background and an object, lower background_overlap"
            )
        if self.most_positive == 0:
            raise BadSetting(
                f"positive_fraction = {self.positive_fraction} of windows_per_image = {self.windows_per_image} is no "
                "window, so the classifier would see no objects; raise either"
            )
        if self.context and not self.hidden:
            raise BadSetting("context = true doubles what the first layers take; set hidden, pool and side of new ones")
        new = {"pool": self.pool, "side": self.side}
        for name, value in new.items():
            if self.hidden and value is None:
                raise BadSetting(f"hidden = {list(self.hidden)}: new fully connected layers need {name}; set it")
            if not self.hidden and value is not None:
                raise BadSetting(f"{name} = {value} is for new fully connected layers; name their sizes in hidden")

    @property
    def most_positive(self) -> int:
        """Windows on objects per image at most."""
        return round(self.windows_per_image * self.positive_fraction)

    @property
    def map_border(self) -> int:
        """Pixels of the mean colour around the scaled image, besides the trunk's margin."""
        return self.border

    @property
    def reads_lower_scale(self) -> bool:
        """Whether the image is read at the next lower of `sides`, too."""
        return self.context

    def heads(self, network: PlannedNetwork) -> Heads:
        """The heads of the trained network. Raises BadSetting for the network's own layers after its trunk if an
        earlier training has replaced them."""
        head = WindowHead(
            self.box_hidden, self.per_class, self.hidden, self.pool or 1, self.side or 0, self.cells_scale, self.context
        )
        before = network.card.heads
        for other in (before.regions, before.windows):
            if not self.hidden and other is not None and other.hidden:
                raise BadSetting(
                    f"hidden = []: the own layers of this {network.card.name} were replaced by new fully connected "
                    "ones; set hidden to the sizes of new ones, or name the network from before that training"
                )
        return Heads(before.proposals, None, head)


def plans(settings: Settings, network: PlannedNetwork) -> PlannedNetwork:
    """The network with a window head, trained to classify windows."""
    return PlannedNetwork(network.card.with_heads(settings.heads(network)), True)


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting for a network that cannot be read densely, or whose own layers pad after its trunk, layers to
    be frozen that it does not have or that are new, and maps that do not fit."""
    from stages.networks.dense_reading import check_dense, check_windows, pads  # imported here: PyTorch computes sizes
    from stages.train_overfeat.layers import new_layers
    from stages.training.frozen import check_training

    card = plans(settings, network).card
    scores = card.check_classifier()
    check_dense(card, (scores, EDGES))
    if pads(card, scores):
        raise BadSetting(
            f"hidden = []: layers of {card.name} after its trunk pad their input: in training, windows would see zeros "
            "beyond their edges, but in a dense reading their surroundings; set hidden, pool and side"
        )
    check_windows(card, settings.sides, settings.border)
    if settings.scale_jitter:
        least = max(1, int(min(settings.sides) * (1 - settings.scale_jitter)))
        check_windows(card, [least], settings.border, f"lower scale_jitter = {settings.scale_jitter}")
    check_training(settings, card, new_layers(card), sources)


LOG = LogColumns(
    "iteration",
    losses=("loss", "class_loss", "box_loss"),
    accuracies=("object_accuracy", "background_accuracy"),
)

STAGE = Stage(
    name="train-overfeat",
    summary="Train OverFeat, a classifier and a box regressor for every window of the map.",
    schema_version=1,
    settings=Settings,
    makes="network",
    inputs=ON_WHOLE_IMAGES,
    module="stages.train_overfeat.stage",
    split="train",
    part_size=1,
    example="recipes/shapes-overfeat.toml",
    log=LOG,
    check=check,
    plans=plans,
)
