"""Sizes that fit the images and the time that a run may take, from what a trial measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rcnn_cli.starting.systems import Backbone, Sizes, System
from rcnn_cli.starting.trial import Cost

EPOCHS = 40
LEAST_ITERATIONS, MOST_ITERATIONS = 200, 4000
IMAGES_PER_BATCH = 4
TRIED_BOXES = 50
LEAST_BOXES, MOST_BOXES, STEP = 100, 2000, 50
READ_WHOLE_BOXES = 1000


def largest(system: System, network: Backbone, training_images: int) -> Sizes:
    """What is wanted if time does not matter."""
    iterations = round(EPOCHS * training_images / IMAGES_PER_BATCH)
    iterations = min(MOST_ITERATIONS, max(LEAST_ITERATIONS, iterations))
    return Sizes(network.sides[0], iterations, READ_WHOLE_BOXES if system.reads_maps else MOST_BOXES)


def tried(system: System, wanted: Sizes, iterations: int) -> Sizes:
    """What a trial is made with: few iterations and, where each is warped, few boxes."""
    return replace(wanted, iterations=iterations, boxes=wanted.boxes if system.reads_maps else TRIED_BOXES)


def fitted(
    system: System, network: Backbone, wanted: Sizes, costs: Mapping[str, Cost], seconds: float
) -> tuple[Sizes, float]:
    """The sizes, at most those `wanted`, with which the recipe takes no more than the `seconds`, and what it is likely
    to take: more, where that is not possible.

    Where regions are warped, extraction grows with their number; where images are read whole, all grows with their
    area, and training with its iterations too.
    """
    if not system.reads_maps:
        return fitted_boxes(wanted, costs, seconds)
    for side in network.sides:
        sizes = replace(wanted, side=side)
        took = seconds_of(costs, sizes, network.sides[0])
        if took <= seconds:
            return sizes, took
    smallest = replace(sizes, iterations=0)
    rest = seconds - seconds_of(costs, smallest, network.sides[0])
    each = (took - seconds_of(costs, smallest, network.sides[0])) / wanted.iterations
    least = min(wanted.iterations, LEAST_ITERATIONS // 2)
    sizes = replace(sizes, iterations=max(least, int(rest / each) if each > 0 else 0))
    return sizes, seconds_of(costs, sizes, network.sides[0])


def seconds_of(costs: Mapping[str, Cost], sizes: Sizes, tried_side: int) -> float:
    """What the caches take with these sizes, if they were tried at another side."""
    area = (sizes.side / tried_side) ** 2
    each = (cost.each * area * (sizes.iterations if cost.trains else cost.items) for cost in costs.values())
    return sum(each) + sum(cost.begin for cost in costs.values())


def fitted_boxes(wanted: Sizes, costs: Mapping[str, Cost], seconds: float) -> tuple[Sizes, float]:
    """As `fitted`, the number of boxes."""
    per_box = sum(cost.each * cost.items for cost in costs.values() if cost.by_region) / TRIED_BOXES
    rest = sum(cost.begin + (0.0 if cost.by_region else cost.each * cost.items) for cost in costs.values())
    room = int((seconds - rest) / per_box) if per_box > 0 else wanted.boxes
    boxes = min(wanted.boxes, max(LEAST_BOXES, room // STEP * STEP))
    return replace(wanted, boxes=boxes), rest + boxes * per_box
