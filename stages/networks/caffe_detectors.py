"""The layers of the authors' released detectors (.caffemodel files of Fast and Faster R-CNN) as a network's heads.

py-faster-rcnn, models/pascal_voc: fc6 and fc7 are the network's; `cls_score` and `bbox_pred` follow fc7, both with the
background first; a region proposal network reads the trunk's map. Deltas are un-normalised in the files of both the
alternating and the joint training (lib/fast_rcnn/train.py, `snapshot`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stages.benchmark_classes import COCO_CLASSES, VOC_CLASSES
from stages.contract.errors import StageError
from stages.networks.caffemodel import Blobs
from stages.networks.cards import BACKGROUND, NetworkCard
from stages.networks.head_layers import PROPOSALS, REGIONS
from stages.networks.heads import RATIOS, SCALES, Heads, ProposalHead, RegionHead

CLASS_SCORES, BOX_DELTAS = "cls_score", "bbox_pred"
PROPOSAL_CONVOLUTIONS = ("rpn_conv/3x3", "rpn_conv1")
"""Joint training and VGG-16; ZF's and VGG_CNN_M_1024's alternating training."""
PROPOSAL_SCORES, PROPOSAL_DELTAS = "rpn_cls_score", "rpn_bbox_pred"
SCALES_OF = {9: SCALES, 12: (4.0, *SCALES)}
"""The anchors' scales, by their number per cell: those of VOC and of COCO."""
CLASSES_OF = {len(names): names for names in (VOC_CLASSES, COCO_CLASSES)}


@dataclass(frozen=True)
class CaffeDetector:
    """A detector in a .caffemodel: the network's `own_layers`, with class scores in place of its last layer, the
    `head_tensors` of its `heads` by their names in the state dict, `class_names` with BACKGROUND last, and `changes`,
    sentences about what differs from the file."""

    own_layers: dict[str, Blobs]
    head_tensors: dict[str, torch.Tensor]
    heads: Heads
    class_names: tuple[str, ...]
    changes: Sequence[str]


def is_detector(layers: Mapping[str, Blobs]) -> bool:
    """Whether a .caffemodel's layers are those of Fast R-CNN: class scores and deltas of regions."""
    return all(layers.get(name) for name in (CLASS_SCORES, BOX_DELTAS))


def detector_in(
    card: NetworkCard, layers: Mapping[str, Blobs], class_names: Sequence[str], path: Path
) -> CaffeDetector:
    """The detector in the file `path` whose trunk and fully connected layers are the network's.

    `class_names` are those of the file, in its order, without the background; empty: VOC's 20 or COCO's 80. Raises
    StageError for missing layers, numbers of outputs that do not fit each other, and unknown classes.
    """
    if not card.caffe_names:
        raise StageError(
            f"{path}: a .caffemodel cannot be imported as {card.name}; choose --network from tnet, onet, zf"
        )
    scores, deltas = (parameters(layers, name, 2, path) for name in (CLASS_SCORES, BOX_DELTAS))
    outputs = len(scores[0])
    if len(deltas[0]) != 4 * outputs:
        raise StageError(
            f"{path}: layer '{BOX_DELTAS}' has {len(deltas[0])} outputs, not 4 for each of the {outputs} classes of "
            f"'{CLASS_SCORES}'; name a file of Fast or Faster R-CNN"
        )
    names = named_classes(class_names, outputs - 1, path)
    proposals, tensors = proposal_network(layers, path)
    own = {
        name: blobs
        for name, blobs in layers.items()
        if name not in (CLASS_SCORES, BOX_DELTAS, *PROPOSAL_CONVOLUTIONS, PROPOSAL_SCORES, PROPOSAL_DELTAS)
    }
    changes = ["the background is the last class, not the first, and has no box deltas"]
    if card.trunk.margin != (0, 0):
        changes.append(
            f"{card.name} pads whole images where the release pads every layer, which changes maps near the edges"
        )
    last = card.scores_layer
    assert last is not None
    own[last] = [np.roll(blob, -1, axis=0) for blob in scores]
    tensors |= {f"{REGIONS}.{BOX_DELTAS}.{kind}": as_tensor(blob[4:]) for kind, blob in named(deltas)}
    heads = Heads(proposals, RegionHead("max", card.head.side))
    return CaffeDetector(own, tensors, heads, (*names, BACKGROUND), changes)


