"""The kinds of data that pass between stages: how each is opened and keyed, and whether it needs a network's device.

How results of a kind are shown is defined in `rcnn_cli.looking.results`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.contract.card import Input
from stages.contract.errors import StageError

if TYPE_CHECKING:
    from cache import Reader
    from cache.held import Content
    from stages.networks import NetworkSource

MEASURED = ("evaluation", "class-scores", "accuracy")
"""The kinds whose summaries are the measured errors or precisions of a method on a dataset."""

DATASETS, NETWORKS = "datasets", "networks"
"""The recipe tables that describe inputs without a cache: [datasets.NAME], and [network] or [networks.NAME]."""


def as_it_is(reader: Reader) -> Any:
    """The cache itself, for a stage that reads its records."""
    return reader


def trained_network(reader: Reader) -> NetworkSource:
    """The network in the cache of a training stage."""
    from stages.networks import NetworkSource

    return NetworkSource.from_reader(reader)


def dataset_key(dataset: Any, wanted: Input) -> str:
    """The key of a dataset's images and, as far as they matter to the input, of its annotations and its masks."""
    from cache.identity import key_of

    keys = [dataset.images_key, *([dataset.annotations_key] if wanted.annotations else [])]
    if wanted.crowds and dataset.images_with_crowds:
        keys.append("crowds")  # an earlier version treated them like difficult objects, and its caches differ
    if wanted.masks:
        keys += ["masks", dataset.masks_key]
    return key_of(keys)


def network_key(network: NetworkSource, wanted: Input) -> str:
    """The key of a network: its architecture, preprocessing and weights."""
    from cache.identity import key_of

    return key_of(network.identity())


def network_content(network: NetworkSource) -> Content:
    """A network as the cache of a stage that trained it would hold it."""
    from stages.networks import weights

    return weights.network_content(network)


def image_keys(dataset: Any, wanted: Input) -> dict[str, str]:
    """The key of each image of a dataset and, as far as they matter to the input, its record and its masks, by image
    id: 32 hex digits.

    Images whose file, annotation or mask cannot be read have none."""
    from cache.identity import short_digest

    keys = {}
    records = dataset.record_digests if wanted.annotations else dict.fromkeys(dataset.image_ids, "")
    for image_id, record in records.items():
        with contextlib.suppress(StageError):
            described = [record] if wanted.annotations else []
            if wanted.masks:
                described += ["masks", dataset.mask_digest(image_id)]
            keys[image_id] = short_digest(image_id, dataset.image_digest(image_id), *described)
    return keys


def has_one_class_per_image(dataset: Any) -> bool:
    """Whether an opened dataset is of the kind "classification"."""
    from stages.datasets import ClassificationDataset

    return isinstance(dataset, ClassificationDataset)


def has_boxes(dataset: Any) -> bool:
    """Whether an opened dataset is of the kind "dataset"."""
    return not has_one_class_per_image(dataset)


@dataclass(frozen=True)
class Kind:
    """One kind of data.

    `open_cache` turns a cache of this kind into what a stage is given. `on_device`: it is a network, so a stage that
    reads or makes it needs the device that networks run on.

    `described_by` names the recipe tables that may describe this kind without a cache. Its key, as an input, is then
    `key(described, input)`, and `image_keys`, if given, returns the keys of its images.
    `content`, if given, is what a cache of it would hold, to travel in another file; `open_cache` opens that.
    `fits` tells whether what a table describes is of this kind, and `holds` says in words what this kind has.
    """

    name: str
    open_cache: Callable[[Reader], Any] = as_it_is
    on_device: bool = False
    described_by: str = ""
    key: Callable[[Any, Input], str] | None = None
    image_keys: Callable[[Any, Input], dict[str, str]] | None = None
    content: Callable[[Any], Content] | None = None
    fits: Callable[[Any], bool] | None = None
    holds: str = ""


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "dataset",
            described_by=DATASETS,
            key=dataset_key,
            image_keys=image_keys,
            fits=has_boxes,
            holds="boxes",
        ),
        Kind(
            "classification",
            described_by=DATASETS,
            key=dataset_key,
            fits=has_one_class_per_image,
            holds="one class for each image",
        ),
        Kind(
            "network",
            trained_network,
            on_device=True,
            described_by=NETWORKS,
            key=network_key,
            content=network_content,
        ),
        Kind("proposals"),
        Kind("maps"),
        Kind("features"),
        Kind("svm"),
        Kind("regressor"),
        Kind("svr"),
        Kind("class-scores"),
        Kind("detections"),
        Kind("segmentation"),
        Kind("evaluation"),
        Kind("accuracy"),
        Kind("diagnosis"),
        Kind("descriptors"),
    )
}
