"""Building the networks, from torchvision's modules and our own, and computing their named layers step by step."""

from __future__ import annotations

import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from stages.networks.caffe_layers import CrossChannelNormalisation, WithinChannelNormalisation
from stages.networks.cards import DELTAS, EDGES, NETWORKS, POOLED, SOFTMAX, NetworkCard
from stages.networks.efficientnet import EfficientNetLite0
from stages.networks.head_layers import (
    PROPOSALS,
    REGIONS,
    WINDOWS,
    RegionLayers,
    RegionProposalNetwork,
    Step,
    WindowLayers,
)

Classifier = nn.Linear | nn.Conv2d


class ShapeNet(nn.Module):
    """A small network for the `shapes` data: four convolutions and two linear layers on 64 x 64 pixels.

    Input float32 [N, 3, 64, 64], output float32 [N, classes]. Since the first convolution has stride 2, a region costs
    only about 13 million multiplications.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = convolution(3, 24, kernel=5, stride=2)
        self.conv2 = convolution(24, 48, kernel=3)
        self.conv3 = convolution(48, 96, kernel=3)
        self.conv4 = convolution(96, 96, kernel=3)
        self.pool = nn.MaxPool2d(2)
        self.fc5 = nn.Linear(1536, 256)
        self.dropout = nn.Dropout(0.3)
        self.fc6 = nn.Linear(256, classes)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Class scores [N, classes]."""
        return self.scores(self.hidden(self.pool(self.maps(batch))))

    def maps(self, batch: torch.Tensor) -> torch.Tensor:
        """conv4 after its ReLU: [N, 96, 8, 8] for images of 64 x 64."""
        batch = self.pool(self.conv1(batch))
        batch = self.pool(self.conv2(batch))
        return self.conv4(self.conv3(batch))

    def hidden(self, maps: torch.Tensor) -> torch.Tensor:
        """fc5 after its ReLU, [N, 256], from pool4 [N, 96, 4, 4]."""
        return torch.relu(self.fc5(maps.flatten(1)))

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """fc6, the class scores [N, classes], from fc5 [N, 256]."""
        return self.fc6(self.dropout(hidden))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation and ReLU; the maps keep their size (divided by the stride)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def tnet(classes: int, width: int = 4096) -> nn.Sequential:
    """T-Net: Krizhevsky's network as the Caffe reference model (CaffeNet), with Caffe's layer names and constants.

    Input float32 [N, 3, 227, 227], output float32 [N, classes]; `width` is that of fc6 and fc7. R-CNN's release was
    fine-tuned from this model (pascal_finetune_deploy.prototxt). Krizhevsky et al. (2012) normalise before pooling, and
    add 2 to the sums where Caffe adds 1; here, as in the release, pooling comes first. The filters of conv2, conv4 and
    conv5 see half of the channels (two groups, for the two GPUs of 2012).
    """
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(3, 96, 11, stride=4),
            relu1=nn.ReLU(inplace=True),
            pool1=nn.MaxPool2d(3, stride=2, ceil_mode=True),
            norm1=CrossChannelNormalisation(),
            conv2=nn.Conv2d(96, 256, 5, padding=2, groups=2),
            relu2=nn.ReLU(inplace=True),
            pool2=nn.MaxPool2d(3, stride=2, ceil_mode=True),
            norm2=CrossChannelNormalisation(),
            conv3=nn.Conv2d(256, 384, 3, padding=1),
            relu3=nn.ReLU(inplace=True),
            conv4=nn.Conv2d(384, 384, 3, padding=1, groups=2),
            relu4=nn.ReLU(inplace=True),
            conv5=nn.Conv2d(384, 256, 3, padding=1, groups=2),
            relu5=nn.ReLU(inplace=True),
            pool5=nn.MaxPool2d(3, stride=2, ceil_mode=True),
            **fully_connected(256 * 6 * 6, (width, width), classes),
        )
    )


