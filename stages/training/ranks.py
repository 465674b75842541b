"""The processes that train one network together: this one alone, or those started by torchrun.

Rank 0 claims the work and writes; each rank computes its share of every batch, and gradients are averaged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cache import Part, Writer
from stages.contract.errors import StageError
from stages.contract.execution import Execution

NO_PART = -1


@dataclass(frozen=True)
class Ranks:
    """This process is number `rank` of `count`; they communicate through tensors on `device`."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this is the process that claims and writes."""
        return self.rank == 0

    def share(self, module: nn.Module, device: str) -> nn.Module:
        """The module wrapped so that its backward pass averages gradients over the ranks."""
        if self.count == 1:
            return module
        from torch.nn.parallel import DistributedDataParallel

        devices = [device] if device.startswith("cuda") else None
        return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)

    def total(self, values: torch.Tensor) -> list[float]:
        """Sums of the float64 `values` [k] over the ranks."""
        if self.count > 1:
            import torch.distributed as dist

            dist.all_reduce(values)
        return values.tolist()

    def gathered(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """The entries of all ranks."""
        if self.count == 1:
            return dict(own)
        import torch.distributed as dist

        every: list[Any] = [None] * self.count
        dist.all_gather_object(every, dict(own))
        return {name: value for one in every for name, value in one.items()}

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Averages the gradients of the trainable `parameters` over the ranks, in place, in one exchange.

        In place of `share` where a step passes several images through the network one by one. A rank without a
        gradient for a parameter counts as 0; without one in any rank, the parameter keeps none.
        """
        trained = [weight for weight in parameters if weight.requires_grad]
        if self.count == 1 or not trained:
            return
        import torch.distributed as dist

        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in trained]
        present = gradients[0].new_tensor([weight.grad is not None for weight in trained])
        buffer = torch.cat([present, *(gradient.reshape(-1) for gradient in gradients)])
        dist.all_reduce(buffer)
        present, *sums = buffer.split([len(trained), *(weight.numel() for weight in trained)])
        for weight, gradient, total, count in zip(trained, gradients, sums, present.tolist(), strict=True):
            if count:
                weight.grad = gradient.copy_(total.view(gradient.shape) / self.count)

    def claimed(self, output: Writer) -> Iterator[Part]:
        """The parts claimed by the first rank, in every rank."""
        if self.count == 1:
            yield from output.claim()
            return
        own = output.claim() if self.leads else iter(())
        while (index := self.sent(next((part.index for part in own), NO_PART))) != NO_PART:
            yield output.parts[index]

    def sent(self, value: int) -> int:
        """The first rank's `value`, broadcast to every rank."""
        import torch.distributed as dist

        sent = torch.tensor([value], device=self.device)
        dist.broadcast(sent, src=0)
        return int(sent)

    def check_agreement(self, stage: str, step: int) -> None:
        """Raises StageError unless all ranks resume from the same step."""
        if self.count > 1 and self.sent(step) != step:
            raise StageError(
                f"{stage}: the processes started by torchrun do not see the same checkpoint; "
                "give them all the same work folder"
            )


@contextlib.contextmanager
def joined(stage: str, execution: Execution) -> Iterator[Ranks]:
    """Joins the process group that `execution` describes. Raises StageError if another rank has stopped."""
    if execution.ranks == 1:
        yield Ranks()
        return
    import torch.distributed as dist

    cuda = execution.device.startswith("cuda")
    try:
        if cuda:
            torch.cuda.set_device(execution.device)
        dist.init_process_group("nccl" if cuda else "gloo")
        yield Ranks(execution.rank, execution.ranks, execution.device if cuda else "cpu")
        dist.barrier()
        dist.destroy_process_group()
    except RuntimeError as error:
        if not of_the_group(error):
            raise
        raise StageError(
            f"{stage}: another process started by torchrun has stopped, see its message; "
            "run the same command again to resume from the last checkpoint"
        ) from error


def of_the_group(error: RuntimeError) -> bool:
    """Whether the error comes from communication between processes."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in ("gloo", "nccl"))
