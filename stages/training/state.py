"""Reproducible training: seeded steps, deterministic arithmetic, and the state between two steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from cache import Record
from stages.networks.weights import recorded_state, weight_record

OPTIMISER = "optimiser/"


@contextlib.contextmanager
def seeded(seed: int, step: int, device: str = "cpu") -> Iterator[torch.Generator]:
    """Seeds the random numbers of one step (0 for the initial weights), which depend on (seed, step) alone.

    PyTorch's global generators, for initial weights and dropout, are seeded on the CPU and on `device`, and restored
    afterwards; the generator yielded is a separate one.
    """
    first, second = np.random.SeedSequence([seed, step]).generate_state(2, np.uint64) >> np.uint64(1)
    with torch.random.fork_rng([torch.device(device)] if device.startswith("cuda") else []):
        torch.manual_seed(int(first))
        yield torch.Generator().manual_seed(int(second))


@contextlib.contextmanager
def reproducible(threads: int, tf32: bool = False) -> Iterator[None]:
    """Within the block: a fixed number of CPU threads, no cuDNN autotuning, and TF32 only on request."""
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


def training_state(module: nn.Module, optimiser: torch.optim.Optimizer) -> Record:
    """The weights (`weight_record`) and the optimiser's state of each parameter (momentum, for SGD), by name.

    Frozen parameters, and parameters that have had no gradient yet, have no optimiser state.
    """
    kept = {
        f"{OPTIMISER}{name}/{key}": value.detach().cpu().contiguous().numpy()
        for name, weight in module.named_parameters()
        for key, value in optimiser.state.get(weight, {}).items()
        if value is not None
    }
    return {**weight_record(module.state_dict()), **kept}


def restore_training(module: nn.Module, optimiser: torch.optim.Optimizer, state: Record) -> None:
    """Restores the network and its optimiser from a `training_state`, in place.

    Raises RuntimeError or ValueError if it is from another network or one with other parameters frozen.
    """
    learning = {id(weight) for group in optimiser.param_groups for weight in group["params"]}
    weights = {name: weight for name, weight in module.named_parameters() if id(weight) in learning}
    module.load_state_dict(recorded_state(state))
    for path in state:
        if path.startswith(OPTIMISER):
            name, _, key = path.removeprefix(OPTIMISER).rpartition("/")
            value = torch.from_numpy(state[path]).clone()
            if name not in weights or (value.dim() and value.shape != weights[name].shape):
                raise ValueError(f"it was saved while '{name}' of shape {list(value.shape)} was being trained")
            optimiser.state[weights[name]][key] = laid_out_as(weights[name], value) if value.dim() else value


def laid_out_as(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The values [...] on the device of `weight`, in the memory layout of its gradients."""
    moved = value.to(weight.device)
    return moved.to(memory_format=torch.channels_last) if weight.dim() == 4 else moved