def onet(classes: int, width: int = 4096) -> nn.Sequential:
    """O-Net: VGG-16 (Simonyan and Zisserman, configuration D) with Caffe's layer names (VGG_ILSVRC_16_layers).

    Input float32 [N, 3, 224, 224], output float32 [N, classes]; `width` is that of fc6 and fc7.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = 3
    for block, (outputs, convolutions) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        for position in range(1, convolutions + 1):
            parts[f"conv{block}_{position}"] = nn.Conv2d(inputs, outputs, 3, padding=1)
            parts[f"relu{block}_{position}"] = nn.ReLU(inplace=True)
            inputs = outputs
        parts[f"pool{block}"] = nn.MaxPool2d(2, stride=2, ceil_mode=True)
    parts.update(fully_connected(512 * 7 * 7, (width, width), classes))
    return nn.Sequential(parts)


def zf(classes: int, width: int = 4096) -> nn.Sequential:
    """ZF: the fast Zeiler-Fergus network of Fast and Faster R-CNN (models/pascal_voc/ZF of their release).

    Input float32 [N, 3, 224, 224], output float32 [N, classes]; `width` is that of fc6 and fc7. It normalises within
    each map, not across maps. In the release fc6 follows RoI max pooling to 6 x 6; pool5 pools the whole 15 x 15 map
    that way, with overlapping windows.
    """
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(3, 96, 7, stride=2, padding=3),
            relu1=nn.ReLU(inplace=True),
            norm1=WithinChannelNormalisation(),
            pool1=nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
            conv2=nn.Conv2d(96, 256, 5, stride=2, padding=2),
            relu2=nn.ReLU(inplace=True),
            norm2=WithinChannelNormalisation(),
            pool2=nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
            conv3=nn.Conv2d(256, 384, 3, padding=1),
            relu3=nn.ReLU(inplace=True),
            conv4=nn.Conv2d(384, 384, 3, padding=1),
            relu4=nn.ReLU(inplace=True),
            conv5=nn.Conv2d(384, 256, 3, padding=1),
            relu5=nn.ReLU(inplace=True),
            pool5=nn.AdaptiveMaxPool2d(6),
            **fully_connected(256 * 6 * 6, (width, width), classes),
        )
    )


def overfeat_fast(
    classes: int, channels: Sequence[int] = (96, 256, 512, 1024, 1024), widths: Sequence[int] = (3072, 4096)
) -> nn.Sequential:
    """OverFeat's fast network (arXiv 1312.6229, Table 1), its layers numbered as in the paper.

    Input float32 [N, 3, 231, 231], output float32 [N, classes]; `channels` are those of conv1 to conv5, `widths` those
    of fc6 and fc7. Only the 3 x 3 convolutions pad, and pooling leaves out rows and columns that do not fill a window.
    """
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(3, channels[0], 11, stride=4),
            relu1=nn.ReLU(inplace=True),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(channels[0], channels[1], 5),
            relu2=nn.ReLU(inplace=True),
            pool2=nn.MaxPool2d(2),
            **padded_convolutions(channels[1:], first=3),
            pool5=nn.MaxPool2d(2),
            **fully_connected(channels[-1] * 6 * 6, widths, classes),
        )
    )


def overfeat_accurate(
    classes: int, channels: Sequence[int] = (96, 256, 512, 512, 1024, 1024), widths: Sequence[int] = (4096, 4096)
) -> nn.Sequential:
    """OverFeat's accurate network (arXiv 1312.6229, appendix), its layers numbered as in the paper.

    Input float32 [N, 3, 221, 221], output float32 [N, classes]; `channels` are those of conv1 to conv6, `widths` those
    of fc7 and fc8. Padding and pooling are as in the fast network.
    """
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(3, channels[0], 7, stride=2),
            relu1=nn.ReLU(inplace=True),
            pool1=nn.MaxPool2d(3),
            conv2=nn.Conv2d(channels[0], channels[1], 7),
            relu2=nn.ReLU(inplace=True),
            pool2=nn.MaxPool2d(2),
            **padded_convolutions(channels[1:], first=3),
            pool6=nn.MaxPool2d(3),
            **fully_connected(channels[-1] * 5 * 5, widths, classes, first=7),
        )
    )


def padded_convolutions(channels: Sequence[int], first: int) -> dict[str, nn.Module]:
    """3 x 3 convolutions from each number of channels to the next, numbered from `first` on; maps keep their size."""
    parts: dict[str, nn.Module] = {}
    for number, (inputs, outputs) in enumerate(itertools.pairwise(channels), start=first):
        parts[f"conv{number}"] = nn.Conv2d(inputs, outputs, 3, padding=1)
        parts[f"relu{number}"] = nn.ReLU(inplace=True)
    return parts


def fully_connected(inputs: int, widths: Sequence[int], classes: int, first: int = 6) -> dict[str, nn.Module]:
    """Fully connected layers numbered from `first` on, fc6, fc7 and fc8 in all Caffe networks here: `widths` are those
    before the class scores. Dropout is active only in training."""
    parts: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    for number, (size, width) in enumerate(itertools.pairwise((inputs, *widths)), start=first):
        parts[f"fc{number}"] = nn.Linear(size, width)
        parts[f"relu{number}"] = nn.ReLU(inplace=True)
        parts[f"drop{number}"] = nn.Dropout(0.5)
    return {**parts, f"fc{first + len(widths)}": nn.Linear(widths[-1], classes)}


OURS: dict[str, Callable[[int], nn.Module]] = {
    "shapenet": ShapeNet,
    "tnet": tnet,
    "onet": onet,
    "zf": zf,
    "overfeat-fast": overfeat_fast,
    "overfeat-accurate": overfeat_accurate,
    "efficientnet_lite0": EfficientNetLite0,
}
WITHOUT_DROPOUT = ("squeezenet1_0", "resnet50")  # torchvision models whose dropout rate is fixed, or that have none


def build(card: NetworkCard, classes: int) -> nn.Module:
    """The network for `classes` classes with the heads of its card, with PyTorch's random initialisation.

    A region or window head with hidden layers of its own takes the place of the network's layers after its trunk.
    """
    module = build_own(NETWORKS[card.name], classes)
    heads, trunk = card.heads, card.trunk
    if any(head is not None and head.hidden for head in (heads.regions, heads.windows)):
        remove_all_but(module, trunk.parts)
    if heads.windows is not None:
        module.add_module(WINDOWS, WindowLayers(heads.windows, trunk.channels, card.head.side, classes))
    if heads.regions is not None:
        inputs = card.dimensions(classes)[card.head.hidden]
        module.add_module(REGIONS, RegionLayers(heads.regions, trunk.channels, inputs, classes))
    if heads.proposals is not None:
        module.add_module(PROPOSALS, RegionProposalNetwork(heads.proposals, trunk.channels))
    return module


def build_own(card: NetworkCard, classes: int) -> nn.Module:
    """The network without further heads."""
    if card.name in OURS:
        return OURS[card.name](classes)
    from torchvision import models

    options = {} if card.name in WITHOUT_DROPOUT else {"dropout": 0.5}
    return models.get_model(card.name, weights=None, num_classes=classes, **options)


def remove_all_but(module: nn.Module, parts: Sequence[str]) -> None:
    """Replaces all submodules that have weights, but for `parts`, by ones that do nothing."""
    with_weights = [name for name, part in module.named_modules() if name and any(True for _ in part.parameters())]
    for name in with_weights:
        if not any(f"{part}.".startswith(f"{name}.") or name.startswith(f"{part}.") for part in parts):
            with contextlib.suppress(AttributeError):  # it was inside one that is gone
                module.set_submodule(name, nn.Identity())


def empty_module(card: NetworkCard, classes: int) -> nn.Module:
    """The network on the meta device, without memory for its weights: for its shapes, or to load weights into."""
    with torch.device("meta"):
        return build(card, classes)


def classifier_name(card: NetworkCard, module: nn.Module) -> str:
    """The submodule that computes the class scores of a network without further heads: the last linear layer or
    convolution.

    Raises BadSetting if the network has no class scores.
    """
    card.check_classifier()
    return [name for name, part in module.named_modules() if isinstance(part, Classifier)][-1]


def steps_of(card: NetworkCard, module: nn.Module) -> Mapping[str, Step]:
    """Per layer of the card, the function from its parent's output to its own (maps are [N, C, H, W])."""
    own, regions, windows = NETWORKS[card.name], card.heads.regions, card.heads.windows
    if regions is not None:
        layers = module.get_submodule(REGIONS)
        assert isinstance(layers, RegionLayers)
        if not regions.hidden:
            return {**own_steps(own, module), SOFTMAX: class_probabilities, DELTAS: layers.deltas}
        return after_pooling(trunk_steps(own, module), nn.AdaptiveMaxPool2d(regions.side), layers)
    if windows is not None:
        head = module.get_submodule(WINDOWS)
        assert isinstance(head, WindowLayers)
        if not windows.hidden:
            return {**own_steps(own, module), SOFTMAX: class_probabilities, EDGES: head.edges}
        return after_pooling(trunk_steps(own, module), nn.MaxPool2d(windows.pool), head)
    return {**own_steps(own, module), SOFTMAX: class_probabilities}


