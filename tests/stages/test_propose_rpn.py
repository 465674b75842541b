"""Proposals of a region proposal network: from its outputs to boxes, and the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torchvision.ops import nms

from cache import Reader
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import RecipeError, load_recipe
from stages.anchors import cell_anchors, map_anchors
from stages.datasets import Dataset
from stages.networks import NETWORKS
from stages.networks.architectures import build
from stages.networks.feature_maps import FeatureMaps
from stages.networks.heads import Heads, ProposalHead
from stages.networks.network import Network
from stages.propose import Settings
from stages.propose.rpn import proposals_of
from tests.in_process import rcnn
from tests.stages.test_train_rpn import RECIPE

HEAD = ProposalHead((2.0, 4.0), (0.5, 1.0, 2.0), 8)
WHOLE = (
    RECIPE
    + """
[maps]
sides = [64]
longest = 120
inputs = { network = "train-rpn" }

[propose]
method = "rpn"
max_boxes = 30
split = "train"
"""
)


@pytest.fixture(scope="module")
def network() -> Network:
    card = NETWORKS["shapenet"].with_heads(Heads(HEAD, None))
    torch.manual_seed(3)
    module = build(card, 4)
    for layer in ("cls_score", "bbox_pred"):
        torch.nn.init.normal_(module.get_submodule(f"rpn.{layer}").weight, 0, 0.5)  # type: ignore[arg-type]
    return Network(card, module, 4, card.preprocessing)


@pytest.fixture(scope="module")
def maps() -> FeatureMaps:
    cells = np.random.default_rng(0).random((8, 10, 96)).astype(np.float16)
    return FeatureMaps((cells,), (0.5,), (160, 128))


def test_the_proposals_are_those_of_an_independent_computation(network: Network, maps: FeatureMaps) -> None:
    """Anchors moved, clipped, filtered, sorted and suppressed with plain torch and torchvision's NMS."""
    found = proposals_of(maps, network, Settings(method="rpn", max_boxes=20), "x")
    with torch.inference_mode():
        scores, deltas = network.anchors(torch.from_numpy(maps.maps[0]).permute(2, 0, 1)[None].float())
    anchors = torch.from_numpy(map_anchors(cell_anchors(8, HEAD.scales, HEAD.ratios), 10, 8, 8)).double()
    sides = anchors[:, 2:] - anchors[:, :2]
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2 + deltas[:, :2] * sides
    half = sides * deltas[:, 2:].double().exp() / 2
    limit = torch.tensor([80.0, 64.0, 80.0, 64.0], dtype=torch.float64)
    boxes = torch.minimum(torch.cat([centres - half, centres + half], 1).clamp(min=0), limit).float()
    large = ((boxes[:, 2:] - boxes[:, :2]) >= 8).all(1)
    boxes, scores = boxes[large], scores[large]
    kept = nms(boxes, scores, 0.7)[:20]
    assert np.allclose(found["boxes"], boxes[kept].numpy() * 2, atol=1e-3)
    assert np.array_equal(found["scores"], scores[kept].numpy())
    assert found["image_size"].tolist() == [160, 128]


def test_without_refinement_the_boxes_are_anchors(network: Network, maps: FeatureMaps) -> None:
    found = proposals_of(maps, network, Settings(method="rpn", refinement=False), "x")
    anchors = map_anchors(cell_anchors(8, HEAD.scales, HEAD.ratios), 10, 8, 8)
    clipped = {tuple(box) for box in (np.clip(anchors, 0, [80, 64, 80, 64]) * 2).round(3).tolist()}
    assert {tuple(box) for box in found["boxes"].round(3).tolist()} <= clipped


