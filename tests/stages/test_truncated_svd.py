"""Truncated SVD of fully connected layers: exact where nothing is cut off, and off by what was cut."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stages.contract.errors import BadSetting, StageError
from stages.contract.settings import build_settings, identity_of
from stages.extract import STAGE, Settings
from stages.extract.features import decomposed_once, layer_dimensions, network_of, truncated_layers
from stages.networks import NETWORKS, NetworkSettings, NetworkSource, PlannedNetwork
from stages.networks.architectures import empty_module
from stages.networks.network import Network
from stages.networks.truncated_svd import (
    TruncatedLinear,
    decomposed,
    fully_connected,
    leading_factors,
    with_truncated_layers,
)
from tests.stages.test_trunks import small_network

SHAPENET = NetworkSource.from_settings(NetworkSettings("shapenet", "random"))


def truncated(network: Network, ranks: dict[str, int]) -> Network:
    """The network with these ranks."""
    return with_truncated_layers(network, decomposed(network, ranks))


def test_by_hand():
    """diag(3, 1): with one singular value, the second output is its bias alone."""
    first, second = leading_factors(torch.tensor([[3.0, 0], [0, 1.0]]), 1)
    assert (first.shape, second.shape) == ((1, 2), (2, 1))
    cut = TruncatedLinear(first, second, torch.tensor([0.5, 7.0]))
    np.testing.assert_allclose(cut(torch.tensor([[2.0, 4.0]])).detach(), [[6.5, 7.0]], atol=1e-6)
    assert TruncatedLinear(first, second, None).bias is None


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_what_is_lost_is_what_was_cut_off(shape):
    """Eckart and Young: the squared error of the weights is the sum of the squared singular values left out."""
    weights = np.random.default_rng(0).normal(size=shape)
    singular = np.linalg.svd(weights, compute_uv=False)
    for rank in range(1, 7):
        first, second = leading_factors(torch.tensor(weights, dtype=torch.float32), rank)
        assert (first.shape, second.shape) == ((rank, shape[1]), (shape[0], rank))
        error = (second @ first).numpy() - weights
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
    whole = truncated(network, {first: min(part.weight.shape)})
    regions = torch.rand((3, card.trunk.channels, card.head.side, card.head.side))
    with torch.inference_mode():
        expected, values = (each.head(regions, [first])[first] for each in (network, whole))
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


def test_torchvisions_networks_too():
    """Whose layers stand in a list without names."""
    card = NETWORKS["vgg16"]
    network = Network(card, empty_module(card, 7), 7, card.preprocessing)
    assert {name: path for name, (path, _) in fully_connected(network).items()} == {
        "fc6": "classifier.0",
        "fc7": "classifier.3",
        "fc8": "classifier.6",
    }


def test_the_original_stays_as_it_is():
    network = small_network("shapenet")
    before = copy.deepcopy(network.module.state_dict())
    cut = truncated(network, {"fc5": 3, "fc6": 2})
    assert isinstance(cut.module.get_submodule("fc5"), TruncatedLinear)
    assert not isinstance(network.module.get_submodule("fc5"), TruncatedLinear)
    assert all(torch.equal(values, before[name]) for name, values in network.module.state_dict().items())
    assert cut.module.get_submodule("conv1") is network.module.get_submodule("conv1")


def test_extract_takes_it_from_the_settings():
    settings = Settings(method="roi-pool", layers=("fc5",), truncated_svd=("fc5:8",))
    layers = truncated_layers(SHAPENET, settings, "cpu")
    plain, cut = network_of(SHAPENET, settings, "cpu", None), network_of(SHAPENET, settings, "cpu", layers)
    regions = torch.rand((2, 96, 4, 4))
    with torch.inference_mode():
        exact, near = (each.head(regions, ["fc5"])["fc5"] for each in (plain, cut))
    assert not torch.equal(exact, near)
    assert network_of(SHAPENET, settings, "cpu", None) is plain
    assert network_of(SHAPENET, settings, "cpu", layers) is cut
    assert truncated_layers(SHAPENET, replace(settings, truncated_svd=()), "cpu") is None


def test_weights_are_decomposed_once_and_said_to_be(caplog):
    """Whatever else differs in the settings: for every split, and every stage that reads the features."""
    decomposed_once.cache_clear()
    settings = Settings(method="roi-pool", layers=("fc5",), truncated_svd=("fc6:3", "fc5:8"))
    with caplog.at_level("INFO", logger="stages.extract"):
        layers = truncated_layers(SHAPENET, settings, "cpu")
        assert truncated_layers(SHAPENET, replace(settings, layers=("fc5", "fc6")), "cpu") is layers
    assert [record.message.partition(" in ")[0] for record in caplog.records] == [
        "truncated_svd: decomposing fc5 and fc6",
        "truncated_svd: decomposed fc5 and fc6",
    ]


def test_factors_survive_the_way_to_other_processes():
    layers = decomposed(small_network("shapenet"), {"fc5": 3})
    for factor, copied in zip(layers.factors["fc5"], pickle.loads(pickle.dumps(layers)).factors["fc5"], strict=True):
        assert torch.equal(factor, copied)
    assert len(pickle.dumps(layers)) < 4 * 3 * (1536 + 256) + 5_000  # not the matrices that they are slices of


def test_weights_that_are_not_finite_are_refused():
    network = small_network("shapenet")
    part = network.module.get_submodule("fc5")
    assert isinstance(part, nn.Linear)
    part.weight.data[3, 5] = torch.nan
    with pytest.raises(StageError, match=r"weights of 'fc5' are not finite; check network\.weights"):
        decomposed(network, {"fc5": 3})


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["fc6"], "'fc6' must be a layer and how many singular values to keep, such as 'fc6:1024'"),
        (["fc6:0"], "'fc6:0' must be a layer and how many"),
        (["fc6:-1"], "'fc6:-1' must be a layer and how many"),
        (["fc6:010"], "'fc6:010' must be a layer and how many"),
        (["fc6:\u0661\u0660"], "must be a layer and how many"),  # Arabic digits, which int() reads
        (["fc5:3", "fc5:4"], "must name each layer once"),
    ],
)
def test_entries_that_say_nothing(entries, message):
    with pytest.raises(BadSetting, match=message):
        build_settings(Settings, {"method": "roi-pool", "truncated_svd": entries})


def test_the_order_of_the_layers_changes_no_key():
    first, second = (
        build_settings(Settings, {"method": "roi-pool", "truncated_svd": entries})
        for entries in (["fc6:10", "fc7:5"], ["fc7:5", "fc6:10"])
    )
    assert identity_of(first) == identity_of(second)


def test_settings_that_do_not_fit_the_network():
    assert STAGE.check is not None
    for entry, most in (("fc6:5000", "4,096"), ("fc8:4097", "4,096")):
        settings = Settings(method="roi-pool", layers=("fc8",), truncated_svd=(entry,))
        with pytest.raises(BadSetting, match=f"'{entry}': {entry[:3]} has {most} singular values; keep fewer"):
            STAGE.check(settings, PlannedNetwork(NETWORKS["vgg16"], True), {})
    settings = Settings(method="roi-pool", layers=("fc6",), truncated_svd=("fc6:11",))
    STAGE.check(settings, PlannedNetwork(NETWORKS["shapenet"], True), {})  # the number of classes is not known yet
    with pytest.raises(BadSetting, match="'fc6:11': fc6 has 10 singular values; keep fewer"):
        layer_dimensions(settings, SHAPENET)
    settings = Settings(method="roi-pool", layers=("fire9_2x2",), truncated_svd=("fc6:3",))
    with pytest.raises(BadSetting, match="squeezenet1_0 has no fully connected layer 'fc6', none"):
        STAGE.check(settings, PlannedNetwork(NETWORKS["squeezenet1_0"], True), {})
    settings = Settings(method="roi-pool", layers=("fc5",), truncated_svd=("fc7:3",))
    with pytest.raises(BadSetting, match="shapenet has no fully connected layer 'fc7', only fc5, fc6"):
        STAGE.check(settings, PlannedNetwork(NETWORKS["shapenet"], True), {})
    with pytest.raises(BadSetting, match="'truncated_svd' is a setting of method = 'roi-pool'"):
        build_settings(Settings, {"truncated_svd": ["fc6:3"]})
