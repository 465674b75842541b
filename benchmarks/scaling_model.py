"""How long propose, extract and train-svm's pass take on many images and workers, and what limits them.

A model of bounds: each stage takes as long as the busiest resource that it uses (processors, storage, ...), as if the
others worked in parallel; the stages run one after another. N images and W workers (one process on one core each) are
arrays that broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

DISK_SPACE = "disk space"
Times = dict[str, dict[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class Costs:
    """The costs of an image, and the capacities of machines and storage.

    Core-seconds per image: `propose`, `extract` (the network on all its regions) and `pass_` (train-svm's one process
    reading and scoring the features). Bytes per image: `image_bytes` (its file), `proposal_bytes`, `feature_bytes`. A
    part of the features holds `images_per_part` and costs `part` seconds apart from its data (claim, fsync, rename). A
    worker reads every part's header `looks` times and those of its own parts `own_looks` times more; the storage
    answers `look_rate` such reads per second, moves `storage_rate` bytes per second and holds `storage_bytes`. A
    machine has `cores` and a network of `machine_rate` bytes per second.
    """

    propose: float
    extract: float
    pass_: float
    image_bytes: float
    proposal_bytes: float
    feature_bytes: float
    images_per_part: float
    part: float
    looks: float
    own_looks: float
    look_rate: float
    storage_rate: float
    storage_bytes: float
    machine_rate: float
    cores: float


def stage_times(images: ArrayLike, workers: ArrayLike, costs: Costs) -> Times:
    """The seconds that each stage would take if only one resource limited it, as stage -> resource -> array."""
    n, w = np.asarray(images, np.float64), np.asarray(workers, np.float64)
    machines = np.ceil(w / costs.cores)
    parts = n / costs.images_per_part
    moved = costs.image_bytes + costs.proposal_bytes + costs.feature_bytes
    searched = costs.image_bytes + costs.proposal_bytes
    looks = parts * (costs.looks * w + costs.own_looks)
    return {
        "propose": {
            "propose's processors": n * costs.propose / w,
            "storage bandwidth": n * searched / costs.storage_rate + 0 * w,
            "machines' network": n * searched / (costs.machine_rate * machines),
        },
        "extract": {
            "the network's forward pass": n * costs.extract / w,
            "storage bandwidth": n * moved / costs.storage_rate + 0 * w,
            "machines' network": n * moved / (costs.machine_rate * machines),
            "parts and metadata": parts * costs.part / w + looks / costs.look_rate,
        },
        "train-svm": {
            "train-svm's one process": n * costs.pass_ + 0 * w,
            "storage bandwidth": n * costs.feature_bytes / costs.storage_rate + 0 * w,
            "machines' network": n * costs.feature_bytes / costs.machine_rate + 0 * w,
        },
    }


def total_seconds(times: Times) -> NDArray[np.float64]:
    """The seconds of all stages, one after another, each as long as its slowest resource takes."""
    return np.sum([np.max(list(stage.values()), axis=0) for stage in times.values()], axis=0)


def total_bytes(images: ArrayLike, costs: Costs) -> NDArray[np.float64]:
    """The bytes of the caches of proposals and features."""
    return np.asarray(images, np.float64) * (costs.proposal_bytes + costs.feature_bytes)


def first_bottleneck(images: ArrayLike, times: Times, costs: Costs) -> NDArray[np.str_]:
    """What limits first: disk space if the caches do not fit, else the resource that takes longest."""
    names = [name for stage in times.values() for name in stage]
    seconds = np.stack([value for stage in times.values() for value in stage.values()])
    slowest = np.array(names)[np.argmax(seconds, axis=0)]
    fits = np.broadcast_to(total_bytes(images, costs) <= costs.storage_bytes, slowest.shape)
    return np.where(fits, slowest, DISK_SPACE)


def paid_seconds(images: ArrayLike, workers: ArrayLike, times: Times) -> NDArray[np.float64]:
    """Core-seconds per image to pay for, idle time included: all workers in propose and extract, then one."""
    n, w = np.asarray(images, np.float64), np.asarray(workers, np.float64)
    longest = {stage: np.max(list(resources.values()), axis=0) for stage, resources in times.items()}
    return ((longest["propose"] + longest["extract"]) * w + longest["train-svm"]) / n


def break_even_workers(costs: Costs) -> float:
    """The number of workers above which recomputing features is faster than reading them from the storage."""
    return costs.extract * costs.storage_rate / costs.feature_bytes
