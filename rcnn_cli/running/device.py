"""The machine: its cores, the device that networks run on, and this process's rank under torchrun."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from stages.contract.card import Stage
from stages.contract.errors import StageError
from stages.contract.kinds import KINDS
from stages.contract.settings import holds

log = logging.getLogger("rcnn")


def runs_network(stage: Stage, settings: Any) -> bool:
    """Whether the stage makes a network, or reads one with these settings."""
    read = [kind for wanted in stage.inputs if holds(settings, wanted.only_if) for kind in wanted.kinds]
    return any(KINDS[kind].on_device for kind in (stage.makes, *read))


def torchrun_ranks(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """(rank, local rank, world size) under torchrun; (0, 0, 1) otherwise."""
    if "TORCHELASTIC_RUN_ID" not in environment:
        return 0, 0, 1
    return int(environment["RANK"]), int(environment["LOCAL_RANK"]), int(environment["WORLD_SIZE"])


def resolve_device(name: str, number: int | None = None) -> str:
    """The device for "auto", "cpu" or "cuda[:N]". Raises StageError if it does not exist.

    `number` completes "cuda": this process's local rank under torchrun.
    """
    if name == "cpu":
        return "cpu"
    if name != "auto" and not name.startswith("cuda"):
        raise StageError(f"--device {name}: is unknown; use auto, cpu, cuda or cuda:N")
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return resolve_device("cuda", number)
        log.info("No CUDA device; networks run on the CPU.")
        return "cpu"
    if not torch.cuda.is_available():
        raise StageError(f"--device {name}: PyTorch {torch.__version__} found no CUDA device; use --device cpu or auto")
    if name == "cuda" and number is not None:
        name = f"cuda:{number}"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, ValueError) as error:
        raise StageError(f"--device {name}: there is no such device ({torch.cuda.device_count()} found)") from error
    return name


def cores() -> int:
    """The number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
