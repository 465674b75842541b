"""Faster R-CNN here and in torchvision, in one run: `python -m benchmarks.faster RECIPE --work work`.

The recipe's detector (train-joint or train-fast with a region proposal network; it must have been run) is built from
torchvision's parts, too: the same trunk, anchors, numbers of proposals, RoIAlign and fully connected layers, with the
same weights. Both take turns, image by image, on one core of the CPU: from pixels to detections and, with the recipe's
[train-joint], one iteration of training. Printed are the processor times, the median and the 5th and 95th percentile of
ours over torchvision's, and the share of torchvision's detections (score above 0.5) that ours has, too, as a check
that both are the same network. Exit status 1 if a median ratio misses its target.

With --memory, each of the two runs alone in a process of its own, first inference and then training, and the largest
resident set of the process is printed (ru_maxrss), and its ratio.

torchvision is given our anchors, and its regions are moved by the centre of the trunk's first cell; its images are
padded to multiples of 32 pixels, and a batch is padded to one size. Its joint training has the same kinds of losses
(one logistic output per anchor, another beta of smooth L1); only times are compared.
"""

from __future__ import annotations

import argparse
import datetime
import resource
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from benchmarks.extraction import describe_machine
from benchmarks.images import Detector, test_node
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.running.runner import open_inputs
from stages.anchors import cell_anchors
from stages.boxes import iou_matrix
from stages.contract.execution import Execution
from stages.networks import DELTAS
from stages.networks.network import Network
from stages.training.augmentation import View
from stages.training.image_memory import ImageMemory
from stages.training.parameters import training_mode
from stages.training.ranks import Ranks
from stages.training.state import reproducible, seeded
from stages.training.whole_images import DrawnImage, TrainingImage, WholeImages, drawn_images, objects_of

INFERENCE_TARGET, TRAINING_TARGET, MEMORY_TARGET = 1.0, 1.05, 1.0
OURS, TORCHVISION = "ours", "torchvision"


class TorchvisionTrunk(nn.Module):
    """A network's trunk as torchvision takes a backbone."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.module = network.module
        self.out_channels = network.card.trunk.channels
        self.network = [network]  # not a submodule

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """The map, by the name that RoIAlign is given."""
        return OrderedDict([("0", self.network[0].maps(batch))])


class CentredRoIAlign(MultiScaleRoIAlign):
    """RoIAlign in a map whose first cell is centred `first_centre` pixels from the image's edge."""

    def __init__(self, side: int, first_centre: float) -> None:
        super().__init__(["0"], side, 2)
        self.first_centre = first_centre

    def forward(self, maps: dict[str, torch.Tensor], boxes: list[torch.Tensor], sizes: Any) -> torch.Tensor:
        """The regions [n, C, side, side]."""
        pooled: torch.Tensor = super().forward(maps, [own - self.first_centre for own in boxes], sizes)
        return pooled


class HiddenLayers(nn.Module):
    """The network's layers from the pooled region to the last hidden one."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = [network]

    def forward(self, regions: torch.Tensor) -> torch.Tensor:
        """The last hidden layer [n, D]."""
        layer = self.network[0].card.head.hidden
        return self.network[0].head(regions, [layer])[layer]


class Outputs(nn.Module):
    """Class scores, torchvision's background first, and deltas of all classes, its background's included."""

    def __init__(self, hidden: int, classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(hidden, classes)
        self.bbox_pred = nn.Linear(hidden, 4 * classes)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(scores [n, classes], deltas [n, 4 classes])."""
        return self.cls_score(hidden), self.bbox_pred(hidden)


