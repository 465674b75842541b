"""Truncated SVD of fully connected layers (Fast R-CNN, arXiv 1504.08083, section 3.1; tools/compress_net.py)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from stages.contract.errors import BadSetting
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


def truncated(layer: nn.Linear, rank: int) -> TruncatedLinear:
    """The layer with the `rank` largest of its weights' singular values: W = U S V' becomes U_t (S_t V_t').

    A layer of u outputs and v inputs then takes rank x (u + v) multiplications instead of u x v. Computed in float32,
    stored in the layer's own type.
    """
    weights = layer.weight.detach()
    u, s, v = torch.linalg.svd(weights.to(torch.float32), full_matrices=False)
    first, second = s[:rank, None] * v[:rank], u[:, :rank]
    bias = None if layer.bias is None else layer.bias.detach()
    return TruncatedLinear(first.to(weights.dtype), second.to(weights.dtype), bias)


def with_truncated_layers(network: Network, ranks: Mapping[str, int]) -> Network:
    """The network with `ranks` singular values in place of its fully connected layers of these names.

    All other weights are shared with the original, which stays as it is. Raises BadSetting for a rank that a layer does
    not have.
    """
    names = [name for name, part in network.module.named_modules() if isinstance(part, nn.Linear)]
    paths = dict(zip(network.card.fully_connected, names, strict=True))
    module = network.module
    for layer, rank in ranks.items():
        part = module.get_submodule(paths[layer])
        assert isinstance(part, nn.Linear)
        most = min(part.weight.shape)
        if rank > most:
            raise BadSetting(f"truncated_svd = '{layer}:{rank}': {layer} has {most:,} singular values; keep fewer")
        module = with_submodule(module, paths[layer].split("."), truncated(part, rank))
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
