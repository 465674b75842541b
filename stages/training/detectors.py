"""A step of training a detector on whole images: the trunk runs once per image, and heads take losses from its map."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from stages.datasets import Dataset
from stages.networks import NetworkCard, NetworkSource
from stages.networks.architectures import build
from stages.networks.cards import Trunk, lies_in
from stages.networks.network import Network
from stages.networks.weights import State
from stages.training.loop import Trainer
from stages.training.optimiser import make_optimiser
from stages.training.parameters import freeze, parameter_groups, training_mode
from stages.training.ranks import Ranks
from stages.training.schedule import schedule_of
from stages.training.settings import WholeImageTraining
from stages.training.state import seeded
from stages.training.validation_images import ValidationImages
from stages.training.whole_images import TrainingImage

Examples = TypeVar("Examples")
Measured = dict[str, torch.Tensor]
"""Sums over an image's examples, scalars: what the log is computed from."""


def network_with_heads(
    source: NetworkSource, card: NetworkCard, classes: int, drawn_again: Collection[str], seed: int
) -> nn.Module:
    """The module of `card` for `classes` classes, float32 on the CPU, with the tensors that `source` has for it.

    What the source lacks, or has in another shape, and the layers `drawn_again` keep PyTorch's initialisation, drawn
    from `seed`.
    """
    with seeded(seed, 0):
        module = build(card, classes)
    own, given = module.state_dict(), source.module().state_dict()
    kept: State = {
        name: given[name]
        for name, tensor in own.items()
        if name in given and given[name].shape == tensor.shape and not lies_in(name, drawn_again)
    }
    module.load_state_dict({**own, **kept})
    return module.requires_grad_(True)


def after_trunk(module: nn.Module, trunk: Trunk, *trained: str) -> list[str]:
    """The submodules with weights that are neither of the trunk nor inside one of those `trained`: the heads and layers
    that are carried along."""
    return sorted(
        {
            name.rpartition(".")[0]
            for name, _ in module.named_parameters()
            if not trunk.owns(name) and not lies_in(name, trained)
        }
    )


class DetectorTraining(Trainer[Sequence[TrainingImage[Examples]]]):
    """Trains the heads of a network, and its trunk unless that is frozen, together with the other `ranks`.

    The gradient is that of the mean over a batch's images of each image's loss; images pass through the network one by
    one, never padded to a common size.
    """

    remedy = "learning_rate"

    def __init__(
        self,
        settings: WholeImageTraining,
        module: nn.Module,
        network: NetworkCard,
        source: NetworkSource,
        classes: int,
        device: str,
        ranks: Ranks,
        *,
        new: Collection[str],
        fixed: Collection[str] = (),
    ) -> None:
        """`new` and `fixed` name submodules: those with the rate of new layers, and those that are carried along as
        they are. Raises BadSetting for layers that cannot be frozen."""
        self.settings = settings
        freeze(module, [*settings.frozen_parts(network), *fixed], f"{self.card.name}.frozen")
        module = module.to(device)
        self.network = Network(network, module, classes, source.preprocessing)
        training_mode(module)
        groups = parameter_groups(
            module,
            new,
            new_rate=settings.new_layer_rate,
            bias_rate=settings.bias_rate,
            weight_decay=settings.weight_decay,
        )
        optimiser = make_optimiser(
            settings.optimiser, groups, learning_rate=settings.learning_rate, momentum=settings.momentum
        )
        super().__init__(
            module,
            optimiser,
            steps=settings.iterations,
            schedule=schedule_of(
                settings.schedule, settings.learning_rate, settings.iterations, settings.step, settings.warm_up
            ),
            seed=settings.seed,
            device=device,
            ranks=ranks,
        )

    def update(self, batch: Sequence[TrainingImage[Examples]], generator: torch.Generator) -> Mapping[str, float]:
        """One step on this rank's images; returns the losses and accuracies of the whole batch, before the step."""
        self.optimiser.zero_grad(set_to_none=True)
        sums: Measured = {}
        for image in batch:
            loss, measured = self.image_loss(image)
            if loss.requires_grad:
                (loss / len(batch)).backward()
            add_up(sums, measured)
        weights = [weight for group in self.optimiser.param_groups for weight in group["params"]]
        self.ranks.average(weights)
        if self.settings.most_gradient:
            nn.utils.clip_grad_norm_(weights, self.settings.most_gradient)
        self.optimiser.step()
        return self.measured(self.totals(sums), self.settings.images_per_batch)

    def totals(self, sums: Measured) -> dict[str, float]:
        """Sums over all ranks, from those of this one."""
        return dict(zip(sums, self.ranks.total(torch.stack(list(sums.values()))), strict=True))

    @torch.no_grad()
    def validated(self, images: ValidationImages[Examples]) -> dict[str, float]:
        """The losses and accuracies on a validation set, and what `examined` says. Dropout is off; nothing of the
        training changes."""
        module, found = self.network.module, {}
        sums: Measured = {}
        module.eval()
        try:
            with seeded(self.settings.seed, 0, self.device):
                for image_id, image in images:
                    with self.arithmetic():
                        maps = self.map_of(image)
                        add_up(sums, self.losses(maps, image)[1])
                        found[image_id] = self.examine(maps, image, image_id)
        finally:
            training_mode(module)
        examined = self.examined(self.ranks.gathered(found), images.dataset)
        return {**self.measured(self.totals(sums), len(images)), **examined}

    def examine(self, maps: torch.Tensor, image: TrainingImage[Examples], image_id: str) -> Any:
        """What an image of the validation set contributes to `examined`, given the trunk's map of it."""

    def examined(self, found: Mapping[str, Any], dataset: Dataset) -> dict[str, float]:
        """What is measured on a validation set besides losses and accuracies, from what `examine` found in each image,
        by its id."""
        return {}

    def image_loss(self, image: TrainingImage[Examples]) -> tuple[torch.Tensor, Measured]:
        """The loss of one image, a scalar, and what is measured of it."""
        with self.arithmetic():
            return self.losses(self.map_of(image), image)

    def arithmetic(self) -> torch.autocast:
        """The context of the setting `precision`."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    def map_of(self, image: TrainingImage[Examples]) -> torch.Tensor:
        """The trunk's map of an image, [1, C, H', W']."""
        return image.inputs if image.is_map else self.maps(image.inputs)

    def maps(self, inputs: torch.Tensor) -> torch.Tensor:
        """The trunk's map [1, C, H', W'] of an image [1, 3, H, W]."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.settings.trunk_is_frozen):
            return self.network.maps(inputs)

    @abstractmethod
    def losses(self, maps: torch.Tensor, image: TrainingImage[Examples]) -> tuple[torch.Tensor, Measured]:
        """The loss of one image, given the trunk's map of it [1, C, H', W'], and what is measured of it."""

    @abstractmethod
    def measured(self, sums: Mapping[str, float], images: int) -> dict[str, float]:
        """The losses and accuracies for the log, from what was measured of a batch of `images`, summed over them."""


def add_up(sums: Measured, measured: Measured) -> None:
    """Adds what was measured of an image to the sums, float64 on the CPU."""
    for name, value in measured.items():
        sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + value.detach().double().cpu()
