"""One small recipe with a detector of every system, and each of them exported: built once, for several tests."""

from __future__ import annotations

from pathlib import Path

from tests.in_process import rcnn
from tests.pipeline import FOUR_IMAGES

RECIPE = (
    FOUR_IMAGES
    + """
# R-CNN: SVMs and ridge regression, and the fine-tuned network's own softmax
[extract]
layers = ["pool4"]
padding = 4
inputs = { network = "network" }
[train-svm]
layer = "pool4"
[train-bbox]
layer = "pool4"
[detect]
[eval]
bootstrap = 20
[finetune]
iterations = 2
inputs = { network = "network" }
[extract-softmax]
stage = "extract"
layers = ["softmax"]
inputs = { network = "finetune" }
[detect-softmax]
stage = "detect"
score = "softmax"
inputs = { regressor = "none", features = "extract-softmax" }

# Fast R-CNN, with truncated layers
[train-fast]
iterations = 2
sides = [120]
longest = 200
hidden = [16]
inputs = { network = "network" }
[maps]
sides = [120]
longest = 200
inputs = { network = "train-fast" }
[extract-fast]
stage = "extract"
method = "roi-pool"
layers = ["softmax", "deltas"]
truncated_svd = ["fc6:8"]
inputs = { network = "train-fast" }
[detect-fast]
stage = "detect"
score = "softmax"
regression = "network"
cap = "image"
least_score = 0.0
inputs = { features = "extract-fast" }

# Faster R-CNN, trained jointly
[train-joint]
iterations = 2
sides = [120]
longest = 200
scales = [3.0, 6.0]
proposal_hidden = 16
before_suppression = 100
max_boxes = 20
inputs = { network = "network" }
[maps-joint]
stage = "maps"
sides = [120]
longest = 200
inputs = { network = "train-joint" }
[propose-joint]
stage = "propose"
method = "rpn"
max_boxes = 20
inputs = { rpn = "train-joint", maps = "maps-joint" }
[extract-joint]
stage = "extract"
method = "roi-pool"
layers = ["softmax", "deltas"]
inputs = { network = "train-joint", maps = "maps-joint", proposals = "propose-joint" }
[detect-joint]
stage = "detect"
score = "softmax"
regression = "network"
cap = "image"
least_score = 0.0
inputs = { features = "extract-joint" }

# OverFeat
[train-overfeat]
iterations = 2
sides = [90, 128]
longest = 200
box_hidden = [8]
inputs = { network = "network" }
[maps-dense]
stage = "maps"
sides = [90, 128]
longest = 200
inputs = { network = "train-overfeat" }
[extract-dense]
stage = "extract"
method = "dense"
layers = ["softmax", "edges"]
inputs = { network = "train-overfeat", maps = "maps-dense" }
[detect-dense]
stage = "detect"
score = "softmax"
regression = "network"
suppression = "merge"
inputs = { features = "extract-dense" }
"""
)
SYSTEMS = ("detect", "detect-softmax", "detect-fast", "detect-joint", "detect-dense")


def build(folder: Path) -> None:
    """Makes `folder`: the recipe, its caches in work/, and a file NAME.safetensors of each system."""
    recipe = folder / "systems.toml"
    recipe.write_text(RECIPE)
    rcnn("run", recipe, work=folder / "work")
    for name in SYSTEMS:
        file = folder / f"{name}.safetensors"
        rcnn("export", recipe, "--detector", name, "-o", file, "--note", "a note", work=folder / "work")
