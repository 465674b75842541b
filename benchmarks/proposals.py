"""What proposals find and cost: `python -m benchmarks.proposals voc:DIR:SPLIT --images 100`.

For each configuration: boxes per image, recall of the non-difficult objects at IoU 0.5 and 0.7, mean average best
overlap, processor seconds per image (one process, one thread); of a ranking, also what its first boxes find; of the
default, what is found when only the first `max_boxes` are kept, in several orders. Choose on `val`, never on `test`.

`--against-opencv` instead compares the two implementations of selective search, which take turns on each image: the
ratio of processor times, how many images have the same boxes, and the recall of both.
"""

from __future__ import annotations

import argparse
import statistics
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
from stages.propose.methods import METHODS
from stages.propose.selection import canonical_boxes, rows_by_size
from stages.propose.stage import rows_in_order, search

CONFIGURATIONS = {
    "fast k=50 (default)": Settings(),
    "OpenCV's fast k=50": Settings(method="selective-search-opencv"),
    "original, k=50, 100": Settings(segmentation="original"),
    "fast k=150": Settings(base_k=150, inc_k=150),
    "fast k=50, no resize": Settings(resize_width=0),
    "quality k=50": Settings(mode="quality"),
    "quality k=150": Settings(mode="quality", base_k=150, inc_k=150),
    "EdgeBoxes": Settings(method="edge-boxes"),
    "EdgeBoxes, sigma 1.5": Settings(method="edge-boxes", gradient_sigma=1.5),
    "sliding-window": Settings(method="sliding-window"),
}
LIMITS = (200, 400, 800, 1200)
OF_A_RANKING = (100, 300, 1000)
Order = Callable[[Boxes, str], Boxes]


@dataclass(frozen=True)
class Measured:
    """The boxes of every image, the images' `content_of`, and the processor seconds that each took."""

    boxes: dict[str, Boxes]
    contents: dict[str, str]
    seconds: dict[str, float]


def propose_all(dataset: Dataset, records: Sequence[ImageRecord], settings: Settings) -> Measured:
    """All proposals of every image, in the stage's order."""
    measured = Measured({}, {}, {})
    search(settings, dataset.image_file(records[0].image_id), {})  # compiles, or loads what is compiled
    for record in records:
        measure(measured, dataset, record.image_id, settings)
    return measured


def measure(measured: Measured, dataset: Dataset, image_id: str, settings: Settings) -> None:
    """Adds the proposals of one image."""
    start = time.process_time()
    proposals, _, content = search(settings, dataset.image_file(image_id), {})
    measured.seconds[image_id] = time.process_time() - start
    measured.boxes[image_id] = proposals.boxes[rows_in_order(settings, proposals, content)]
    measured.contents[image_id] = content


def random_order(boxes: Boxes, content: str) -> Boxes:
    """The boxes in random order, all orders being equally likely."""
    order = list(range(len(boxes)))
    Random(f"0/{content}").shuffle(order)
    return canonical_boxes(boxes)[order]


def largest_first(boxes: Boxes, content: str) -> Boxes:
    """The boxes by area, largest first."""
    canonical = canonical_boxes(boxes)
    return canonical[np.argsort(-area(canonical), kind="stable")]


def by_size(boxes: Boxes, content: str) -> Boxes:
    """The boxes in the random order that methods without a hierarchy have."""
    return boxes[rows_by_size(boxes, content, Settings().seed)]


ORDERS: dict[str, Order] = {
    "the stage's": lambda boxes, content: boxes,
    "by size": by_size,
    "random": random_order,
    "largest first": largest_first,
}


def describe(boxes: dict[str, Boxes], records: Sequence[ImageRecord]) -> str:
    """One line: boxes per image, recalls, overlap."""
    half, most = (proposal_recall(boxes, records, iou) for iou in (0.5, 0.7))
    mean = np.mean([len(of_image) for of_image in boxes.values()])
    overlap = half.mean_average_best_overlap
    return f"{mean:7.0f} boxes  recall {half.recall:6.1%} @0.5 {most.recall:6.1%} @0.7  MABO {overlap:.3f}"


