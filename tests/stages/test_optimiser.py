"""Optimisers: a step of each worked out by hand, and all of their state kept by a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stages.training.optimiser import OPTIMISERS, make_optimiser
from stages.training.parameters import parameter_groups
from stages.training.state import restore_training, training_state


def stepped(method: str, steps: int) -> tuple[float, float]:
    """Weight and bias, both 1 at first, after steps at rate 0.1 with gradients 0.5; the weight decays by 0.2."""
    module = nn.Linear(1, 1)
    nn.init.ones_(module.weight)
    nn.init.ones_(module.bias)
    groups = parameter_groups(module, (), new_rate=1.0, bias_rate=1.0, weight_decay=0.2)
    optimiser = make_optimiser(method, groups, learning_rate=0.1, momentum=0.9)
    for _ in range(steps):
        module.weight.grad, module.bias.grad = torch.full((1, 1), 0.5), torch.full((1,), 0.5)
        optimiser.step()
    return module.weight.item(), module.bias.item()


def test_sgd_by_hand():
    """The bias moves by 0.1 x 0.5, then by 0.1 x (0.9 x 0.5 + 0.5); the weight's gradients are 0.5 + 0.2 w."""
    np.testing.assert_allclose(stepped("sgd", 1), [1 - 0.07, 1 - 0.05], rtol=1e-6)
    np.testing.assert_allclose(stepped("sgd", 2), [0.93 - 0.1 * (0.9 * 0.7 + 0.686), 0.95 - 0.095], rtol=1e-6)


def test_adamw_by_hand():
    """Under a constant gradient each step is the rate; before it the weight loses 0.1 x 0.2 of itself."""
    np.testing.assert_allclose(stepped("adamw", 1), [0.98 - 0.1, 0.9], rtol=1e-6)
    np.testing.assert_allclose(stepped("adamw", 2), [0.98 * 0.88 - 0.1, 0.8], rtol=1e-6)


def test_an_unknown_optimiser():
    with pytest.raises(ValueError, match="method = 'adam' must be one of sgd, adamw"):
        make_optimiser("adam", [], learning_rate=0.1)


def begin(method: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A convolution in the training's memory layout, a frozen layer and a linear layer."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(16, 2))
    module[1].requires_grad_(False)
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = parameter_groups(module, ["3"], new_rate=10.0, bias_rate=2.0, weight_decay=0.05)
    return module, make_optimiser(method, groups, learning_rate=0.01)


def train(module: nn.Module, optimiser: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last + 1):
        inputs = torch.randn((5, 3, 4, 4), generator=torch.Generator().manual_seed(step))
        optimiser.zero_grad(set_to_none=True)
        module(inputs.contiguous(memory_format=torch.channels_last)).square().mean().backward()
        optimiser.step()


@pytest.mark.parametrize("method", OPTIMISERS)
def test_a_checkpoint_restores_the_optimiser_bit_for_bit(method):
    module, optimiser = begin(method)
    train(module, optimiser, 1, 3)
    saved = {name: value.copy() for name, value in training_state(module, optimiser).items()}
    train(module, optimiser, 4, 6)
    other, others = begin(method)
    restore_training(other, others, saved)
    assert {name: value.tobytes() for name, value in training_state(other, others).items()} == {
        name: value.tobytes() for name, value in saved.items()
    }
    train(other, others, 4, 6)
    ended, resumed = training_state(module, optimiser), training_state(other, others)
    assert {name: value.tobytes() for name, value in resumed.items()} == {
        name: value.tobytes() for name, value in ended.items()
    }
    assert any(name.startswith("optimiser/3.weight/") for name in saved)
    assert not any(name.startswith("optimiser/1.") for name in saved)
