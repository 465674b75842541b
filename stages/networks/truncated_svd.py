"""Truncated SVD of fully connected layers (Fast R-CNN, arXiv 1504.08083, section 3.1; tools/compress_net.py)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from stages.contract.errors import StageError
from stages.networks.head_layers import REGIONS
from stages.networks.network import Network


class TruncatedLinear(nn.Linear):
    """A linear layer in two steps: `first`, from the inputs to the `rank` largest singular directions, without a bias,
    then from these to the outputs, with the bias of the original."""

    def __init__(self, first: torch.Tensor, second: torch.Tensor, bias: torch.Tensor | None) -> None:
        """`first` [rank, inputs], `second` [outputs, rank], `bias` [outputs]."""
        super().__init__(second.shape[1], second.shape[0], bias is not None, second.device, second.dtype)
        self.first = nn.Linear(first.shape[1], first.shape[0], bias=False, device=first.device, dtype=first.dtype)
        with torch.no_grad():
            self.first.weight.copy_(first)
            self.weight.copy_(second)
            if bias is not None:
                self.bias.copy_(bias)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """[..., outputs] from [..., inputs]."""
        return super().forward(self.first(values))


@dataclass(frozen=True, eq=False)
class TruncatedLayers:
    """The decomposed weights of some fully connected layers, by name: `first` [rank, inputs] and `second` [outputs,
    rank], whose product replaces them; on the CPU, in the layers' own type. Can be pickled."""

    factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def decomposed(network: Network, ranks: Mapping[str, int]) -> TruncatedLayers:
    """The layers `ranks` of the network, with that many singular values each.

    Takes minutes for large layers on the CPU: compute it once, not in every process. Raises StageError for weights that
    are not finite.
    """
    layers = fully_connected(network)
    factors = {}
    for name, rank in ranks.items():
        weights = layers[name][1].weight.detach()
        if not bool(torch.isfinite(weights).all()):
            raise StageError(f"truncated_svd: the weights of '{name}' are not finite; check network.weights")
        first, second = leading_factors(weights, rank)
        factors[name] = first.to(weights.dtype).cpu(), second.to(weights.dtype).cpu()
    return TruncatedLayers(factors)


def leading_factors(weights: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`first` [rank, v] and `second` [u, rank], float32, whose product is the nearest of that rank to W [u, v].

    W = U S V' becomes U_t (U_t' W), which is U_t (S_t V_t'); with u > v, (W V_t) V_t'. U are the eigenvectors of W W'
    and V those of W' W: the smaller of the two is decomposed, in float64, since its eigenvalues are the squared
    singular values. That takes a fraction of the time of an SVD in float32.
    """
    wide = weights if weights.shape[0] <= weights.shape[1] else weights.T
    side = len(wide)
    product = torch.zeros((side, side), dtype=torch.float64, device=weights.device)
    for columns in wide.split(side, dim=1):  # not the whole matrix in float64
        block = columns.to(torch.float64)
        product += block @ block.T
    directions = torch.linalg.eigh(product)[1][:, -rank:].to(torch.float32)
    rest = directions.T @ wide.to(torch.float32)
    return (rest, directions) if wide is weights else (directions.T, rest.T)


def fully_connected(network: Network) -> dict[str, tuple[str, nn.Linear]]:
    """The network's fully connected layers by name: where each stands in the module, and the layer."""
    of_heads = tuple(f"{REGIONS}.{name}" for name in ("cls_score", "bbox_pred"))
    parts = [
        (path, part)
        for path, part in network.module.named_modules()
        if isinstance(part, nn.Linear) and path not in of_heads
    ]
    return dict(zip(network.card.fully_connected, parts, strict=True))


def with_truncated_layers(network: Network, layers: TruncatedLayers) -> Network:
    """The network with `layers` in place of its own. All other weights are shared with the original, which stays as it
    is."""
    module, own = network.module, fully_connected(network)
    for name, factors in layers.factors.items():
        path, layer = own[name]
        first, second = (part.to(network.device) for part in factors)
        bias = None if layer.bias is None else layer.bias.detach()
        module = with_submodule(module, path.split("."), TruncatedLinear(first, second, bias))
    return Network(network.card, module, network.classes, network.preprocessing)


def with_submodule(module: nn.Module, path: Sequence[str], new: nn.Module) -> nn.Module:
    """A copy of the module with `new` at this path, sharing all other submodules."""
    clone = copy.copy(module)
    clone._modules = dict(module._modules)
    name, *rest = path
    old = module._modules[name]
    assert old is not None
    clone._modules[name] = with_submodule(old, rest, new) if rest else new
    return clone