def named_classes(class_names: Sequence[str], count: int, path: Path) -> tuple[str, ...]:
    """The names of a detector's `count` classes: `class_names`, else VOC's or COCO's. Raises StageError."""
    names = tuple(class_names) or CLASSES_OF.get(count)
    if names is None:
        raise StageError(f"{path}: has {count} classes; name them, in the file's order, with --classes A,B,C")
    if len(names) != count:
        raise StageError(
            f"--classes: names {len(names)} classes, but {path} has {count} besides the background; name all of them"
        )
    if len({*names, BACKGROUND, ""}) != count + 2:
        raise StageError(f"--classes {','.join(names)}: each class needs a name of its own, other than '{BACKGROUND}'")
    return names


def proposal_network(layers: Mapping[str, Blobs], path: Path) -> tuple[ProposalHead | None, dict[str, torch.Tensor]]:
    """The region proposal network, and its tensors by their names in the state dict; None if the file has none.

    Raises StageError if one of its layers is missing, or if its number of anchors is not the release's.
    """
    convolution = next((name for name in PROPOSAL_CONVOLUTIONS if layers.get(name)), PROPOSAL_CONVOLUTIONS[0])
    sources = {"conv": convolution, "cls_score": PROPOSAL_SCORES, "bbox_pred": PROPOSAL_DELTAS}
    missing = [name for name in sources.values() if not layers.get(name)]
    if len(missing) == len(sources):
        return None, {}
    if missing:
        raise StageError(
            f"{path}: has a region proposal network without layer '{missing[0]}'; fetch the file again, or name another"
        )
    blobs = {ours: parameters(layers, theirs, 4, path) for ours, theirs in sources.items()}
    anchors = len(blobs["cls_score"][0]) / 2
    if anchors not in SCALES_OF:
        raise StageError(
            f"{path}: layer '{PROPOSAL_SCORES}' has two scores for each of {anchors:g} anchors, where the releases "
            f"have {' or '.join(map(str, SCALES_OF))}, so their sizes are unknown; name another file"
        )
    head = ProposalHead(SCALES_OF[int(anchors)], RATIOS, len(blobs["conv"][0]))
    tensors = {
        f"{PROPOSALS}.{name}.{kind}": as_tensor(blob) for name, pair in blobs.items() for kind, blob in named(pair)
    }
    return head, tensors


def parameters(layers: Mapping[str, Blobs], name: str, dimensions: int, path: Path) -> Blobs:
    """A layer's weights, with this number of dimensions, and biases [outputs]. Raises StageError if it has others."""
    blobs = layers[name]
    shapes = [without_leading_ones(blob.shape, least) for blob, least in zip(blobs, (dimensions, 1), strict=False)]
    if len(blobs) != 2 or [len(shape) for shape in shapes] != [dimensions, 1] or shapes[0][0] != shapes[1][0]:
        raise StageError(
            f"{path}: layer '{name}' does not have weights and one bias for each output; fetch the file again"
        )
    return [blob.reshape(shape) for blob, shape in zip(blobs, shapes, strict=True)]


def named(pair: Blobs) -> list[tuple[str, np.ndarray]]:
    """Weights and biases by their names in PyTorch."""
    return list(zip(("weight", "bias"), pair, strict=True))


def as_tensor(blob: np.ndarray) -> torch.Tensor:
    """A blob [...] as a tensor of its own."""
    return torch.from_numpy(np.ascontiguousarray(blob))


def without_leading_ones(shape: Sequence[int], dimensions: int) -> list[int]:
    """A shape without the leading ones of Caffe's old formats, but with at least `dimensions` entries."""
    kept = list(shape)
    while len(kept) > dimensions and kept[0] == 1:
        kept.pop(0)
    return kept
