"""Datasets: VOC's devkit layout, COCO's format, the project's generated sets, folders of classes for pre-training."""

from stages.datasets.classification import ClassificationDataset
from stages.datasets.coco import CocoDataset
from stages.datasets.records import BadAnnotation, BadDataset, ImageRecord
from stages.datasets.sources import open_classification, open_dataset, open_detection
from stages.datasets.voc import VOC_CLASSES, Dataset

__all__ = [
    "VOC_CLASSES",
    "BadAnnotation",
    "BadDataset",
    "ClassificationDataset",
    "CocoDataset",
    "Dataset",
    "ImageRecord",
    "open_classification",
    "open_dataset",
    "open_detection",
]
