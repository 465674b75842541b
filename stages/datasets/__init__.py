"""Datasets: VOC's devkit layout, the project's own generated sets, and folders of classes for pre-training."""

from stages.datasets.classification import ClassificationDataset
from stages.datasets.records import BadAnnotation, BadDataset, ImageRecord
from stages.datasets.sources import open_classification, open_dataset, open_detection
from stages.datasets.voc import VOC_CLASSES, Dataset

__all__ = [
    "VOC_CLASSES",
    "BadAnnotation",
    "BadDataset",
    "ClassificationDataset",
    "Dataset",
    "ImageRecord",
    "open_classification",
    "open_dataset",
    "open_detection",
]