def sample(dataset: Dataset, images: int) -> list[ImageRecord]:
    """The records of about `images` images, evenly spaced in the dataset."""
    step = max(1, len(dataset.image_ids) // images)
    records = [dataset.record(image_id) for image_id in dataset.image_ids[::step][:images]]
    objects = sum(int((~record.difficult).sum()) for record in records)
    print(f"{dataset.name}: {len(records)} images, {objects} non-difficult objects", flush=True)
    return records


def compare_with_opencv(dataset: Dataset, records: Sequence[ImageRecord]) -> None:
    """Prints how our selective search and OpenCV's differ, in time and in boxes."""
    both = {name: CONFIGURATIONS[name] for name in ("fast k=50 (default)", "OpenCV's fast k=50")}
    measured = {name: Measured({}, {}, {}) for name in both}
    for settings in both.values():
        search(settings, dataset.image_file(records[0].image_id), {})  # compiles, or loads what is compiled
    for record in records:
        for name, settings in both.items():
            measure(measured[name], dataset, record.image_id, settings)
    for name in both:
        milliseconds = 1000 * statistics.median(measured[name].seconds.values())
        print(f"{name:22} {describe(measured[name].boxes, records)}  {milliseconds:6.0f} ms per image", flush=True)
    ours, theirs = measured.values()
    ratios = [theirs.seconds[image_id] / seconds for image_id, seconds in ours.seconds.items()]
    sets = [({*map(tuple, ours.boxes[i].tolist())}, {*map(tuple, theirs.boxes[i].tolist())}) for i in ours.boxes]
    jaccard = sum(len(a & b) for a, b in sets) / sum(len(a | b) for a, b in sets)
    print(
        f"OpenCV takes {statistics.median(ratios):.1f} times as long (median; {min(ratios):.1f} to {max(ratios):.1f}); "
        f"the same boxes in {sum(a == b for a, b in sets)} of {len(sets)} images, Jaccard index {jaccard:.4f}"
    )


def compare(dataset: Dataset, records: Sequence[ImageRecord], names: Sequence[str]) -> None:
    """Prints the table of the configurations."""
    for name in names:
        measured = propose_all(dataset, records, CONFIGURATIONS[name])
        seconds = statistics.mean(measured.seconds.values())
        print(f"{name:22} {describe(measured.boxes, records)}  {seconds:6.2f} s per image", flush=True)
        if CONFIGURATIONS[name] == Settings():
            compare_orders(measured, records)
        if METHODS[CONFIGURATIONS[name].method].ranks:
            for limit in OF_A_RANKING:
                first = {image_id: boxes[:limit] for image_id, boxes in measured.boxes.items()}
                print(f"  first {limit:15} {describe(first, records)}", flush=True)


def compare_orders(measured: Measured, records: Sequence[ImageRecord]) -> None:
    """Prints what the first boxes find, for each limit and order."""
    for limit in LIMITS:
        for name, order in ORDERS.items():
            kept = {
                image_id: order(boxes, measured.contents[image_id])[:limit]
                for image_id, boxes in measured.boxes.items()
            }
            print(f"  max {limit:4} {name:13} {describe(kept, records)}", flush=True)


def main() -> None:
    """Measures the configurations and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", help="the dataset, e.g. voc:DIR:val")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--against-opencv", action="store_true", help="compare our selective search with OpenCV's")
    parser.add_argument("--only", nargs="*", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    arguments = parser.parse_args()
    import cv2

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as work:
        dataset = open_detection(arguments.dataset, work=Path(work))
        records = sample(dataset, arguments.images)
        if arguments.against_opencv:
            compare_with_opencv(dataset, records)
        else:
            compare(dataset, records, arguments.only)


if __name__ == "__main__":
    main()
