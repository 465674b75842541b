"""The papers' numbers shown beside a report's own, and the data that they are for."""

from __future__ import annotations

from typing import Any

from stages.benchmark_classes import VOC_CLASSES

TABLE_2 = (
    ("R-CNN pool5", 44.2),
    ("R-CNN fc6", 46.2),
    ("R-CNN fc7", 44.7),
    ("R-CNN FT pool5", 47.3),
    ("R-CNN FT fc6", 53.1),
    ("R-CNN FT fc7", 54.2),
    ("R-CNN FT fc7 BB", 58.5),
)
"""mAP in percent on VOC 2007 test, 11 points: R-CNN (arXiv 1311.2524v5) Table 2."""
PROTOCOL = (
    "R-CNN (arXiv 1311.2524v5), Table 2: T-Net in Caffe, trained on VOC 2007 trainval, with the authors' own "
    "selective-search boxes; FT: with fine-tuning, BB: with bounding-box regression. Here: the recipe's network and "
    "data and, unless the boxes come from a file, selective search as OpenCV implements it."
)
IMAGES = 4952


def is_voc_2007_test(dataset: Any) -> bool:
    """Whether the dataset is that of Table 2: the whole official test set with all its classes."""
    return dataset.name == "voc2007-test" and len(dataset) == IMAGES and tuple(dataset.classes) == VOC_CLASSES


SEGMENTATION = (
    ("O2P", 46.4),
    ("R-CNN full fc6", 43.0),
    ("R-CNN full fc7", 42.5),
    ("R-CNN fg fc6", 43.7),
    ("R-CNN fg fc7", 42.1),
    ("R-CNN full+fg fc6", 47.9),
    ("R-CNN full+fg fc7", 45.8),
)
"""Mean accuracy in percent on VOC 2011 val: R-CNN (arXiv 1311.2524v5) Table 5."""
SEGMENTATION_PROTOCOL = (
    "R-CNN (arXiv 1311.2524v5), Table 5: T-Net in Caffe, regions of CPMC, trained on VOC 2011 train and the "
    "annotations of Hariharan et al. On VOC 2011 test (Table 6): R&P 40.8, O2P 47.6, R-CNN full+fg fc6 47.9."
)
SEGMENTATION_IMAGES = 1111


def is_voc_2011_val(dataset: Any) -> bool:
    """Whether the dataset is that of Table 5: the whole official validation set of segmentation, with all classes."""
    classes = tuple(dataset.classes) == VOC_CLASSES
    return dataset.name == "voc2011-val" and len(dataset) == SEGMENTATION_IMAGES and classes