def torchvision_detector(network: Network, proposals: Any, side: int, longest: int, least_score: float) -> FasterRCNN:
    """The same detector from torchvision's parts, with the weights of `network`; `proposals` are the settings."""
    card, preprocessing = network.card, network.preprocessing
    head, regions = card.check_proposals(), card.heads.regions
    assert regions is not None
    anchors = AnchorGenerator(((1.0,) * len(head.scales),), (head.ratios,))  # of as many anchors
    anchors.cell_anchors = [torch.from_numpy(cell_anchors(card.trunk.stride, head.scales, head.ratios))]
    outputs = Outputs(network.layers[card.head.hidden], network.classes)
    detector = FasterRCNN(
        TorchvisionTrunk(network),
        min_size=side,
        max_size=longest,
        image_mean=list(preprocessing.mean),
        image_std=list(preprocessing.std),
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=proposals.before_suppression,
        rpn_pre_nms_top_n_test=proposals.before_suppression,
        rpn_post_nms_top_n_train=proposals.max_boxes,
        rpn_post_nms_top_n_test=proposals.max_boxes,
        rpn_nms_thresh=proposals.suppression_iou,
        rpn_head=proposal_head(network),
        box_roi_pool=CentredRoIAlign(regions.side, card.trunk.first_centre),
        box_head=HiddenLayers(network),
        box_predictor=outputs,
        box_score_thresh=least_score,
        box_nms_thresh=0.3,
        box_detections_per_img=100,
        bbox_reg_weights=(1.0, 1.0, 1.0, 1.0),
    )
    with torch.no_grad():
        identity = torch.eye(network.layers[card.head.hidden])
        set_rows(outputs.cls_score, linear_map(network, identity, card.scores_layer or ""), background_first)
        set_rows(outputs.bbox_pred, linear_map(network, identity, DELTAS), with_background_deltas)
    return detector.eval()


def linear_map(network: Network, identity: torch.Tensor, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(weight [outputs, D], bias [outputs]) of the linear `layer` after the last hidden one."""
    start = network.card.head.hidden
    bias = network.outputs(torch.zeros_like(identity[:1]), start, [layer])[layer][0]
    return (network.outputs(identity, start, [layer])[layer] - bias).T, bias


def background_first(rows: torch.Tensor) -> torch.Tensor:
    """The rows of class scores with those of the last class, the background, first."""
    return torch.cat([rows[-1:], rows[:-1]])


def with_background_deltas(rows: torch.Tensor) -> torch.Tensor:
    """The rows of deltas with four for the background before them."""
    return torch.cat([torch.zeros_like(rows[:4]), rows])


def set_rows(layer: nn.Linear, values: tuple[torch.Tensor, torch.Tensor], order: Callable[..., torch.Tensor]) -> None:
    """Sets a layer's weight and bias, reordered."""
    layer.weight.copy_(order(values[0]))
    layer.bias.copy_(order(values[1]))


def proposal_head(network: Network) -> nn.Module:
    """The region proposal network as torchvision's, with one score per anchor: the difference of the two."""
    from torchvision.models.detection.rpn import RPNHead

    own = network.module.get_submodule("rpn")
    anchors = network.card.check_proposals().anchors
    head = RPNHead(network.card.trunk.channels, anchors)
    hidden: Any = own.conv
    head.conv = nn.Sequential(hidden, nn.ReLU())
    head.cls_logits = nn.Conv2d(hidden.out_channels, anchors, 1)
    head.bbox_pred = own.bbox_pred
    scores: Any = own.cls_score
    with torch.no_grad():
        head.cls_logits.weight.copy_(scores.weight[anchors:] - scores.weight[:anchors])
        head.cls_logits.bias.copy_(scores.bias[anchors:] - scores.bias[:anchors])
    return head


def agreement(ours: Any, theirs: Any) -> tuple[int, int]:
    """(how many of torchvision's detections above 0.5 ours has, too, with an IoU of 0.8 and the same class; of how
    many)."""
    sure = theirs["scores"].numpy() > 0.5
    boxes, labels = theirs["boxes"].numpy()[sure], theirs["labels"].numpy()[sure] - 1
    same = (iou_matrix(boxes, ours["boxes"]) > 0.8) & (labels[:, None] == ours["label"])
    return int(same.any(axis=1).sum()), int(sure.sum())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints; exits with 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, metavar="RECIPE")
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--memory", action="store_true", help="Compare memory instead of time.")
    parser.add_argument("--only", choices=(OURS, TORCHVISION), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"{datetime.date.today().isoformat()}, {describe_machine(1)}")
    graph = Graph(load_recipe(options.recipe), options.work)
    if options.memory:
        missed = compare_memory(options, "train-joint" in graph.nodes)
    else:
        which = (OURS, TORCHVISION) if options.only is None else (options.only,)
        missed = compare_inference(graph, options.images, which) if options.images else []
        if options.steps and "train-joint" in graph.nodes:
            missed += compare_training(graph, options.steps, which)
    if options.only:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    elif missed:
        sys.exit(f"target missed: {', '.join(missed)}")


