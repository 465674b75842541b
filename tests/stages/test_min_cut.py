"""Constrained parametric min-cuts: each cut is the best of all, cuts are nested, and the regions kept are in order."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from stages.contract.errors import BadSetting
from stages.contract.settings import build_settings, identity_of
from stages.propose import Settings, min_cut
from stages.propose.min_cut import (
    SuperpixelGraph,
    border_contrast,
    boxes_of,
    capacities,
    component,
    distinct_rows,
    diverse_order,
    energy,
    graph_of,
    minimal_cut,
    overlap_matrix,
    parametric_cuts,
    seeds_of,
    superpixels,
)

CUTS = Settings(method="min-cut")


def given_graph(pairs: Any, costs: Any, areas: Any, **given: Any) -> SuperpixelGraph:
    areas = np.array(areas, np.int64)
    pairs = np.array(pairs, np.int64).reshape(-1, 2)
    values = {
        "colours": np.zeros((len(areas), 3)), "frame": np.zeros(len(areas), np.int64),
        "lengths": np.ones(len(pairs), np.int64), "differences": np.ones(len(pairs)),
    }  # fmt: skip
    return SuperpixelGraph(areas=areas, pairs=pairs, costs=np.array(costs, np.int64), **(values | given))


def random_graph(seed: int, count: int = 9) -> tuple[SuperpixelGraph, np.ndarray, np.ndarray, np.ndarray]:
    """A graph, the seed, how far regions may reach, and gains."""
    rng = np.random.default_rng(seed)
    pairs = [pair for pair in itertools.combinations(range(count), 2) if rng.uniform() < 0.4]
    graph = given_graph(pairs, rng.integers(0, 3000, len(pairs)), rng.integers(1, 9, count))
    seed_members, reach = np.zeros(count, bool), np.ones(count, bool)
    seed_members[0], reach[-1] = True, False
    return graph, seed_members, reach, rng.integers(-2000, 2000, count)


def every_region(graph: SuperpixelGraph, seed: np.ndarray, reach: np.ndarray) -> list[np.ndarray]:
    """All regions that contain the seed and lie within reach."""
    free = reach & ~seed
    choices = [(False, True) if is_free else (inside,) for inside, is_free in zip(seed, free, strict=True)]
    return [np.array(choice) for choice in itertools.product(*choices)]


# Cuts


@pytest.mark.parametrize("seed", range(12))
def test_a_minimal_cut_is_the_smallest_of_the_best(seed: int) -> None:
    graph, inside, reach, gains = random_graph(seed)
    worth = capacities(graph, gains, 150.0 * (seed - 6))
    regions = every_region(graph, inside, reach)
    costs = [energy(graph, region, worth) for region in regions]
    best = [region for region, cost in zip(regions, costs, strict=True) if cost == min(costs)]
    smallest = min(best, key=np.sum)
    assert minimal_cut(graph, inside, reach, worth).tolist() == smallest.tolist()


@pytest.mark.parametrize("factor", [10**6, 10**9])
def test_a_superpixel_worth_more_than_32_bits_is_worth_more_than_its_borders(factor: int) -> None:
    """In a row of five the last but one is worth taking, and so is what leads to it; the last is not."""
    graph = given_graph([(k, k + 1) for k in range(4)], [1000] * 4, [1] * 5)
    worth = np.array([0, 0, 0, 5000, -5000]) * factor
    region = minimal_cut(graph, np.arange(5) == 0, np.ones(5, bool), worth)
    assert region.tolist() == [True, True, True, True, False]


@pytest.mark.parametrize("seed", range(12))
def test_cuts_are_nested_in_lambda(seed: int) -> None:
    graph, inside, reach, gains = random_graph(seed)
    weights = np.linspace(-900, 900, 25)
    cuts = [minimal_cut(graph, inside, reach, capacities(graph, gains, weight)) for weight in weights]
    assert all((larger >= smaller).all() for smaller, larger in itertools.pairwise(cuts))
    assert cuts[0].sum() < cuts[-1].sum()


@pytest.mark.parametrize("seed", range(12))
def test_parametric_cuts_are_nested_and_each_is_the_best_for_some_lambda(seed: int) -> None:
    graph, inside, _, gains = random_graph(seed)
    everything = np.ones(len(inside), bool)
    cuts = parametric_cuts(graph, inside, gains, 50)
    areas = [int(graph.areas[region].sum()) for region in (inside, *cuts, everything)]
    assert areas == sorted(set(areas))
    assert all((larger >= smaller).all() for smaller, larger in itertools.pairwise([inside, *cuts, everything]))
    regions = every_region(graph, inside, everything)
    costs = np.array([energy(graph, region, gains) for region in regions])
    sizes = np.array([int(graph.areas[region].sum()) for region in regions])
    for region in cuts:
        cost, size = energy(graph, region, gains), int(graph.areas[region].sum())
        larger, smaller = sizes > size, sizes < size
        most = ((costs[larger] - cost) / (sizes[larger] - size)).min()
        least = ((costs[smaller] - cost) / (sizes[smaller] - size)).max()
        assert least <= most + len(inside)  # of a superpixel's worth half a unit is lost in rounding
        assert cost == costs[sizes == size].min()


def test_a_chain_is_cut_at_its_weakest_borders() -> None:
    """Superpixels 0 to 4 in a row, of which 0 is the seed; weak borders after 1 and 3, and 4 is no foreground."""
    graph = given_graph([(k, k + 1) for k in range(4)], [1000, 10, 1000, 10], [1] * 5)
    inside, gains = np.arange(5) == 0, np.array([0, 0, 0, 0, -1000])
    for most, regions in ((0, []), (1, [[0, 1]]), (9, [[0, 1], [0, 1, 2, 3]])):
        cuts = parametric_cuts(graph, inside, gains, most)
        assert [np.flatnonzero(region).tolist() for region in cuts] == regions


def test_only_the_part_that_contains_the_seed_is_kept() -> None:
    graph = given_graph([(0, 1), (1, 2), (3, 4)], [1, 1, 1], [1] * 5)
    region = np.array([True, True, False, True, True])
    assert component(graph, region, np.array([False, True, False, False, False])).tolist() == [True, True] + [False] * 3
    assert component(graph, region, np.array([False, False, False, False, True])).tolist() == [False] * 3 + [True] * 2


# Superpixels


def test_the_graph_of_superpixels_by_hand() -> None:
    labels = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]])
    image = np.zeros((3, 3, 3), np.uint8)
    image[labels == 1] = 255
    graph = graph_of(labels, image, contrast=1.5, smoothness=0.02)
    assert graph.areas.tolist() == [4, 2, 3]
    assert graph.frame.tolist() == [3, 2, 3]
    assert graph.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert graph.lengths.tolist() == [2, 2, 1]
    np.testing.assert_allclose(graph.differences, [100, 0, 100], atol=0.01)  # in Lab, white is at 100
    e = np.exp(-1 / 1.5)
    np.testing.assert_allclose(graph.costs, [2000 * (e + 0.02), 2000 * 1.02, 1000 * (e + 0.02)], atol=1)


def test_boxes_of_superpixels_by_hand() -> None:
    labels = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]])
    members = np.array([[True, False, False], [False, True, True], [True, True, True]])
    assert boxes_of(members, labels).tolist() == [[0, 0, 2, 2], [0, 0, 3, 3], [0, 0, 3, 3]]
    assert boxes_of(np.zeros((0, 3), bool), labels).shape == (0, 4)


def test_every_seed_is_a_set_of_its_own() -> None:
    labels = np.arange(16).reshape(4, 4).repeat(10, axis=0).repeat(10, axis=1)
    seeds = seeds_of(labels, 4)
    assert [np.flatnonzero(seed).tolist() for seed in seeds] == [[k] for k in range(16)]
    assert len(seeds_of(labels, 8)) == 16
    assert [np.flatnonzero(seed).tolist() for seed in seeds_of(labels, 1)] == [[5, 6, 9, 10]]


# Which regions are kept, and in which order


def test_contrast_counts_along_the_whole_border_and_the_images_edge_has_none() -> None:
    graph = given_graph(
        [(0, 1), (1, 2)], [0, 0], [1, 1, 1], lengths=np.array([3, 5]), differences=np.array([10.0, 2.0]),
        frame=np.array([6, 0, 5]),
    )  # fmt: skip
    members = np.array([[True, False, False], [False, True, False], [True, True, True]])
    np.testing.assert_allclose(border_contrast(graph, members), [30 / 9, 40 / 8, 0])


def test_overlaps_count_area() -> None:
    members = np.array([[True, True, False], [False, True, True]])
    np.testing.assert_allclose(overlap_matrix(members, np.array([1, 2, 5])), [[1, 0.25], [0.25, 1]])


def test_of_near_equals_the_best_is_kept() -> None:
    overlaps = np.array([[1, 0.96, 0.1], [0.96, 1, 0.97], [0.1, 0.97, 1]])
    assert distinct_rows(np.array([1.0, 3.0, 2.0]), overlaps, 0.95).tolist() == [1]
    assert distinct_rows(np.array([3.0, 2.0, 1.0]), overlaps, 0.95).tolist() == [0, 2]
    assert distinct_rows(np.array([3.0, 2.0, 1.0]), overlaps, 1).tolist() == [0, 1, 2]


def test_the_next_is_good_and_unlike_those_before() -> None:
    overlaps = np.array([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]])
    scores = np.array([1.0, 0.8, 0.3])
    assert diverse_order(scores, overlaps, 1).tolist() == [0, 2, 1]
    assert diverse_order(scores, overlaps, 0).tolist() == [0, 1, 2]


# Whole images


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 [90, 120, 3] of a disc on a gradient with noise, and the disc's mask."""
    rng = np.random.default_rng(seed)
    image = np.linspace(60, 110, 120)[None, :, None].repeat(90, 0).repeat(3, 2)
    disc = np.zeros((90, 120), np.uint8)
    cv2.circle(disc, (70, 40), 24, 1, -1)
    image[disc > 0] = (200, 80, 60)
    return (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8), disc > 0


