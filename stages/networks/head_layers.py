"""The layers of a detector's heads: the region proposal network, and class scores and deltas of regions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import nn

from stages.networks.cards import CLASS_SCORES, DELTAS
from stages.networks.heads import ProposalHead, RegionHead

Step = Callable[[torch.Tensor], torch.Tensor]

PROPOSALS, REGIONS = "rpn", "regions"
"""The submodules of a network that are its heads."""


class RegionProposalNetwork(nn.Module):
    """A 3 x 3 convolution with a ReLU, and two 1 x 1 convolutions beside each other (Faster R-CNN section 3.1).

    Tensors are laid out as in the release (models/pascal_voc): `cls_score` has 2A outputs, the background of all A
    anchors first, `bbox_pred` 4A, anchor by anchor.
    """

    def __init__(self, head: ProposalHead, channels: int) -> None:
        super().__init__()
        self.scale = head.cells_scale
        self.conv = nn.Conv2d(channels, head.hidden, 3, padding=1)
        self.cls_score = nn.Conv2d(head.hidden, 2 * head.anchors, 1)
        self.bbox_pred = nn.Conv2d(head.hidden, 4 * head.anchors, 1)

    def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From the trunk's map [1, C, H, W]: (class scores [n, 2], background first; deltas [n, 4]) of its n = HWA
        anchors, row by row, the anchors of a cell together (`stages.anchors.map_anchors`)."""
        hidden = torch.relu(self.conv(maps * self.scale if self.scale != 1 else maps))
        scores = self.cls_score(hidden)[0].unflatten(0, (2, -1)).permute(2, 3, 1, 0).reshape(-1, 2)
        deltas = self.bbox_pred(hidden)[0].unflatten(0, (-1, 4)).permute(2, 3, 0, 1).reshape(-1, 4)
        return scores, deltas

    def reset(self, std: float) -> None:
        """Draws all weights from N(0, `std`) with PyTorch's global generator; biases become 0 (section 3.1.3)."""
        for layer in (self.conv, self.cls_score, self.bbox_pred):
            nn.init.normal_(layer.weight, 0.0, std)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


class RegionLayers(nn.Module):
    """The layers that a region head adds to a network (see `RegionHead`).

    `inputs` is the length of the layer that the deltas are computed from.
    """

    def __init__(self, head: RegionHead, channels: int, inputs: int, classes: int) -> None:
        super().__init__()
        self.scale = head.scale
        self.hidden = nn.ModuleDict()
        size = channels * head.side**2
        for number, length in enumerate(head.hidden, start=6):
            self.hidden[f"fc{number}"] = nn.Linear(size, length)
            size = length
        self.dropout = nn.Dropout(0.0)
        if head.hidden:
            self.cls_score = nn.Linear(size, classes)
        self.bbox_pred = nn.Linear(inputs, 4 * (classes - 1))

    def steps(self) -> Mapping[str, Step]:
        """The layers from the pooled region on, by name."""
        names = list(self.hidden)
        steps: OrderedDict[str, Step] = OrderedDict()
        for name in names:
            steps[name] = self.first if name == names[0] else self.later(name)
        return {**steps, CLASS_SCORES: self.scores, DELTAS: self.deltas}

    def first(self, cells: torch.Tensor) -> torch.Tensor:
        """fc6 after its ReLU from pooled regions [N, C, side, side]."""
        return torch.relu(self.hidden["fc6"](cells.flatten(1) * self.scale))

    def later(self, name: str) -> Step:
        """A further fully connected layer, after its ReLU."""
        layer = self.hidden[name]
        return lambda values: torch.relu(layer(self.dropout(values)))

    def scores(self, values: torch.Tensor) -> torch.Tensor:
        """Class scores [N, classes] from the last hidden layer [N, D]."""
        return self.cls_score(self.dropout(values))

    def deltas(self, values: torch.Tensor) -> torch.Tensor:
        """Four deltas for each class but the last, the background, from the last hidden layer [N, D, ...]: float32
        [N, 4 (classes - 1)]."""
        return self.bbox_pred(self.dropout(values.flatten(1))).to(torch.float32)
