"""How long propose, extract and train-svm's pass take on many images and workers, and what limits them.

A model of bounds: each stage takes as long as the busiest of what it uses (processors, storage, ...), as if the rest
went on at the same time; the stages follow one another. N images and W workers (one process on one core each) are
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
    """What an image costs, and what machines and storage give.

    Core-seconds an image: `propose`, `extract` (the network on all its regions) and `pass_` (train-svm's one process
    reading the features and scoring them). Bytes an image: `image_bytes` (its file), `proposal_bytes`,
    `feature_bytes`. A part of the features has `images_a_part` and costs `part` seconds beside its data (claim, fsync,
    rename). A worker looks at every part `looks` times and at its own `own_looks` times; all storage answers
    `look_rate` looks a second, moves `storage_rate` bytes a second and holds `storage_bytes`. A machine has `cores`
    and a network of `machine_rate` bytes a second.
    """

    propose: float
    extract: float
    pass_: float
    image_bytes: float
    proposal_bytes: float
    feature_bytes: float
    images_a_part: float
    part: float
    looks: float
    own_looks: float
    look_rate: float
    storage_rate: float
    storage_bytes: float
    machine_rate: float
    cores: float


def stage_times(images: ArrayLike, workers: ArrayLike, costs: Costs) -> Times:
    """The seconds that each stage would take if only one resource limited it: stage -> resource -> array."""
    n, w = np.asarray(images, np.float64), np.asarray(workers, np.float64)
    machines = np.ceil(w / costs.cores)
    parts = n / costs.images_a_part
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
    """The stages one after the other, each as long as its slowest resource."""
    return np.sum([np.max(list(stage.values()), axis=0) for stage in times.values()], axis=0)


def total_bytes(images: ArrayLike, costs: Costs) -> NDArray[np.float64]:
    """What the caches of proposals and features hold."""
    return np.asarray(images, np.float64) * (costs.proposal_bytes + costs.feature_bytes)


def first_bottleneck(images: ArrayLike, times: Times, costs: Costs) -> NDArray[np.str_]:
    """What limits first: disk space where the caches do not fit, else the resource that the longest wait is for."""
    names = [name for stage in times.values() for name in stage]
    seconds = np.stack([value for stage in times.values() for value in stage.values()])
    found = np.array(names)[np.argmax(seconds, axis=0)]
    fits = np.broadcast_to(total_bytes(images, costs) <= costs.storage_bytes, found.shape)
    return np.where(fits, found, DISK_SPACE)


def paid_seconds(images: ArrayLike, workers: ArrayLike, times: Times) -> NDArray[np.float64]:
    """Core-seconds an image that are paid for, waiting included: all workers in propose and extract, then one."""
    n, w = np.asarray(images, np.float64), np.asarray(workers, np.float64)
    longest = {stage: np.max(list(resources.values()), axis=0) for stage, resources in times.items()}
    return ((longest["propose"] + longest["extract"]) * w + longest["train-svm"]) / n


def break_even_workers(costs: Costs) -> float:
    """With more workers than this, computing features again is faster than reading them from the storage."""
    return costs.extract * costs.storage_rate / costs.feature_bytes