def after_pooling(
    trunk: Mapping[str, Step], pooling: nn.Module, layers: RegionLayers | WindowLayers
) -> Mapping[str, Step]:
    """The steps of a network whose own layers after the `trunk` were replaced by `layers` on what is pooled."""
    return {**trunk, POOLED: pooling, **layers.steps(), SOFTMAX: class_probabilities}


def own_steps(card: NetworkCard, module: nn.Module) -> Mapping[str, Step]:
    """`steps_of` a network without further heads, but for the softmax."""
    return sequence_steps(card, module) if isinstance(module, nn.Sequential) else STEPS[card.name](module)


def trunk_steps(card: NetworkCard, module: nn.Module) -> Mapping[str, Step]:
    """`own_steps` up to the trunk's last layer."""
    if isinstance(module, nn.Sequential):
        steps, names = sequence_steps(card, module), card.needed([card.trunk.layer])
        return {name: steps[name] for name in names}
    return {card.trunk.layer: TRUNKS[card.name](module)}


def class_probabilities(scores: torch.Tensor) -> torch.Tensor:
    """The softmax of scores [N, classes], in float32 whatever the network's precision."""
    return torch.softmax(scores.to(torch.float32), dim=1)


def sequence_steps(card: NetworkCard, module: nn.Sequential) -> Mapping[str, Step]:
    """Networks whose parts have their layers' names: each layer follows the one before it, and includes its ReLU."""
    names = [name for name, _ in module.named_children()]
    steps: dict[str, Step] = {}
    first = 0
    for layer in card.layers:
        if layer == SOFTMAX:
            continue
        last = names.index(layer) + 1
        if last < len(names) and isinstance(module[last], nn.ReLU):
            last += 1
        steps[layer] = module[first:last]
        first = last
    return steps