def found(settings: Settings, image: np.ndarray) -> Any:
    return min_cut.find(settings, image.shape[1::-1], image, {})


def test_an_object_is_among_the_first_regions() -> None:
    image, disc = scene()
    proposals = found(CUTS, image)
    masks = [members[proposals.regions.labels] for members in proposals.regions.members]
    overlaps = [(mask & disc).sum() / (mask | disc).sum() for mask in masks]
    assert max(overlaps[:10]) > 0.8
    for box, mask in zip(proposals.boxes, masks, strict=True):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_regions_are_distinct_and_neither_too_small_nor_too_large() -> None:
    image, _ = scene()
    settings = replace(CUTS, least_area=0.05, most_area=0.5, same_overlap=0.8)
    proposals = found(settings, image)
    members, labels = proposals.regions.members, proposals.regions.labels
    shares = np.array([of_region[labels].mean() for of_region in members])
    assert len(shares) > 3
    assert ((shares >= 0.05) & (shares <= 0.5)).all()
    overlaps = overlap_matrix(members, np.bincount(labels.ravel()))
    assert (overlaps[~np.eye(len(members), dtype=bool)] <= 0.8).all()
    assert len(found(CUTS, image).boxes) > len(members)


def test_the_same_image_gives_the_same_regions() -> None:
    image, _ = scene()
    first, second = found(CUTS, image), found(CUTS, image.copy())
    np.testing.assert_array_equal(first.regions.members, second.regions.members)
    assert first.columns()["masks/counts"].tobytes() == second.columns()["masks/counts"].tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (37, 1), (3, 4), (9, 60)])