def test_a_random_ranking_depends_on_the_seed_and_not_on_the_scores(network: Network, maps: FeatureMaps) -> None:
    settings: dict[str, Any] = {
        "method": "rpn",
        "max_boxes": 20,
        "ranking": "random",
        "suppression_iou": 1.0,
        "refinement": False,
    }
    first, again, other = (
        proposals_of(maps, network, Settings(**settings, ranking_seed=seed), "x") for seed in (0, 0, 1)
    )
    assert np.array_equal(first["boxes"], again["boxes"])
    assert not np.array_equal(first["boxes"], other["boxes"])
    with torch.no_grad():
        network.module.get_submodule("rpn.cls_score").bias[0] += 1.0
    assert np.array_equal(proposals_of(maps, network, Settings(**settings), "x")["boxes"], first["boxes"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("rpn")
    recipe = folder / "rpn.toml"
    recipe.write_text(WHOLE)
    rcnn("run", recipe, "--jobs", 1, work=folder / "work")
    return recipe, folder / "work"


def test_the_cache_has_ranked_boxes_inside_the_images(made: tuple[Path, Path]) -> None:
    (folder,) = (made[1] / "caches" / "propose").iterdir()
    with h5py.File(folder / "data.h5") as file:
        assert len(file["boxes"]) > 0
        for first, last, size in zip(file["offsets"][:-1], file["offsets"][1:], file["image_size"], strict=True):
            boxes, scores = file["boxes"][first:last], file["scores"][first:last]
            assert len(boxes) <= 30
            assert (np.diff(scores) <= 0).all()
            assert (boxes >= 0).all()
            assert (boxes[:, 2:] <= size).all()
            assert (boxes[:, 2:] - boxes[:, :2] >= 15.99).all()


def test_several_processes_give_the_same_bytes(made: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, work = made
    rcnn("run", recipe, "--jobs", 2, "--part-size", 2, work=tmp_path / "work")
    boxes = []
    for place in (work, tmp_path / "work"):
        (folder,) = (place / "caches" / "propose").iterdir()
        with h5py.File(folder / "data.h5") as file:
            boxes.append((file["boxes"][:].tobytes(), file["scores"][:].tobytes()))
    assert boxes[0] == boxes[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("maps.sides=[32,64]", "method = 'rpn' takes maps at one scale"),
        ("propose.inputs.rpn=network", "has no region proposal network"),
        ("propose.alpha=0.6", "'alpha' is a setting of method = 'edge-boxes'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    change: str, message: str, made: tuple[Path, Path], tmp_path: Path
) -> None:
    ended = rcnn("run", made[0], "--set", change, work=tmp_path / "work", check=False)
    assert ended.returncode == 2
    assert message in ended.stderr


REFUSED = "[propose] reads [maps], whose network is [network], but its own is [train-rpn], with another trunk"


def test_maps_of_another_trunk_are_refused_before_anything_runs(made: tuple[Path, Path], tmp_path: Path) -> None:
    ended = rcnn("run", made[0], "--set", "maps.inputs.network=network", work=tmp_path / "work", check=False)
    assert ended.returncode == 2
    assert REFUSED in ended.stderr
    assert not (tmp_path / "work" / "caches").exists()


def trunk_changes(recipe: Path, *changes: str) -> str:
    """What is wrong with a recipe with these changes; "" if nothing is."""
    try:
        Graph(load_recipe(recipe, changes), recipe.parent).check()
    except RecipeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ([], False),
        (["train-rpn.frozen=['trunk']", "maps.inputs.network=network"], False),
        (["train-rpn.frozen=['conv1']", "maps.inputs.network=network"], True),
        (["maps.inputs.network=again"], False),
        (["again.seed=1", "maps.inputs.network=again"], True),
        (["propose.inputs.rpn=fixed"], False),
        (["propose.inputs.rpn=fixed", "maps.inputs.network=network"], True),
        (["networks.other.seed=1", "maps.inputs.network=other"], True),
        (["networks.other.name=squeezenet1_0", "train-rpn.frozen=['trunk']", "maps.inputs.network=other"], True),
        (["networks.other.seed=1", "train-rpn.frozen=['trunk']", "maps.inputs.network=other"], False),
    ],
)
def test_trunks_are_compared_by_the_trainings_that_change_them(
    changes: list[str], refused: bool, tmp_path: Path
) -> None:
    """The same training under another name, and one with a frozen trunk on top, leave the trunk as it is. Two sets of
    weights of one architecture may be equal: that is seen when they are read."""
    recipe = tmp_path / "trunks.toml"
    training = WHOLE[WHOLE.index("[train-rpn]") : WHOLE.index("[maps]")].replace("[train-rpn]", 'stage = "train-rpn"')
    on_top = training.replace('["none"]', '["trunk"]') + 'inputs = { network = "train-rpn" }'
    others = f"[again]\n{training}\n[fixed]\n{on_top}\n"
    recipe.write_text(WHOLE + others + '[networks.other]\nname = "shapenet"\nweights = "random"\n')
    words = trunk_changes(recipe, *changes)
    assert ("with another trunk" in words) == refused
    assert refused or not words


def test_weights_decide_where_the_recipe_does_not(made: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = tmp_path / "rpn.toml"
    recipe.write_text(made[0].read_text() + '[networks.other]\nname = "shapenet"\nweights = "random"\nseed = 1\n')
    words = ("--set", "train-rpn.frozen=['trunk']", "--set", "maps.inputs.network=other")
    ended = rcnn("run", recipe, *words, work=tmp_path / "work", check=False)
    assert ended.returncode == 2
    assert "propose: its maps are those of another network" in ended.stderr


def test_proposals_and_features_of_an_image_share_its_map(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is cached: the six images are decoded and convolved once each, at one scale."""
    recipe = tmp_path / "rpn.toml"
    extract = (
        '[extract]\nmethod = "roi-pool"\nlayers = ["pool4"]\nsplit = "train"\ninputs = { network = "train-rpn" }\n'
    )
    recipe.write_text(made[0].read_text() + extract)
    rcnn("train-rpn", recipe, work=tmp_path / "work")
    convolved, decoded = [], []
    maps_of, read_image = Network.maps, Dataset.read_image

    def counted_maps(network: Network, batch: torch.Tensor) -> torch.Tensor:
        if batch.device.type != "meta":
            convolved.append(tuple(batch.shape))
        return maps_of(network, batch)

    def counted_images(dataset: Dataset, image_id: str) -> Any:
        decoded.append(image_id)
        return read_image(dataset, image_id)

    monkeypatch.setattr(Network, "maps", counted_maps)
    monkeypatch.setattr(Dataset, "read_image", counted_images)
    rcnn("run", recipe, "--set", "propose.cache=false", "--jobs", 1, work=tmp_path / "work")
    assert not (tmp_path / "work" / "caches" / "propose").exists()
    assert len(convolved) == len(decoded) == 6
    assert sorted(decoded) == sorted(set(decoded))


def test_an_image_is_explained_down_to_its_anchors(made: tuple[Path, Path], tmp_path: Path) -> None:
    """The anchor that an explanation calls a proposal is that proposal of the cache; no explanation writes caches."""
    recipe, work = tmp_path / "rpn.toml", tmp_path / "work"
    recipe.write_text(
        made[0].read_text().replace("max_boxes = 30", "max_boxes = 300\nleast_side = 4.0")
        + """
[extract]
layers = ["pool4"]
padding = 4
inputs = { network = "train-rpn" }
[train-svm]
layer = "pool4"
[detect]
split = "train"
"""
    )
    rcnn("run", recipe, "--jobs", 1, work=work)
    kept = sorted((work / "caches").rglob("*"))
    reader = Reader(next((work / "caches" / "propose").iterdir()))
    proposed = 0
    for image in reader.item_ids:
        printed = rcnn("explain", recipe, image, "-o", tmp_path / "out", work=work).stdout
        told = json.loads((tmp_path / "out" / f"{image}.json").read_text())
        boxes = reader.read(image, ["boxes"])["boxes"]
        for thing in told["objects"]:
            anchors = thing["anchors"]
            assert anchors["positive"] >= 1
            assert anchors["best_once_moved"]["iou_once_moved"] >= anchors["best"]["iou_once_moved"]
            for anchor in (anchors["best"], anchors["best_once_moved"], *anchors["positives"]):
                if anchor["became"] == "proposed":
                    proposed += 1
                    assert anchor["box_once_moved"] == boxes[anchor["rank"] - 1].tolist()
            if thing.get("verdict") == "missed":
                assert f"anchors: {anchors['positive']} positive for it by the rules of training" in printed
    assert proposed
    assert sorted((work / "caches").rglob("*")) == kept
    drawn = rcnn("figures", recipe, "--only", "anchors", "--images", 2, "-o", tmp_path / "out", work=work).stdout
    assert "propose@train, 2 random (seed 0) images; in pixels of the network's input, 22 x 12: " in drawn
    assert (tmp_path / "out" / "rpn-anchors.png").exists()


def test_only_a_region_proposal_network_has_anchors(made: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = tmp_path / "windows.toml"
    recipe.write_text(made[0].read_text().replace('method = "rpn"', 'method = "sliding-window"'))
    refused = rcnn("figures", recipe, "--only", "anchors", "-o", tmp_path, work=tmp_path / "work", check=False)
    assert refused.returncode == 1
    assert "not drawn: propose@train: method = 'sliding-window' has no anchors" in refused.stdout + refused.stderr
