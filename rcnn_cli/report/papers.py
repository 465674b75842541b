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


SEGMENTATION = {
    "O2P": (
        *(84.0, 69.0, 21.7, 47.7, 42.2, 42.4, 64.7, 65.8, 57.4, 12.9, 37.4),
        *(20.5, 43.7, 35.7, 52.7, 51.0, 35.8, 51.0, 28.4, 59.8, 49.7),
    ),
    "full fc6": (
        *(81.3, 56.2, 23.9, 42.9, 40.7, 38.8, 59.2, 56.5, 53.2, 11.4, 34.6),
        *(16.7, 48.1, 37.0, 51.4, 46.0, 31.5, 44.0, 24.3, 53.7, 51.1),
    ),
    "full fc7": (
        *(81.0, 52.8, 25.1, 43.8, 40.5, 42.7, 55.4, 57.7, 51.3, 8.7, 32.5),
        *(11.5, 48.1, 37.0, 50.5, 46.4, 30.2, 42.1, 21.2, 57.7, 56.0),
    ),
    "fg fc6": (
        *(81.4, 54.1, 21.1, 40.6, 38.7, 53.6, 59.9, 57.2, 52.5, 9.1, 36.5),
        *(23.6, 46.4, 38.1, 53.2, 51.3, 32.2, 38.7, 29.0, 53.0, 47.5),
    ),
    "fg fc7": (
        *(80.9, 50.1, 20.0, 40.2, 34.1, 40.9, 59.7, 59.8, 52.7, 7.3, 32.1),
        *(14.3, 48.8, 42.9, 54.0, 48.6, 28.9, 42.6, 24.9, 52.2, 48.8),
    ),
    "full+fg fc6": (
        *(83.1, 60.4, 23.2, 48.4, 47.3, 52.6, 61.6, 60.6, 59.1, 10.8, 45.8),
        *(20.9, 57.7, 43.3, 57.4, 52.9, 34.7, 48.7, 28.1, 60.0, 48.6),
    ),
    "full+fg fc7": (
        *(82.3, 56.7, 20.6, 49.9, 44.2, 43.6, 59.3, 61.3, 57.8, 7.7, 38.4),
        *(15.1, 53.4, 43.7, 50.8, 52.0, 34.1, 47.8, 24.7, 60.1, 55.2),
    ),
}
"""Accuracy in percent of the background and of VOC's classes on VOC 2011 val: R-CNN (arXiv 1311.2524v5) Table 7."""
SEGMENTATION_MEANS = {
    "O2P": 46.4,
    "full fc6": 43.0,
    "full fc7": 42.5,
    "fg fc6": 43.7,
    "fg fc7": 42.1,
    "full+fg fc6": 47.9,
    "full+fg fc7": 45.8,
}
"""Their means: Table 5. Table 7 has 45.7 for the last, which is the mean of its numbers."""
SEGMENTATION_PROTOCOL = (
    "R-CNN (arXiv 1311.2524v5), Tables 5 and 7: T-Net in Caffe, regions of CPMC, trained on VOC 2011 train and the "
    "annotations of Hariharan et al. On VOC 2011 test (Table 6): R&P 40.8, O2P 47.6, R-CNN full+fg fc6 47.9."
)
SEGMENTATION_IMAGES = 1111


def is_voc_2011_val(dataset: Any) -> bool:
    """Whether the dataset is that of Table 5: the whole official validation set of segmentation, with all classes."""
    classes = tuple(dataset.classes) == VOC_CLASSES
    return dataset.name == "voc2011-val" and len(dataset) == SEGMENTATION_IMAGES and classes