def test_small_images(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3)).astype(np.uint8)
    proposals = found(CUTS, image)
    assert proposals.boxes.shape == (len(proposals.boxes), 4)
    assert proposals.columns()["mask_end"].shape == (len(proposals.boxes),)


def test_large_images_are_cut_smaller() -> None:
    image = cv2.resize(scene()[0], (360, 270))
    proposals = found(replace(CUTS, cut_max_side=120), image)
    assert proposals.regions.labels.shape == (90, 120)
    assert proposals.boxes.max() == 360


def test_superpixels_are_numbered_from_zero() -> None:
    labels = superpixels(scene()[0], 16)
    assert np.unique(labels).tolist() == list(range(labels.max() + 1))
    assert 20 < labels.max() < 120


# Settings


def test_masks_are_kept_without_being_asked_for() -> None:
    assert CUTS.keeps_masks
    assert not Settings().keeps_masks
    assert "masks" not in identity_of(CUTS)
    with pytest.raises(BadSetting, match="'seed' is a setting of method"):
        build_settings(Settings, {"method": "min-cut", "seed": 1})


def test_areas_that_no_region_can_have_are_refused() -> None:
    with pytest.raises(BadSetting, match=r"least_area = 0.5 is more than most_area = 0.4"):
        build_settings(Settings, {"method": "min-cut", "least_area": 0.5, "most_area": 0.4})
