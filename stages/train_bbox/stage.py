"""The train-bbox stage: per class, a ridge regression on the regions near its objects, with whitened targets."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from cache import Column, Reader, Record, Schema, Writer
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.processes import fit_classes
from stages.features.reading import feature_scale, layer_dimension
from stages.matching.ground_truth import check_images
from stages.plurals import number_of
from stages.train_bbox import Settings
from stages.train_bbox.examples import Examples, collect_examples, feature_blocks
from stages.train_bbox.ridge import fit_ridge, whiten

logger = logging.getLogger("stages.train_bbox")


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The classes, by name."""
    return tuple(inputs.dataset("images").classes)


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """Per class: deltas = (scale · x, 1) `coefficients` `unwhiten` + `mean`; example count, mean squared errors."""
    return Schema(
        item="class",
        per_item={
            "coefficients": Column("float64", (layer_dimension(inputs.reader("features"), settings.layer) + 1, 4)),
            "unwhiten": Column("float64", (4, 4)),
            "mean": Column("float64", (4,)),
            "scale": Column("float64"),
            "examples": Column("int64"),
            "error_before": Column("float64"),
            "error_after": Column("float64"),
        },
    )


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Fits the classes of all parts it can claim, `jobs` at a time, each in its own process.

    A class needs one matrix float64 [D + 1, D + 1], however many images there are.
    """
    features, dataset = inputs.reader("features"), inputs.dataset("images")
    check_images("train-bbox", features.item_ids, dataset, "features")
    if not output.remaining_items:
        return
    with threadpool_limits(1, user_api="blas"):
        scale = feature_scale(features, settings.layer, target_norm=settings.target_norm, seed=settings.norm_seed)
        examples = collect_examples(
            features, dataset, settings.min_overlap, settings.difficult, settings.only_exhaustive
        )
        labels = {name: label for label, name in enumerate(output.item_ids)}
        fit_examples = functools.partial(fit_class, features=features, scale=scale, settings=settings)
        fit_classes("train-bbox", lambda name: examples.of_class(labels[name]), fit_examples, report, output, execution)


def fit_class(examples: Examples, features: Reader, scale: float, settings: Settings) -> Record:
    """The regressor of one class, from its `examples`; without any, one that leaves every box unchanged."""
    dimension = layer_dimension(features, settings.layer)
    if not len(examples):
        return record_of(np.zeros((dimension + 1, 4)), np.eye(4), np.zeros(4), scale, 0, 0.0, 0.0)
    whitening = whiten(examples.targets)
    targets = (examples.targets - whitening.mean) @ whitening.matrix
    blocks = ((rows, targets[where]) for rows, where in feature_blocks(features, settings.layer, scale, examples))
    ridge = fit_ridge(blocks, dimension, settings.regularisation)
    count = len(examples)
    before = float(np.square(examples.targets).sum() / count)
    after = float(np.trace(whitening.inverse.T @ ridge.residual @ whitening.inverse) / count)
    return record_of(ridge.coefficients, whitening.inverse, whitening.mean, scale, count, before, after)


def record_of(
    coefficients: np.ndarray,
    unwhiten: np.ndarray,
    mean: np.ndarray,
    scale: float,
    examples: int,
    error_before: float,
    error_after: float,
) -> Record:
    """One class's cache record; `coefficients` [D + 1, 4], `unwhiten` [4, 4], `mean` [4].

    The errors are means over examples of |t|² and |t - prediction|², for deltas t."""
    return {
        "coefficients": np.ascontiguousarray(coefficients),
        "unwhiten": unwhiten,
        "mean": mean,
        "scale": np.array(scale, np.float64),
        "examples": np.array(examples, np.int64),
        "error_before": np.array(error_before, np.float64),
        "error_after": np.array(error_after, np.float64),
    }


def report(name: str, record: Record) -> None:
    """Logs the regression errors of a class, and warns if it has no examples."""
    if not record["examples"]:
        logger.warning("class '%s': no region overlaps an object enough to train on; its boxes stay as they are", name)
    else:
        logger.debug(
            "class '%s': %s, mean squared error %.4f before regression, %.4f after",
            name,
            number_of(int(record["examples"]), "example"),
            record["error_before"],
            record["error_after"],
        )


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """Per class: the number of examples, and the mean squared error before and after regression."""
    columns = ["examples", "error_before", "error_after"]
    classes = {name: {key: record[key].item() for key in columns} for name, record in reader.records(columns)}
    return {"layer": settings.layer, "classes": classes}
