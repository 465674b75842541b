"""The arithmetic of a forward pass: its precision, its threads, and the networks loaded for it."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.contract.settings import setting
from stages.networks.source import NetworkSource

if TYPE_CHECKING:
    from stages.networks.network import Network

PRECISIONS = ("float32", "bfloat16", "float16", "tf32")
ONLY_ON_CUDA = ("float16", "tf32")
"""Precisions that need CUDA."""
COMPUTED_IN = {"float32": "float32", "tf32": "float32", "bfloat16": "bfloat16", "float16": "float16"}
"""The type of a network's weights by precision."""

computing = threading.RLock()


def precision_setting() -> Any:
    """The setting `precision` of a stage that runs a network."""
    return setting(
        "float32",
        "Precision of the forward pass; bfloat16 is faster on some CPUs and slower on others (`rcnn plan` measures "
        "it for extract), float16 and tf32 need CUDA.",
        choices=PRECISIONS,
        on_cuda=ONLY_ON_CUDA,
        source="ours; Caffe computed in float32",
    )


def load(source: NetworkSource, precision: str, device: str) -> Network:
    """The network in one of PRECISIONS. Raises as `NetworkSource.load`."""
    return source.load(device, COMPUTED_IN[precision])


@functools.lru_cache(maxsize=4)
def loaded(source: NetworkSource, precision: str, device: str) -> Network:
    """As `load`, but loaded once per process: maps, proposals and regions pooled from maps take the same network, or
    take turns."""
    return load(source, precision, device)


def load_first(source: NetworkSource, precision: str, execution: Execution) -> None:
    """Loads the network on the CPU before anything is computed, so that its weights are downloaded, and what is wrong
    with them is said, once. It is kept if this process uses it, not if others do, which load their own."""
    load_once = loaded if execution.jobs == 1 else load
    load_once(source, precision, "cpu")


def not_finite(stage: str, what: str, dtype: str) -> StageError:
    """The error for values, `what` in words, that are not finite as the `stage` stores them, in its `dtype`."""
    if dtype == "float16":
        return StageError(f'{stage}: {what} exceed the range of float16 (65,504); set {stage}.dtype = "float32"')
    return StageError(f"{stage}: {what} are not finite; check network.weights and preprocessing")


@contextlib.contextmanager
def arithmetic(precision: str, device: str) -> Iterator[None]:
    """Sets the process-wide PyTorch options that change results, and restores them afterwards.

    One thread on the CPU, so that results do not depend on the number of cores; TF32 on CUDA only with that precision.
    Other threads of the process wait here meanwhile: theirs may be another precision.
    """
    import torch

    with computing:
        if device.startswith("cuda"):
            matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
            flags = matmul.allow_tf32, convolution.allow_tf32
            matmul.allow_tf32 = convolution.allow_tf32 = precision == "tf32"
            try:
                yield
            finally:
                matmul.allow_tf32, convolution.allow_tf32 = flags
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