def chain_trunk(module: nn.Module) -> Step:
    """AlexNet and VGG16: all convolutions, without the last pooling."""
    return nn.Sequential(*list(module.features.children())[:-1])  # type: ignore[union-attr]


def squeezenet_trunk(module: nn.Module) -> Step:
    """SqueezeNet: up to fire9."""
    return module.features  # type: ignore[return-value]


def resnet_trunk(module: nn.Module) -> Step:
    """ResNet: up to conv4_x (torchvision's layer3)."""
    beginning = (module.conv1, module.bn1, module.relu, module.maxpool)
    return nn.Sequential(*beginning, module.layer1, module.layer2, module.layer3)  # type: ignore[arg-type]


def efficientnet_trunk(module: nn.Module) -> Step:
    assert isinstance(module, EfficientNetLite0)
    return module.maps


def shapenet_trunk(module: nn.Module) -> Step:
    assert isinstance(module, ShapeNet)
    return module.maps


def chain_steps(last_convolution: str, module: nn.Module) -> Mapping[str, Step]:
    """AlexNet and VGG16: the last convolution, pool5, fc6 and fc7 (all but pool5 after their ReLU), and the scores."""
    pool = list(module.features.children())[-1]  # type: ignore[union-attr]
    classifier = list(module.classifier.children())  # type: ignore[union-attr]
    linear = [position for position, part in enumerate(classifier) if isinstance(part, nn.Linear)]
    fc6, fc7, fc8 = linear
    return {
        last_convolution: chain_trunk(module),
        "pool5": nn.Sequential(pool, module.avgpool),  # type: ignore[arg-type]
        "fc6": nn.Sequential(nn.Flatten(), *classifier[: fc6 + 2]),
        "fc7": nn.Sequential(*classifier[fc6 + 2 : fc7 + 2]),
        "fc8": nn.Sequential(*classifier[fc7 + 2 : fc8 + 1]),
    }


def squeezenet_steps(module: nn.Module) -> Mapping[str, Step]:
    """SqueezeNet: the maps of fire9, averaged on a coarse grid, and the class scores (by global averaging)."""
    return {
        "fire9": squeezenet_trunk(module),
        "fire9_2x2": nn.AdaptiveAvgPool2d(2),
        "fire9_3x3": nn.AdaptiveAvgPool2d(3),
        "pool10": module.classifier,  # type: ignore[dict-item]
    }


def resnet_steps(module: nn.Module) -> Mapping[str, Step]:
    """ResNet: up to conv4_x (torchvision's layer3), conv5_x (layer4), its channel means, and the class scores."""
    return {
        "layer3": resnet_trunk(module),
        "layer4": module.layer4,  # type: ignore[dict-item]
        "avgpool": module.avgpool,  # type: ignore[dict-item]
        "fc": nn.Sequential(nn.Flatten(), module.fc),  # type: ignore[arg-type]
    }


def efficientnet_steps(module: nn.Module) -> Mapping[str, Step]:
    assert isinstance(module, EfficientNetLite0)
    return {
        "stage6": efficientnet_trunk(module),
        "stage8": module.late,
        "avgpool": module.averages,
        "fc": module.scores,
    }


def shapenet_steps(module: nn.Module) -> Mapping[str, Step]:
    assert isinstance(module, ShapeNet)
    return {"conv4": shapenet_trunk(module), "pool4": module.pool, "fc5": module.hidden, "fc6": module.scores}


STEPS: dict[str, Callable[[nn.Module], Mapping[str, Step]]] = {
    "alexnet": partial(chain_steps, "conv5"),
    "vgg16": partial(chain_steps, "conv5_3"),
    "squeezenet1_0": squeezenet_steps,
    "resnet50": resnet_steps,
    "efficientnet_lite0": efficientnet_steps,
    "shapenet": shapenet_steps,
}

TRUNKS: dict[str, Callable[[nn.Module], Step]] = {
    "alexnet": chain_trunk,
    "vgg16": chain_trunk,
    "squeezenet1_0": squeezenet_trunk,
    "resnet50": resnet_trunk,
    "efficientnet_lite0": efficientnet_trunk,
    "shapenet": shapenet_trunk,
}