def compare_memory(options: argparse.Namespace, training: bool) -> list[str]:
    """Prints the largest resident set of each in a process of its own; what misses the target."""
    parts = {"inference": ("--steps", "0", "--images", str(options.images))}
    if training:
        parts["training"] = ("--images", "0", "--steps", str(options.steps))
    missed = []
    for part, sizes in parts.items():
        peaks = {}
        for which in (OURS, TORCHVISION):
            words = (str(options.recipe), "--work", str(options.work), *sizes, "--only", which)
            command = [sys.executable, "-m", "benchmarks.faster", *words]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks[which] = int(done.stdout.split()[-1]) / 1024
        ratio = peaks[OURS] / peaks[TORCHVISION]
        medians = ", ".join(f"{which} {peak:.0f} MB" for which, peak in peaks.items())
        print(f"{part}: {medians}; ratio {ratio:.2f}, target at most {MEMORY_TARGET}")
        missed += [f"memory of {part}"] if ratio > MEMORY_TARGET else []
    return missed


def compare_inference(graph: Graph, images: int, which: Sequence[str]) -> list[str]:
    """Times the detectors `which` on test images."""
    features, detections = test_node(graph, "features"), test_node(graph, "detections")
    inputs = open_inputs(graph, features, Execution())
    network = inputs.network("network").load()
    proposals, maps = features.sources["proposals"], features.sources["maps"]
    assert isinstance(proposals, Node)
    assert isinstance(maps, Node)
    theirs = torchvision_detector(
        network,
        proposals.settings,
        maps.settings.sides[0],
        maps.settings.longest,
        detections.settings.least_score,
    )
    ours = Detector("ours", graph, detections)
    ours.open()
    dataset: Any = graph.dataset("test")
    seconds: dict[str, list[float]] = {name: [] for name in which}
    agreed = sure = 0
    for count, image_id in enumerate(dataset.image_ids[:images]):
        pixels = dataset.image_file(image_id).read()
        runs: dict[str, Callable[[], Any]] = {
            OURS: partial(ours.detect, image_id, pixels),
            TORCHVISION: partial(run_torchvision, theirs, pixels, network),
        }
        made = {}
        for name in which if count % 2 else tuple(reversed(which)):
            if not count:
                runs[name]()
            started = time.process_time()
            made[name] = runs[name]()
            seconds[name].append(time.process_time() - started)
        if len(which) > 1:
            same, of = agreement(made[OURS], made[TORCHVISION])
            agreed, sure = agreed + same, sure + of
    if len(which) == 1:
        return []
    print(f"{agreed} of torchvision's {sure} detections above 0.5 are ours, too")
    return reported("inference", seconds, INFERENCE_TARGET)


def run_torchvision(detector: FasterRCNN, pixels: Any, network: Network) -> Any:
    """torchvision's detections in an image uint8 [H, W, 3]."""
    with torch.inference_mode():
        return detector([torchvision_input(pixels, network)])[0]


