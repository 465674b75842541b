"""Truncated SVD of fully connected layers: exact where nothing is cut off, and off by what was cut."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from stages.contract.errors import BadSetting
from stages.contract.settings import build_settings
from stages.extract import STAGE, Settings
from stages.extract.features import network_of
from stages.networks import NETWORKS, NetworkSettings, NetworkSource, PlannedNetwork
from stages.networks.architectures import empty_module
from stages.networks.network import Network
from stages.networks.truncated_svd import TruncatedLinear, truncated, with_truncated_layers
from tests.stages.test_trunks import small_network

SHAPENET = NetworkSource.from_settings(NetworkSettings("shapenet", "random"))


def layer(weights: object, bias: object = None) -> nn.Linear:
    """A linear layer with these weights [outputs, inputs] and bias [outputs]."""
    values = torch.tensor(weights, dtype=torch.float32)
    made = nn.Linear(values.shape[1], values.shape[0], bias is not None)
    made.weight.data.copy_(values)
    if bias is not None:
        made.bias.data.copy_(torch.tensor(bias, dtype=torch.float32))
    return made


def test_by_hand():
    """diag(3, 1): with one singular value, the second output is its bias alone."""
    cut = truncated(layer([[3.0, 0], [0, 1.0]], [0.5, 7.0]), 1)
    np.testing.assert_allclose(cut(torch.tensor([[2.0, 4.0]])).detach(), [[6.5, 7.0]], atol=1e-6)
    assert (cut.first.weight.shape, cut.weight.shape) == ((1, 2), (2, 1))
    assert truncated(layer([[1.0, 2]]), 1).bias is None


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_what_is_lost_is_what_was_cut_off(shape):
    """Eckart and Young: the squared error of the weights is the sum of the squared singular values left out."""
    weights = np.random.default_rng(0).normal(size=shape)
    singular = np.linalg.svd(weights, compute_uv=False)
    for rank in range(1, 7):
        cut = truncated(layer(weights), rank)
        error = (cut.weight @ cut.first.weight).detach().numpy() - weights
        np.testing.assert_allclose(np.square(error).sum(), np.square(singular[rank:]).sum(), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", [name for name, card in NETWORKS.items() if card.fully_connected])
def test_layers_are_found_by_their_names(name):
    """In every network: one linear layer for each fully connected layer of the card, with its outputs."""
    card = NETWORKS[name]
    module = empty_module(card, 7)
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    assert [part.out_features for part in linear] == [card.dimensions(7)[layer] for layer in card.fully_connected]


@pytest.mark.parametrize("name", ["shapenet", "tnet", "zf", "resnet50"])
def test_a_network_with_all_singular_values_computes_the_same(name):
    network = small_network(name)
    card = network.card
    first = card.fully_connected[0]
    part = next(part for part in network.module.modules() if isinstance(part, nn.Linear))
    whole = with_truncated_layers(network, {first: min(part.weight.shape)})
    regions = torch.rand((3, card.trunk.channels, card.head.side, card.head.side))
    with torch.inference_mode():
        expected, found = (each.head(regions, [first])[first] for each in (network, whole))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_torchvisions_networks_too():
    """Whose layers stand in a list without names."""
    card = NETWORKS["vgg16"]
    network = Network(card, empty_module(card, 7), 7, card.preprocessing)
    with pytest.raises(BadSetting, match=r"'fc7:5000': fc7 has 4,096 singular values; keep fewer"):
        with_truncated_layers(network, {"fc7": 5000})


def test_the_original_stays_as_it_is():
    network = small_network("shapenet")
    before = copy.deepcopy(network.module.state_dict())
    cut = with_truncated_layers(network, {"fc5": 3, "fc6": 2})
    assert isinstance(cut.module.get_submodule("fc5"), TruncatedLinear)
    assert not isinstance(network.module.get_submodule("fc5"), TruncatedLinear)
    assert all(torch.equal(values, before[name]) for name, values in network.module.state_dict().items())
    assert cut.module.get_submodule("conv1") is network.module.get_submodule("conv1")


def test_extract_takes_it_from_the_settings():
    plain = network_of(SHAPENET, Settings(method="roi-pool", layers=("fc5",)), "cpu")
    cut = network_of(SHAPENET, Settings(method="roi-pool", layers=("fc5",), truncated_svd=("fc5:8",)), "cpu")
    regions = torch.rand((2, 96, 4, 4))
    with torch.inference_mode():
        exact, near = (each.head(regions, ["fc5"])["fc5"] for each in (plain, cut))
    assert not torch.equal(exact, near)
    again = network_of(SHAPENET, Settings(method="roi-pool", layers=("fc5",)), "cpu")
    assert again is plain


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["fc6"], "'fc6' must be a layer and how many singular values to keep, such as 'fc6:1024'"),
        (["fc6:0"], "'fc6:0' must be a layer and how many"),
        (["fc6:-1"], "'fc6:-1' must be a layer and how many"),
        (["fc5:3", "fc5:4"], "must name each layer once"),
    ],
)
def test_entries_that_say_nothing(entries, message):
    with pytest.raises(BadSetting, match=message):
        build_settings(Settings, {"method": "roi-pool", "truncated_svd": entries})


def test_settings_that_do_not_fit_the_network():
    assert STAGE.check is not None
    settings = Settings(method="roi-pool", layers=("fire9_2x2",), truncated_svd=("fc6:3",))
    with pytest.raises(BadSetting, match="squeezenet1_0 has no fully connected layer 'fc6', none"):
        STAGE.check(settings, PlannedNetwork(NETWORKS["squeezenet1_0"], True), {})
    settings = Settings(method="roi-pool", layers=("fc5",), truncated_svd=("fc7:3",))
    with pytest.raises(BadSetting, match="shapenet has no fully connected layer 'fc7', only fc5, fc6"):
        STAGE.check(settings, PlannedNetwork(NETWORKS["shapenet"], True), {})
    with pytest.raises(BadSetting, match="'truncated_svd' is a setting of method = 'roi-pool'"):
        build_settings(Settings, {"truncated_svd": ["fc6:3"]})
