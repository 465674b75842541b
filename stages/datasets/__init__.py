"""Datasets: VOC, COCO and YOLO annotations, combined datasets, the project's generated sets, and folders of classes."""

from stages.benchmark_classes import VOC_CLASSES
from stages.datasets.classification import ClassificationDataset
from stages.datasets.coco import CocoDataset
from stages.datasets.combined import CombinedDataset
from stages.datasets.photos import Photos
from stages.datasets.records import BadAnnotation, BadDataset, ImageRecord
from stages.datasets.sources import open_classification, open_dataset, open_detection
from stages.datasets.voc import Dataset
from stages.datasets.yolo import YoloDataset

__all__ = [
    "VOC_CLASSES",
    "BadAnnotation",
    "BadDataset",
    "ClassificationDataset",
    "CocoDataset",
    "CombinedDataset",
    "Dataset",
    "ImageRecord",
    "Photos",
    "YoloDataset",
    "open_classification",
    "open_dataset",
    "open_detection",
]
