"""What proposals find and cost: `python -m benchmarks.proposals voc:DIR:SPLIT --images 100`.

For each configuration: boxes per image, recall of the non-difficult objects at IoU 0.5 and 0.7, mean average best
overlap, seconds per image (one process, one OpenCV thread). Then the same for the default when only the first
`max_boxes` are kept, in several orders. Choose on `val`, never on `test`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from stages.boxes import Boxes, area
from stages.datasets import Dataset, ImageRecord, open_detection
from stages.matching.proposals import proposal_recall
from stages.propose import Settings
from stages.propose.selection import by_priority, canonical_boxes
from stages.propose.stage import search

CONFIGURATIONS = {
    "fast k=50 (default)": Settings(),
    "fast k=150": Settings(base_k=150, inc_k=150),
    "fast k=50, no resize": Settings(resize_width=0),
    "quality k=50": Settings(mode="quality"),
    "quality k=150": Settings(mode="quality", base_k=150, inc_k=150),
    "sliding-window": Settings(method="sliding-window"),
}
LIMITS = (200, 400, 800, 1200)
Order = Callable[[Boxes, str], Boxes]


@dataclass(frozen=True)
class Measured:
    """The boxes of every image and the seconds per image that they took."""

    boxes: dict[str, Boxes]
    seconds: float


def propose_all(dataset: Dataset, records: Sequence[ImageRecord], settings: Settings) -> Measured:
    """All proposals of every image, in canonical order."""
    start = time.perf_counter()
    boxes = {record.image_id: search(settings, dataset.image_file(record.image_id))[0] for record in records}
    return Measured(boxes, (time.perf_counter() - start) / len(records))


def random_order(boxes: Boxes, image_id: str) -> Boxes:
    """The boxes in random order, all orders being equally likely."""
    order = list(range(len(boxes)))
    Random(f"0/{image_id}").shuffle(order)
    return canonical_boxes(boxes)[order]


def largest_first(boxes: Boxes, image_id: str) -> Boxes:
    """The boxes by area, largest first."""
    return boxes[np.argsort(-area(boxes), kind="stable")]


def stage_order(boxes: Boxes, image_id: str) -> Boxes:
    """The boxes in the stage's order."""
    return by_priority(boxes, image_id, Settings().seed)


ORDERS: dict[str, Order] = {"the stage's": stage_order, "random": random_order, "largest first": largest_first}


def describe(boxes: dict[str, Boxes], records: Sequence[ImageRecord]) -> str:
    """One line: boxes per image, recalls, overlap."""
    half, most = (proposal_recall(boxes, records, iou) for iou in (0.5, 0.7))
    mean = np.mean([len(of_image) for of_image in boxes.values()])
    overlap = half.mean_average_best_overlap
    return f"{mean:7.0f} boxes  recall {half.recall:6.1%} @0.5 {most.recall:6.1%} @0.7  MABO {overlap:.3f}"


def compare(dataset: Dataset, images: int, names: Sequence[str]) -> None:
    """Prints the table for about `images` images, evenly spaced in the dataset."""
    step = max(1, len(dataset.image_ids) // images)
    records = [dataset.record(image_id) for image_id in dataset.image_ids[::step][:images]]
    objects = sum(int((~record.difficult).sum()) for record in records)
    print(f"{dataset.name}: {len(records)} images, {objects} non-difficult objects", flush=True)
    for name in names:
        measured = propose_all(dataset, records, CONFIGURATIONS[name])
        print(f"{name:22} {describe(measured.boxes, records)}  {measured.seconds:6.2f} s/image", flush=True)
        if CONFIGURATIONS[name] == Settings():
            compare_orders(measured.boxes, records)


def compare_orders(boxes: dict[str, Boxes], records: Sequence[ImageRecord]) -> None:
    """Prints what the first boxes find, for each limit and order."""
    for limit in LIMITS:
        for name, order in ORDERS.items():
            kept = {image_id: order(of_image, image_id)[:limit] for image_id, of_image in boxes.items()}
            print(f"  max {limit:4} {name:13} {describe(kept, records)}", flush=True)


def main() -> None:
    """Measures the configurations and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", help="the dataset, e.g. voc:DIR:val")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--only", nargs="*", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    arguments = parser.parse_args()
    import cv2

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as work:
        compare(open_detection(arguments.dataset, work=Path(work)), arguments.images, arguments.only)


if __name__ == "__main__":
    main()
