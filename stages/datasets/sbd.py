"""The Semantic Boundaries Dataset: masks of VOC's classes for 11,355 images of VOC 2011 (Hariharan et al., ICCV 2011).

R-CNN section 5 trains on them beside VOC's own. In the release's folder `dataset` are `img/ID.jpg`, `cls/ID.mat` (a
structure GTcls, whose Segmentation is the class of each pixel), `inst/ID.mat` (GTinst: Segmentation is the number of
the object, Categories the classes of objects) and lists of ids, `train.txt` and `val.txt`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.files import cannot
from stages.benchmark_classes import VOC_CLASSES
from stages.contract.settings import nearest, setting
from stages.datasets.annotations import Annotation, VocObject
from stages.datasets.class_masks import VOID, ObjectMasks, components, stacked
from stages.datasets.digests import combined
from stages.datasets.image_set import images_digest
from stages.datasets.layout import Layout, read_image_set
from stages.datasets.listing import Listing
from stages.datasets.mask_files import MISSING_MASK
from stages.datasets.records import BadAnnotation, BadDataset
from stages.datasets.voc import (
    CLASS_MASKS,
    ERROR,
    LEAVE_OUT,
    OBJECT_MASKS,
    ClassOptions,
    Dataset,
    VocOptions,
    checked_classes,
    plain_label,
)
from stages.images.reading import SUFFIXES
from stages.input_files import read_whole
from stages.masks import mask_boxes
from stages.mat_file import is_version_7_3, read_variables

FOLDERS = {CLASS_MASKS: "cls", OBJECT_MASKS: "inst"}
STRUCTURES = {CLASS_MASKS: "GTcls", OBJECT_MASKS: "GTinst"}
IMAGES, MASKS = "img", (".mat",)
SEGMENTATION, CATEGORIES = "Segmentation", "Categories"


@dataclass(frozen=True)
class SbdOptions(ClassOptions):
    """Options of `sbd:DIR:SPLIT`, which always has masks."""

    other_classes: str = setting(
        ERROR, "Pixels of an unlisted class are an error, or void.", choices=(ERROR, LEAVE_OUT)
    )
    excluded: tuple[str, ...] = setting(
        (), "Lists of image ids to leave out, such as VOC's own train and val, whose images this set has too."
    )


class SbdDataset(Dataset):
    """Images of SBD with their masks; an object's box is the one around its mask."""

    def __init__(self, name: str, folder: Path, image_ids: tuple[str, ...], *, work: Path, options: SbdOptions) -> None:
        voc = VocOptions(
            classes=options.classes or VOC_CLASSES,
            exif=options.exif,
            other_classes=options.other_classes,
            masks=True,
        )
        images = folder / IMAGES
        super().__init__(name, folder, image_ids, work=work, options=voc, layout=Layout(folder, images, images))

    def annotation_path(self, image_id: str) -> Path:
        """The path of the file that the image's objects come from."""
        return self.mask_path(image_id, self._mask_folders[-1])

    def notes(self) -> list[str]:
        """None: every object with a mask has a box."""
        return []

    def readable_annotation(self, image_id: str) -> Annotation:
        """The image's objects, with boxes around their masks. Raises BadAnnotation for files that cannot be read."""
        labels, masks = self._objects(image_id, None)
        objects = tuple(
            VocObject(number, self.classes[label], (x1, y1, x2, y2), False, False, False, "")
            for number, (label, (x1, y1, x2, y2)) in enumerate(
                zip(labels.tolist(), mask_boxes(masks).tolist(), strict=True), 1
            )
        )
        height, width = masks.shape[1:]
        return Annotation(self.annotation_path(image_id), (width, height), objects, zero_based=True)

    def annotation_digest(self, image_id: str) -> str:
        """The digest of what determines the image's record, besides the image. Raises BadAnnotation."""
        return combined("boxes of masks", [self.mask_digest(image_id)])

    @cached_property
    def _annotations_digest(self) -> str:
        digests = [combined("boxes of masks", [digest]) for digest in self._mask_digests()]
        return images_digest("annotations", self.image_ids, digests)

    def object_masks(self, image_id: str) -> ObjectMasks:
        """The labels int32 [n] and masks bool [n, H, W] of the objects in inst/, in ascending order, or else the
        connected components of each class. Raises as `class_mask`."""
        return self._objects(image_id, self._mask_size(image_id))

    def _objects(self, image_id: str, size: tuple[int, int] | None) -> ObjectMasks:
        """The objects of an image of `size` (width, height); None: of whatever size the masks have."""
        if not self._has_object_masks:
            path = self.mask_path(image_id)
            return components(self._as_class_mask(path, self._segmentation(path, CLASS_MASKS, size)[0]))
        path = self.mask_path(image_id, OBJECT_MASKS)
        numbers, structure = self._segmentation(path, OBJECT_MASKS, size)
        categories = structure.get(CATEGORIES)
        if not isinstance(categories, np.ndarray):
            raise BadAnnotation(f"{path}: its structure GTinst has no numbers {CATEGORIES}; copy it again")
        labels, masks = [], []
        for number in np.unique(numbers[(numbers != 0) & (numbers != VOID)]).tolist():
            index = self._category(path, categories.ravel(), number)
            if self._label_of_index[index] == -1:
                raise BadAnnotation(self._unknown_index(path, index))
            if self._label_of_index[index] != VOID:
                labels.append(int(self._label_of_index[index]) - 1)
                masks.append(numbers == number)
        return stacked(labels, masks, numbers.shape)

    def _category(self, path: Path, categories: NDArray[Any], number: int) -> int:
        """The class of an object, counted from 1. Raises BadAnnotation if it has none."""
        if number > len(categories) or categories[number - 1] not in range(1, len(VOC_CLASSES) + 1):
            raise BadAnnotation(
                f"{path}: its object {number} has no class from 1 to {len(VOC_CLASSES)} in {CATEGORIES}; copy it again"
            )
        return int(categories[number - 1])

    def _mask_indices(self, image_id: str, folder: str = CLASS_MASKS) -> NDArray[np.uint8]:
        return self._segmentation(self.mask_path(image_id, folder), folder, self._mask_size(image_id))[0]

    def _segmentation(
        self, path: Path, folder: str, size: tuple[int, int] | None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """The field Segmentation of a file's structure, uint8 [H, W], and the structure. Raises BadAnnotation."""
        structure = read_structure(path, STRUCTURES[folder], self._files.read)
        return segmentation_of(path, structure, size), structure

    @cached_property
    def _mask_files(self) -> dict[str, Listing]:
        return {kind: Listing(self.folder / name, MASKS) for kind, name in FOLDERS.items()}

    @cached_property
    def _has_object_masks(self) -> bool:
        return (self.folder / FOLDERS[OBJECT_MASKS]).is_dir()

    @cached_property
    def _classes_of_masks(self) -> tuple[str, ...]:
        return VOC_CLASSES


def read_structure(path: Path, name: str, read: Callable[[Path], bytes] = read_whole) -> dict[str, Any]:
    """The structure `name` in a .mat file, read with `read`: its values by field. Raises BadAnnotation."""
    try:
        raw = read(path)
        if is_version_7_3(raw):
            raise BadAnnotation(f"{path}: is a version 7.3 .mat file; convert it in MATLAB with save(..., '-v7')")
        structures = read_variables(raw, {name}).get(name)
    except FileNotFoundError:
        raise BadAnnotation(f"{path}: {MISSING_MASK}") from None
    except OSError as error:
        raise BadAnnotation(f"{path}: " + cannot("be read", error, "repair or remove it")) from None
    except ValueError as error:
        raise BadAnnotation(f"{path}: is not a complete .mat file ({error}); copy it again") from None
    if not isinstance(structures, list) or len(structures) != 1 or not isinstance(structures[0], dict):
        raise BadAnnotation(f"{path}: has no structure called {name}; name the folders of SBD's release")
    return structures[0]


def segmentation_of(path: Path, structure: dict[str, Any], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """A structure's field Segmentation, uint8 [H, W], of `size` (width, height) unless that is None. Raises
    BadAnnotation."""
    values = structure.get(SEGMENTATION)
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype != np.uint8:
        raise BadAnnotation(f"{path}: its field {SEGMENTATION} is not uint8 [H, W]; copy it again")
    if size is not None and values.shape[::-1] != size:
        given, wanted = (f"{width} x {height}" for width, height in (values.shape[::-1], size))
        raise BadAnnotation(f"{path}: has {given} pixels but its image has {wanted}; correct one of the two")
    return values


def open_sbd(
    folder: Path, split: str, *, work: Path, options: SbdOptions | None = None, partial: bool = False
) -> SbdDataset:
    """The images of `split` in SBD's folder `dataset`, or in the folder that contains it. Raises BadDataset.

    `split` names a list, as "train" does train.txt, or is the path of a .txt list of ids. `partial`: it is one of
    several sources, whose classes need not all be VOC's.
    """
    options = options or SbdOptions()
    checked_classes(options.classes)
    for name in options.classes or ():
        if name not in VOC_CLASSES and not partial:
            raise BadDataset(f"sbd:{folder}:{split}: has no class {name!r}{nearest(name, VOC_CLASSES)}")
    home = folder / "dataset" if (folder / "dataset" / IMAGES).is_dir() else folder
    for needed in (IMAGES, FOLDERS[CLASS_MASKS]):
        if not (home / needed).is_dir():
            raise BadDataset(f"{home / needed}: no such folder; name SBD's folder 'dataset', sbd:DIR:SPLIT")
    path = Path(split).expanduser() if split.endswith(".txt") else home / f"{split}.txt"
    if not path.is_file():
        sets = sorted(path.stem for path in home.glob("*.txt"))
        raise BadDataset(f"{path}: no such image set{nearest(split, sets) or '; write it, one image id per line'}")
    images = Listing(home / IMAGES, SUFFIXES)
    excluded = {image_id for name in options.excluded for image_id in read_image_set(Path(name), images)}
    ids = tuple(image_id for image_id in read_image_set(path, images) if image_id not in excluded)
    if not ids:
        raise BadDataset(f"{path}: all its images are on the excluded lists; correct excluded, or name another split")
    return SbdDataset(plain_label(f"sbd-{path.stem}"), home, ids, work=work, options=options)
