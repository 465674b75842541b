"""Which precision is faster on this machine, and what it does to the features: some regions in each."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes
from stages.contract.precision import PrecisionTrial
from stages.extract import Settings
from stages.extract.features import CPU_BATCH, Features, extract_features, load_network
from stages.images.reading import Pixels
from stages.networks import NetworkSource
from stages.networks.memory import keep_large_buffers
from stages.networks.precision import ONLY_ON_CUDA, PRECISIONS, arithmetic

ROUNDS = 5
SECONDS = 8.0  # after which no further round begins
FIRST_REGIONS = 2  # of the pass that is not timed, in which PyTorch prepares its kernels


def precisions_on_cpu() -> tuple[str, ...]:
    """The values of `precision` that a CPU has."""
    return tuple(name for name in PRECISIONS if name not in ONLY_ON_CUDA)


def evenly_spaced(boxes: Boxes, count: int) -> Boxes:
    """At most `count` of the boxes [n, 4], evenly spaced."""
    rows = np.linspace(0, len(boxes) - 1, min(count, len(boxes))).round().astype(np.int64)
    return boxes[rows]


def try_precisions(image: Pixels, boxes: Boxes, source: NetworkSource, settings: Settings) -> PrecisionTrial:
    """Features of one batch of the `boxes` [n, 4], n > 0, of an `image` uint8 [H, W, 3] on one core of the CPU, in
    every precision that it has.

    The precisions take turns, for at most ROUNDS rounds; the processor time of each is the median. Features are kept
    as float32 here, whatever `settings.dtype` is.
    """
    keep_large_buffers()
    chosen = evenly_spaced(boxes, CPU_BATCH)
    trials = {name: replace(settings, precision=name, dtype="float32") for name in precisions_on_cpu()}
    networks = {name: load_network(source, trial, "cpu") for name, trial in trials.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trials}
    features: dict[str, Features] = {}
    started = time.monotonic()
    with arithmetic(settings.precision, "cpu"):
        for name, trial in trials.items():
            extract_features(image, chosen[:FIRST_REGIONS], networks[name], trial)
        for number in range(ROUNDS):
            if number and time.monotonic() - started > SECONDS:
                break
            for name, trial in trials.items():
                begun = time.process_time()
                features[name] = extract_features(image, chosen, networks[name], trial)
                seconds[name].append(time.process_time() - begun)
    return PrecisionTrial(
        len(chosen),
        {name: float(np.median(times)) / len(chosen) for name, times in seconds.items()},
        {name: {layer: as_float32(values) for layer, values in layers.items()} for name, layers in features.items()},
    )


def as_float32(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """The values as float32."""
    return values.astype(np.float32, copy=False)
