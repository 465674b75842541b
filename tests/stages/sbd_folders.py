"""Small folders in the layout of the Semantic Boundaries Dataset, as its release has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image
from scipy.sparse import csc_matrix

CAT, DOG, PERSON = 8, 12, 15
CLASS_MASK = np.array([[0, CAT, CAT, 0], [0, CAT, PERSON, PERSON], [CAT, 0, 0, 0]], np.uint8)
OBJECT_MASK = np.array([[0, 1, 3, 0], [0, 1, 2, 2], [1, 0, 0, 0]], np.uint8)
CATEGORIES = (CAT, PERSON, CAT)


def structure(**fields: Any) -> dict[str, Any]:
    """The fields with the release's boundaries, sparse logical matrices in a cell array, which are not read."""
    boundaries = np.empty((20, 1), object)
    for place in range(20):
        boundaries[place, 0] = csc_matrix(np.eye(3, 4, dtype=bool))
    return {"Boundaries": boundaries, **fields}


def write_class_mask(path: Path, mask: np.ndarray = CLASS_MASK, **options: Any) -> None:
    fields = structure(Segmentation=mask, CategoriesPresent=np.unique(mask[mask > 0]))
    scipy.io.savemat(path, {"GTcls": fields}, **options)


def write_object_mask(
    path: Path, mask: np.ndarray = OBJECT_MASK, categories: Sequence[int] = CATEGORIES, **options: Any
) -> None:
    fields = structure(Segmentation=mask, Categories=np.array(categories, np.uint8)[:, None])
    scipy.io.savemat(path, {"GTinst": fields}, **options)


def add_image(home: Path, image_id: str, pixels: np.ndarray | None = None) -> None:
    """An image uint8 [H, W, 3] of a set in `home`; none: white, of the size of CLASS_MASK."""
    for name in ("img", "cls", "inst"):
        (home / name).mkdir(parents=True, exist_ok=True)
    shape = (*CLASS_MASK.shape, 3)
    Image.fromarray(np.full(shape, 255, np.uint8) if pixels is None else pixels).save(home / "img" / f"{image_id}.jpg")


def sbd_folder(folder: Path, splits: Mapping[str, Sequence[str]], **options: Any) -> Path:
    """`folder` with `dataset` in it, whose images have the masks above, and these lists; `options` of savemat."""
    home = folder / "dataset"
    for split, image_ids in splits.items():
        for image_id in image_ids:
            add_image(home, image_id)
            write_class_mask(home / "cls" / f"{image_id}.mat", **options)
            write_object_mask(home / "inst" / f"{image_id}.mat", **options)
        (home / f"{split}.txt").write_text("\n".join(image_ids))
    return folder
