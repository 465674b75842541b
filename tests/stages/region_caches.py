"""Small caches of proposals with masks, as `propose` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cache import Column, Identity, Reader, Schema, Writer
from stages import masks
from stages.masks import COUNTS, mask_boxes

Masks = Sequence[np.ndarray]


def encoded(mask: np.ndarray) -> bytes:
    """A mask bool [H, W] in COCO's characters, by pycocotools."""
    from pycocotools import mask as coco

    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def disc(x: float, y: float, radius: float, size: tuple[int, int]) -> np.ndarray:
    """The mask [H, W] of a disc in an image of `size` (width, height)."""
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def region_cache(
    folder: Path, regions: Mapping[str, Masks], size: tuple[int, int], *, with_masks: bool = True
) -> Reader:
    """A finished cache of the regions, masks [H, W], of images of `size` (width, height)."""
    bare = Schema("image", {"boxes": Column("float32", (4,))}, {"image_size": Column("int32", (2,))})
    schema = masks.added_to(bare) if with_masks else bare
    writer = Writer(folder, Identity("propose", 1), list(regions), schema)
    for part in writer.claim():
        records = []
        for image_id in part.item_ids:
            texts = [encoded(mask) for mask in regions[image_id]]
            record = {
                "boxes": mask_boxes(np.array(regions[image_id], bool).reshape(-1, *size[::-1])),
                "image_size": np.array(size, np.int32),
                "searched_size": np.array(size, np.int32),
                "mask_end": np.cumsum([len(text) for text in texts]).astype(np.uint32),
                COUNTS: np.frombuffer(b"".join(texts), "S1"),
            }
            records.append({name: record[name] for name in schema.columns()})
        writer.write(part, records)
    writer.finish({})
    writer.release()
    return Reader(folder)