def compare_training(graph: Graph, steps: int, which: Sequence[str]) -> list[str]:
    """Times iterations of joint training, from the decoded images of the same batches."""
    from stages.train_joint.training import JointExamples, JointTraining, joint_examples

    node = graph.nodes["train-joint"]
    settings, inputs = node.settings, open_inputs(graph, node, Execution())
    dataset, source = inputs.dataset("images"), inputs.network("network")
    memory = ImageMemory(dataset, 2_000_000_000)

    def find(image: TrainingImage[None], drawn: DrawnImage) -> JointExamples:
        return joint_examples(image, drawn, settings, source.card.trunk.stride)

    sampler = WholeImages(settings, dataset, memory, source, find, Execution(), Ranks(), regions_per_step=0, counts={})
    with seeded(settings.seed, 0), reproducible(1):
        ours = JointTraining(settings, source, len(dataset.classes), "cpu", Ranks())
        copy = JointTraining(settings, source, len(dataset.classes), "cpu", Ranks()).network
        theirs = TorchvisionTraining(copy, settings)
        seconds: dict[str, list[float]] = {name: [] for name in which}
        for step in range(1, steps + 1):
            drawn = drawn_images(settings, len(dataset.image_ids), step)
            read = [(memory.read(image.position), image) for image in drawn]
            objects = [
                objects_of(dataset, dataset.image_ids[image.position], settings.difficult).seen(
                    View(pixels.shape[1], image.mirrored), settings.least_visible
                )
                for pixels, image in read
            ]
            runs: dict[str, Callable[[], Any]] = {
                OURS: lambda step=step: ours.step(sampler.batch(step)),  # type: ignore[misc]
                TORCHVISION: partial(theirs.step, [(*each, here) for each, here in zip(read, objects, strict=True)]),
            }
            for name in which if step % 2 else tuple(reversed(which)):
                started = time.process_time()
                runs[name]()
                seconds[name].append(time.process_time() - started)
    if len(which) == 1:
        return []
    return reported(
        f"an iteration of {settings.images_per_batch} images",
        {name: taken[1:] for name, taken in seconds.items()},
        TRAINING_TARGET,
    )


class TorchvisionTraining:
    """Joint training of torchvision's detector with the numbers of train-joint's settings."""

    def __init__(self, network: Network, settings: Any) -> None:
        self.network = network
        self.detector = torchvision_detector(network, settings, settings.sides[0], settings.longest, 0.05)
        rpn, heads = self.detector.rpn, self.detector.roi_heads
        rpn.fg_bg_sampler.batch_size_per_image = settings.anchors_per_image
        heads.fg_bg_sampler.batch_size_per_image = settings.regions_per_image
        heads.fg_bg_sampler.positive_fraction = settings.foreground_fraction
        self.detector.train()
        training_mode(network.module)
        weights = [weight for weight in self.detector.parameters() if weight.requires_grad]
        self.optimiser = torch.optim.AdamW(weights, lr=settings.learning_rate)

    def step(self, batch: Sequence[tuple[Any, Any, Any]]) -> float:
        """One update from (pixels, how they are drawn, objects) of each image; the loss."""
        images = [pixels[:, ::-1] if drawn.mirrored else pixels for pixels, drawn, _ in batch]
        targets = [
            {
                "boxes": torch.from_numpy(objects.used),
                "labels": torch.from_numpy(objects.labels[~objects.unused].astype(np.int64)) + 1,
            }
            for *_, objects in batch
        ]
        losses = self.detector([torchvision_input(pixels, self.network) for pixels in images], targets)
        loss: torch.Tensor = sum(losses.values())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())


def torchvision_input(pixels: Any, network: Network) -> torch.Tensor:
    """An image uint8 [H, W, 3] as torchvision's detector takes it, which subtracts the mean itself: [3, H, W]."""
    planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).to(torch.float32)
    ordered = planes.flip(0) if network.preprocessing.order == "bgr" else planes
    return ordered * network.preprocessing.scale


def reported(name: str, seconds: dict[str, list[float]], target: float) -> list[str]:
    """Prints the times and their ratio; the name if the target is missed."""
    ratios = np.array(seconds[OURS]) / np.array(seconds[TORCHVISION])
    low, middle, high = np.percentile(ratios, (5, 50, 95))
    medians = ", ".join(f"{which} {1000 * np.median(taken):.0f} ms" for which, taken in seconds.items())
    print(f"{name}: {medians}; ratio {middle:.2f} ({low:.2f} to {high:.2f}), target at most {target}")
    return [name] if middle > target else []


if __name__ == "__main__":
    main()
