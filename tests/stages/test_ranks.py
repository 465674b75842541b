"""Gradients averaged over two processes, with gloo."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from stages.training.ranks import Ranks


def begin() -> nn.ModuleList:
    """A convolution in the training's memory layout, a frozen layer, and two that not every rank uses."""
    module = nn.ModuleList([nn.Conv2d(2, 3, 2), nn.Linear(3, 3), nn.Linear(3, 1), nn.Linear(3, 1)])
    module[1].requires_grad_(False)
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def average_in(rank: int, folder: Path) -> None:
    """Rank r sets every gradient of the convolution to 1, 2, ... times r + 1; the second rank alone has gradients of
    the layer 2, and none those of the layer 3. Saves what they are afterwards."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2)
    module = begin()
    weight = module[0].weight
    counted = torch.arange(1.0, 25.0).view(3, 2, 2, 2)
    weight.grad = ((rank + 1) * counted).to(memory_format=torch.channels_last)
    module[0].bias.grad = torch.full((3,), float(rank))
    if rank:
        module[2].weight.grad = torch.ones((1, 3))
    Ranks(rank, 2).average(module.parameters())
    torch.save({name: weight.grad for name, weight in module.named_parameters()}, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_gradients_are_averaged_over_the_ranks(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=average_in, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    counted = torch.arange(1.0, 25.0).view(3, 2, 2, 2)
    for rank in range(2):
        gradients = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(gradients["0.weight"], 1.5 * counted, rtol=0, atol=0)
        assert gradients["0.bias"].tolist() == [0.5, 0.5, 0.5]
        assert gradients["2.weight"].tolist() == [[0.5, 0.5, 0.5]]
        unused = {name for name, gradient in gradients.items() if gradient is None}
        assert unused == {"1.weight", "1.bias", "2.bias", "3.weight", "3.bias"}


def test_a_single_process_keeps_its_gradients():
    module = begin()
    module[0].bias.grad = torch.ones(3)
    Ranks().average(module.parameters())
    assert module[0].bias.grad.tolist() == [1, 1, 1]
    assert module[0].weight.grad is None
