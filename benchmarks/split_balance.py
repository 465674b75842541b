"""How equal the halves of `rcnn data split` are, on counts like those of ILSVRC2013's val: 20,121 images and 200
classes with a long tail, the rarest with 31 objects, half of them with fewer than 110 (R-CNN section 4.1).

    python benchmarks/split_balance.py [--seeds 5]

The bar: no relative imbalance above 11 %, a median of at most 4 % (the paper's split), in 10 seconds. The bound is what
no split can be below: an odd number of objects leaves one over.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from stages.datasets.balance import TRIALS, Counts, balanced_halves, relative_imbalances, tossed_pairs

IMAGES, CLASSES = 20_121, 200
LEAST, MEDIAN, MOST = 31, 109.5, 12_000


def long_tailed_counts(seed: int) -> Counts:
    """int64 [IMAGES, CLASSES]: each class's objects lie in images drawn at random, several in one for some classes."""
    generator = np.random.default_rng(seed)
    half = CLASSES // 2
    tail = np.geomspace(LEAST, MEDIAN, half)
    head = MEDIAN * (MOST / MEDIAN) ** (np.linspace(0, 1, CLASSES - half) ** 2)
    totals = np.round(np.concatenate([tail, head])).astype(int)
    counts = np.zeros((IMAGES, CLASSES), np.int64)
    for label, total in enumerate(totals.tolist()):
        together = generator.uniform(1, 3)
        left = total
        while left:
            group = min(left, total // 4, int(generator.geometric(1 / together)))
            counts[generator.integers(IMAGES), label] += group
            left -= group
    return counts


def main() -> None:
    """Prints a line per seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=TRIALS)
    arguments = parser.parse_args()
    print("seed   largest    bound   median   images            seconds   the same of random halves, of pairs")
    for seed in range(arguments.seeds):
        counts = long_tailed_counts(seed)
        started = time.process_time()
        second = balanced_halves(counts, seed, arguments.trials)
        seconds = time.process_time() - started
        generator = np.random.default_rng(seed)
        others = [generator.random(IMAGES) < 0.5, tossed_pairs(counts, generator)]
        of_others = [relative_imbalances(counts, other) for other in others]
        apart = relative_imbalances(counts, second)
        sizes = f"{int((~second).sum()):,} + {int(second.sum()):,}"
        compared = ", ".join(f"{100 * other.max():.1f} % {100 * np.median(other):.1f} %" for other in of_others)
        bound = float((counts.sum(axis=0) % 2 / counts.sum(axis=0)).max())
        found = f"{100 * apart.max():6.1f} % {100 * bound:6.1f} %  {100 * np.median(apart):5.2f} %"
        print(f"{seed:<6} {found}   {sizes}   {seconds:5.1f}   {compared}")


if __name__ == "__main__":
    main()
