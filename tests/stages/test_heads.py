"""Networks that carry the heads of a detector."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.anchors import cell_anchors, map_anchors
from stages.contract.errors import BadSetting
from stages.networks import NETWORKS, SOFTMAX, NetworkSource, PlannedNetwork
from stages.networks.architectures import build
from stages.networks.cards import DELTAS
from stages.networks.heads import Heads, ProposalHead, RegionHead
from stages.networks.network import Network
from stages.networks.source import NetworkSettings

PROPOSALS = ProposalHead((2.0, 4.0), (0.5, 1.0, 2.0), 8)
NEW = RegionHead("align", 3, (20, 10), 0.5)


def network(name: str, heads: Heads, classes: int = 4) -> Network:
    card = NETWORKS[name].with_heads(heads)
    return Network(card, build(card, classes), classes, card.preprocessing)


@pytest.mark.parametrize("name", ["shapenet", "squeezenet1_0", "efficientnet_lite0"])
def test_new_layers_take_the_place_of_the_networks_own(name: str) -> None:
    detector = network(name, Heads(PROPOSALS, NEW))
    regions = torch.randn(5, detector.card.trunk.channels, 3, 3)
    with torch.inference_mode():
        outputs = detector.head(regions, ["roi_pool", "fc6", "fc7", SOFTMAX, DELTAS][1:])
    assert {layer: list(values.shape) for layer, values in outputs.items()} == {
        "fc6": [5, 20], "fc7": [5, 10], SOFTMAX: [5, 4], DELTAS: [5, 12]
    }  # fmt: skip
    assert {layer: detector.layers[layer] for layer in outputs} == {"fc6": 20, "fc7": 10, SOFTMAX: 4, DELTAS: 12}
    later = [name for name, _ in detector.module.named_parameters() if not detector.card.trunk.owns(name)]
    assert all(parameter.startswith(("rpn.", "regions.")) for parameter in later)


def test_the_pooled_cells_are_scaled_before_fc6() -> None:
    detector = network("shapenet", Heads(None, NEW))
    regions = torch.randn(2, 96, 3, 3)
    fc6 = detector.module.get_submodule("regions.hidden.fc6")
    with torch.inference_mode():
        computed = detector.head(regions, ["fc6"])["fc6"]
        assert torch.equal(computed, torch.relu(fc6(regions.flatten(1) * 0.5)))


def test_the_networks_own_layers_are_the_head() -> None:
    """The deltas are linear in the last hidden layer, fc5; all else is the network as it is."""
    own = NETWORKS["shapenet"]
    card = own.with_heads(Heads(None, RegionHead("max", 4)))
    module = build(card, 4)
    detector, plain = Network(card, module, 4, card.preprocessing), Network(own, module, 4, own.preprocessing)
    batch = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        outputs = detector.forward(batch, ["fc5", SOFTMAX, DELTAS])
        assert torch.equal(outputs[SOFTMAX], plain.forward(batch, [SOFTMAX])[SOFTMAX])
        assert torch.equal(outputs[DELTAS], module.get_submodule("regions.bbox_pred")(outputs["fc5"]))


def test_anchors_come_in_the_order_of_map_anchors() -> None:
    """The weights of one anchor in one cell decide the row of that anchor alone."""
    detector = network("shapenet", Heads(PROPOSALS, None))
    head = detector.module.get_submodule("rpn")
    for layer in (head.conv, head.cls_score, head.bbox_pred):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        head.conv.weight[0, 0, 1, 1] = 1.0
        head.cls_score.weight[6 + 4, 0] = 1.0  # the object's score of anchor 4
        head.bbox_pred.weight[4 * 4 + 2, 0] = 1.0  # the width of anchor 4
    maps = torch.zeros(1, 96, 5, 7)
    maps[0, 0, 3, 2] = 2.0
    with torch.inference_mode():
        scores, deltas = detector.anchors(maps)
    row = (3 * 7 + 2) * 6 + 4
    assert scores.shape == (5 * 7 * 6,)
    assert np.flatnonzero(scores.numpy() != 0.5).tolist() == [row]
    assert torch.nonzero(deltas).tolist() == [[row, 2]]
    cell = cell_anchors(8, PROPOSALS.scales, PROPOSALS.ratios)
    assert map_anchors(cell, 7, 5, 8)[row].tolist() == (cell[4] + np.array([16, 24, 16, 24])).tolist()


def test_heads_survive_json() -> None:
    for heads in (Heads(), Heads(PROPOSALS, NEW), Heads(None, NEW), Heads(PROPOSALS, None)):
        assert Heads.from_json(heads.as_json()) == heads


def test_a_network_without_fully_connected_layers_needs_new_ones() -> None:
    with pytest.raises(BadSetting, match=r"hidden = \[\]: squeezenet1_0 has no fully connected layer"):
        NETWORKS["squeezenet1_0"].with_heads(Heads(None, RegionHead("max", 6)))
    with pytest.raises(BadSetting, match="side = 6: fc6 of vgg16 takes 7 x 7 cells"):
        NETWORKS["vgg16"].with_heads(Heads(None, RegionHead("max", 6)))


def test_a_network_without_proposals_says_so() -> None:
    with pytest.raises(BadSetting, match="shapenet has no region proposal network"):
        network("shapenet", Heads(None, NEW)).anchors(torch.zeros(1, 96, 2, 2))


def test_the_source_without_heads_is_the_network_itself() -> None:
    own = NetworkSource.from_settings(NetworkSettings("shapenet", "random", classes=4))
    detector = NetworkSource("shapenet", "random", own.preprocessing, 4, heads=Heads(PROPOSALS, None))
    assert detector.base == own
    assert "rpn" in detector.module()._modules
    assert "rpn" not in own.module()._modules


def test_fine_tuning_leaves_no_heads() -> None:
    card = NETWORKS["shapenet"].with_heads(Heads(PROPOSALS, NEW))
    assert PlannedNetwork(card, False).fine_tuned == PlannedNetwork(NETWORKS["shapenet"], True)
