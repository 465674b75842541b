"""The annotated objects of a set of images, of all classes together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes
from stages.detections import no_boxes


@dataclass(frozen=True)
class Objects:
    """m objects: `images` int64 [m] (index of the image, ascending), `boxes` float32 [m, 4], `labels` int32 [m],
    `difficult`, `truncated`, `occluded` and `crowds` (difficult, too) bool [m], `poses` str [m]."""

    images: NDArray[np.int64]
    boxes: Boxes
    labels: NDArray[np.int32]
    difficult: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    occluded: NDArray[np.bool_]
    poses: NDArray[np.str_]
    crowds: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, keep: NDArray[Any]) -> Objects:
        """Those that `keep` (bool [m] or ascending indices) selects."""
        return Objects(
            self.images[keep],
            self.boxes[keep],
            self.labels[keep],
            self.difficult[keep],
            self.truncated[keep],
            self.occluded[keep],
            self.poses[keep],
            self.crowds[keep],
        )


def read_objects(dataset: Any, image_ids: Sequence[str]) -> Objects:
    """The objects of the dataset's images, in the order of `image_ids`."""
    records = [dataset.record(image_id) for image_id in image_ids]
    flags = {
        name: np.concatenate([np.zeros(0, bool), *(getattr(record, name) for record in records)])
        for name in ("difficult", "truncated", "occluded", "crowds")
    }
    return Objects(
        images=np.repeat(np.arange(len(records)), [len(record.labels) for record in records]),
        boxes=np.concatenate([no_boxes(), *(record.boxes for record in records)]),
        labels=np.concatenate([np.zeros(0, np.int32), *(record.labels for record in records)]),
        poses=np.array([pose for record in records for pose in record.pose], np.str_),
        **flags,
    )
