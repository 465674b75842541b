"""`python -m benchmarks.merging`: the CPU time of OverFeat's greedy merge of one image's boxes, beside NMS.

Random boxes of about 100 x 100 pixels around one place, the expensive case: nearly all of them are merged.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

SIZES = ((20, 100), (200, 100), (8, 300), (1, 1000), (1, 4000))
"""Classes, and boxes of each."""


def main() -> None:
    """Measures and prints a line for each of SIZES."""
    from stages.detections import Detections
    from stages.detections.suppression import GreedyMerge, GreedyNms, Suppression

    parser = argparse.ArgumentParser(description="CPU time of merging the boxes of one image.")
    parser.add_argument("--repeats", type=int, default=3, help="number of timings; the median is reported")
    repeats = parser.parse_args().repeats
    GreedyNms(0.3).outcome(Detections(np.ones((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int32)))
    for classes, boxes in SIZES:
        random, count = np.random.default_rng(0), classes * boxes
        corners = random.normal(250, 60, (count, 2))
        sides = random.normal(100, 15, (count, 2)).clip(20)
        labels = np.repeat(np.arange(classes, dtype=np.int32), boxes)
        scores = -np.sort(-random.random((classes, boxes), np.float32), axis=1).ravel()
        candidates = Detections(np.hstack([corners, corners + sides]).astype(np.float32), scores, labels)
        methods: dict[str, Suppression] = {"merge": GreedyMerge(0.5), "NMS": GreedyNms(0.3)}
        words = []
        for name, method in methods.items():
            seconds = []
            for _ in range(repeats):
                start = time.process_time()
                left = len(method.outcome(candidates).detections)
                seconds.append(time.process_time() - start)
            words.append(f"{name} {statistics.median(seconds):.4f} s, {left:,} left")
        print(f"{classes:,} classes of {boxes:,} boxes: {'; '.join(words)}")


if __name__ == "__main__":
    main()
