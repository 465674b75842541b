"""Which stages run a network, and on which device; a missing GPU is said aloud."""

from __future__ import annotations

import logging

from stages.errors import StageError
from stages.stage import Stage

log = logging.getLogger("rcnn")


def runs_network(stage: Stage) -> bool:
    """Whether the stage reads or makes a network."""
    return stage.makes == "network" or any(one.kind == "network" for one in stage.inputs)


def resolve_device(name: str) -> str:
    """ "auto", "cpu" or "cuda[:N]" as a device that is there. Raises StageError if it is not."""
    if name == "cpu":
        return "cpu"
    if name != "auto" and not name.startswith("cuda"):
        raise StageError(f"--device {name}: is unknown; it may be auto, cpu, cuda or cuda:N")
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        log.info("No CUDA device: networks run on the CPU.")
        return "cpu"
    if not torch.cuda.is_available():
        raise StageError(f"--device {name}: PyTorch {torch.__version__} finds no CUDA device; use --device cpu or auto")
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, ValueError) as error:
        raise StageError(f"--device {name}: there is no such device ({torch.cuda.device_count()} found)") from error
    return name
