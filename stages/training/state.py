"""What the stages that train a network share: their random numbers, their arithmetic, their state between two steps."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from cache import Record
from stages.contract.errors import StageError
from stages.networks.weights import recorded_state, weight_record

MOMENTUM = "momentum/"


@contextlib.contextmanager
def seeded(seed: int, step: int, device: str = "cpu") -> Iterator[torch.Generator]:
    """The random numbers of one step (an epoch, an iteration; 0: the initial weights), which depend on nothing else.

    PyTorch's own (initial weights, dropout), on the CPU and on `device`, are set and later set back; the generator that
    is yielded is another.
    """
    first, second = np.random.SeedSequence([seed, step]).generate_state(2, np.uint64) >> np.uint64(1)
    with torch.random.fork_rng([torch.device(device)] if device.startswith("cuda") else []):
        torch.manual_seed(int(first))
        yield torch.Generator().manual_seed(int(second))


@contextlib.contextmanager
def reproducible(threads: int, tf32: bool = False) -> Iterator[None]:
    """A fixed number of CPU threads, no algorithms chosen by timing, TF32 only where asked for; set back afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    threads_before = torch.get_num_threads()
    flags = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    torch.set_num_threads(threads)
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, False, tf32, tf32
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = flags


def training_state(module: nn.Module, optimiser: torch.optim.SGD) -> Record:
    """The weights (`weight_record`) and the momentum of each parameter that has been trained, by the parameter's name.

    To be called after the first step; a frozen parameter has no momentum.
    """
    momentum = {
        MOMENTUM + name: optimiser.state[weight]["momentum_buffer"].detach().cpu().contiguous().numpy()
        for name, weight in module.named_parameters()
        if weight in optimiser.state
    }
    return {**weight_record(module.state_dict()), **momentum}


def restore_training(module: nn.Module, optimiser: torch.optim.SGD, state: Record) -> None:
    """Sets the network and its optimiser to what `training_state` gave, in place.

    Raises RuntimeError or ValueError for the state of another network, or of one with other parameters frozen.
    """
    moving = {id(weight) for group in optimiser.param_groups if group["momentum"] for weight in group["params"]}
    trained = {
        name: weight for name, weight in module.named_parameters() if weight.requires_grad and id(weight) in moving
    }
    momentum = {name.removeprefix(MOMENTUM): state[name] for name in state if name.startswith(MOMENTUM)}
    if {name: tuple(weight.shape) for name, weight in trained.items()} != {
        name: buffer.shape for name, buffer in momentum.items()
    }:
        raise ValueError("its momentum is that of other parameters")
    module.load_state_dict(recorded_state(state))
    for name, weight in trained.items():
        buffer = torch.from_numpy(momentum[name]).to(weight.device)
        optimiser.state[weight]["momentum_buffer"] = (
            buffer.to(memory_format=torch.channels_last) if weight.dim() == 4 else buffer
        )


def check_loss(stage: str, loss: float, when: str, advice: str) -> None:
    """Raises StageError for a loss that is not a finite number: what follows would train on nothing."""
    if not math.isfinite(loss):
        raise StageError(f"{stage}: the loss is no finite number in {when}: the training diverged; lower {advice}")
