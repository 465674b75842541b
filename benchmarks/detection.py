"""`python -m benchmarks.detection`: the cost of scoring, regression and suppression compared with extraction.

2,000 proposals x 20 classes of one image, with features of the size of AlexNet's fc7 and pool5 and with 2,048 numbers,
against the time that squeezenet1_0 alone (ready-made batches, nothing read, warped or written) needs for 2,000 regions.
Features are random, so few boxes suppress each other, which is the more expensive case. Must stay under 5 %.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from stages.networks.memory import keep_large_buffers

PROPOSALS, CLASSES, LIMIT = 2000, 20, 0.05
WIDTHS = {"fc7 4096, pool5 9216": (4096, 9216), "2048, 2048": (2048, 2048)}


def main() -> None:
    """Measures and prints; exit status 1 if detection takes more than LIMIT of extraction's time."""
    parser = argparse.ArgumentParser(description="Detection's share of extraction's time.")
    parser.add_argument("--regions", type=int, default=192, help="regions on which to time the network")
    parser.add_argument("--repeats", type=int, default=7, help="number of timings; the median is reported")
    chosen = parser.parse_args()
    keep_large_buffers()
    region = forward_seconds(chosen.regions, chosen.repeats)
    print(f"squeezenet1_0 alone: {1 / region:.0f} regions/s, {PROPOSALS * region:.2f} s for {PROPOSALS} regions")
    shares = []
    for name, widths in WIDTHS.items():
        seconds = median_seconds(detection_work(*widths), chosen.repeats)
        shares.append(seconds / (PROPOSALS * region))
        print(f"{name}: {1000 * seconds:.0f} ms per image, {100 * shares[-1]:.1f} % (at most {100 * LIMIT:.0f} %)")
    raise SystemExit(max(shares) > LIMIT)


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """The median seconds of `work`, after one warm-up call."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def forward_seconds(regions: int, repeats: int, batch_size: int = 64) -> float:
    """Seconds per region in the bare network, on the CPU in float32."""
    import torch

    from stages.networks import NetworkSettings, NetworkSource

    network = NetworkSource.from_settings(NetworkSettings("squeezenet1_0", "random")).load("cpu")
    side, layer = network.input_size, list(network.layers)[-1]
    batch = torch.randn(min(batch_size, regions), 3, side, side).to(memory_format=torch.channels_last)

    def forward() -> None:
        with torch.inference_mode():
            for _ in range(max(1, regions // len(batch))):
                network.forward(batch, [layer])

    return median_seconds(forward, min(repeats, 3)) / (max(1, regions // len(batch)) * len(batch))


def detection_work(svm_width: int, regressor_width: int) -> Callable[[], Any]:
    """The work of detect on one image of 500 x 375 pixels, with float16 features of these widths in memory."""
    from stages.detect import Settings
    from stages.detect.scoring import Head
    from stages.detect.trace import detect_image
    from stages.features.linear_models import BoxRegressors, LinearSvms

    random = np.random.default_rng(0)
    names = tuple(f"class{number}" for number in range(CLASSES))
    corners = random.uniform((0, 0), (480, 355), (PROPOSALS, 2))
    boxes = np.hstack([corners, corners + random.uniform(20, 200, (PROPOSALS, 2))]).clip(0, (500, 375) * 2)
    weights = random.normal(size=(CLASSES, svm_width)).astype(np.float32)
    svms = LinearSvms(names, "fc7", weights, np.zeros(CLASSES, np.float32), 1.0)
    maps = random.normal(scale=1e-3, size=(CLASSES, regressor_width + 1, 4)).astype(np.float32)
    regressors = BoxRegressors(names, "pool5", maps, 1.0)
    features = {
        "fc7": random.random((PROPOSALS, svm_width), np.float32).astype(np.float16),
        "pool5": random.random((PROPOSALS, regressor_width), np.float32).astype(np.float16),
    }
    head = Head(svms, regressors)
    return lambda: detect_image(head.scored(boxes.astype(np.float32), features, (500, 375)), Settings()).detections


if __name__ == "__main__":
    main()
