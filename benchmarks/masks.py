"""What `propose.masks = true` costs: `python -m benchmarks.masks voc:DIR:SPLIT --images 50`.

Selective search with and without masks, all boxes, the two taking turns on each image: processor time (one process, one
thread), and the bytes that the masks add to the parts of a cache with each compression.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.proposals import sample
from cache import Record, Schema
from cache.parts import COMPRESSIONS, part_bytes
from stages.datasets import open_detection
from stages.masks import COUNTS
from stages.propose import STAGE, Settings
from stages.propose.stage import Task, propose, schema_of

SETTINGS = {"without masks": Settings(), "with masks": Settings(masks=True)}


def proposed(settings: Settings, task: Task) -> tuple[Record, float]:
    """(the image's record, processor seconds)."""
    start = time.process_time()
    record = propose(settings, task).record
    assert record is not None
    return record, time.process_time() - start


def stored(schema: Schema, records: dict[str, Record], compression: str) -> int:
    """The bytes of the cache's parts."""
    ids = list(records)
    parts = [ids[first : first + STAGE.part_size] for first in range(0, len(ids), STAGE.part_size)]
    return sum(len(part_bytes(schema, part, [records[item] for item in part], {}, compression)) for part in parts)


def main() -> None:
    """Measures both and prints what masks add."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", help="the dataset, e.g. voc:DIR:val")
    parser.add_argument("--images", type=int, default=50)
    arguments = parser.parse_args()
    import cv2

    cv2.setNumThreads(1)
    records: dict[str, dict[str, Record]] = {name: {} for name in SETTINGS}
    seconds: dict[str, list[float]] = {name: [] for name in SETTINGS}
    with tempfile.TemporaryDirectory() as work:
        dataset = open_detection(arguments.dataset, work=Path(work))
        tasks = [
            Task(image.image_id, dataset.image_file(image.image_id), {}) for image in sample(dataset, arguments.images)
        ]
        for settings in SETTINGS.values():
            proposed(settings, tasks[0])  # compiles, or loads what is compiled
        for task in tasks:
            for name, settings in SETTINGS.items():
                records[name][task.image_id], took = proposed(settings, task)
                seconds[name].append(took)
    for name, of_images in seconds.items():
        print(f"{name:14} {1000 * statistics.median(of_images):4.0f} ms per image (median)")
    more = [1000 * (after - before) for before, after in zip(*seconds.values(), strict=True)]
    print(f"masks take {statistics.median(more):.0f} ms per image (median; {min(more):.0f} to {max(more):.0f})")
    boxes = np.mean([len(record["boxes"]) for record in records["with masks"].values()])
    characters = np.mean([len(record[COUNTS]) for record in records["with masks"].values()])
    print(f"{boxes:,.0f} boxes and {characters / 1000:,.0f} kB of characters per image (mean)")
    for compression in COMPRESSIONS:
        sizes = [stored(schema_of(SETTINGS[name]), records[name], compression) / len(tasks) / 1000 for name in SETTINGS]
        print(f"compression {compression:5} {sizes[0]:6.0f} kB per image without masks, {sizes[1]:6.0f} kB with")


if __name__ == "__main__":
    main()
