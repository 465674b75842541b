"""The train-svr stage: the targets of all regions once, then one regression per class, and per fold."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cache import Column, Reader, Record, Schema, Writer
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.processes import fit_classes
from stages.features.joined import JoinedFeatures
from stages.features.linear_models import NEVER_DETECTED
from stages.features.sparse import sparse_rows
from stages.masks import check_masks
from stages.matching.ground_truth import check_exhaustive, check_images, check_proposals
from stages.plurals import number_of
from stages.train_svr import Settings
from stages.train_svr.examples import Examples, all_targets, class_examples, feature_rows, folds_of
from stages.train_svr.regression import Regression, fit_svr

logger = logging.getLogger("stages.train_svr")


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The classes, by name."""
    return tuple(inputs.dataset("masks").classes)


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """Per class: `weights` [D] on scaled features, `bias`, the features' `scale`, the numbers of `examples` and of
    `positives`, which overlap an object, and the mean squared `error`. With folds also the `fold_weights` [F, D] and
    `fold_biases` [F] without each."""
    dimension = JoinedFeatures.of(inputs, settings.layer).dimension
    of_folds = {
        "fold_weights": Column("float32", (settings.folds, dimension)),
        "fold_biases": Column("float32", (settings.folds,)),
    }
    return Schema(
        item="class",
        per_item={
            "weights": Column("float64", (dimension,)),
            "bias": Column("float64"),
            "scale": Column("float64"),
            "examples": Column("int64"),
            "positives": Column("int64"),
            "error": Column("float64"),
            "unfinished": Column("int32"),
            **(of_folds if settings.folds else {}),
        },
    )


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Trains the classes of all parts it can claim, `jobs` at a time, each in its own process."""
    if not output.remaining_items:
        return
    features, masks, proposals = (
        JoinedFeatures.of(inputs, settings.layer),
        inputs.dataset("masks"),
        inputs.reader("proposals"),
    )
    check_images("train-svr", features.item_ids, masks, "features")
    if settings.folds > len(features.item_ids):
        raise StageError(
            f"train-svr: folds = {settings.folds} is more than the {len(features.item_ids)} images of {masks.name}; "
            "lower it"
        )
    check_exhaustive("train-svr", masks, "would be trained on as background")
    check_proposals("train-svr", proposals, masks)
    check_masks("train-svr", "the overlap of regions", proposals)
    with threadpool_limits(1, user_api="blas"):
        logger.info("The overlaps of the regions of %s with their objects.", number_of(len(features.item_ids), "image"))
        targets = all_targets(features, proposals, masks)
        scale = features.scale(settings.target_norm, settings.norm_seed)
        labels = {name: label for label, name in enumerate(output.item_ids)}
        fit_examples = functools.partial(fit_class, features=features, scale=scale, settings=settings)

        def examples_of(name: str) -> Examples:
            return class_examples(targets, labels[name], settings.negatives, settings.seed)

        fit_classes("train-svr", examples_of, fit_examples, report, output, execution)


def fit_class(examples: Examples, features: JoinedFeatures, scale: float, settings: Settings) -> Record:
    """The regression of one class, and those without each fold, from its `examples`. Without a region that overlaps an
    object, a class scores NEVER_DETECTED everywhere."""
    rows = sparse_rows(feature_rows(features, examples), scale)
    folds = folds_of(len(features.item_ids), settings.folds, settings.seed)[examples.images]
    whole = fit(rows, examples.targets, settings)
    parts = [fit(rows[folds != fold], examples.targets[folds != fold], settings) for fold in range(settings.folds)]
    known = examples.targets.any()
    errors = rows @ whole.weights + whole.bias - examples.targets if known else np.zeros(0)
    of_folds = {
        "fold_weights": np.array([part.weights for part in parts], np.float32),
        "fold_biases": np.array([part.bias for part in parts], np.float32),
    }
    return {
        "weights": whole.weights,
        "bias": np.array(whole.bias, np.float64),
        "scale": np.array(scale, np.float64),
        "examples": np.array(len(examples), np.int64),
        "positives": np.array(np.count_nonzero(examples.targets), np.int64),
        "error": np.array(np.square(errors).mean() if len(errors) else 0.0, np.float64),
        "unfinished": np.array(sum(not part.converged for part in (whole, *parts)), np.int32),
        **(of_folds if settings.folds else {}),
    }


def fit(rows: Any, targets: NDArray[np.float32], settings: Settings) -> Regression:
    """`fit_svr`; NEVER_DETECTED everywhere if no target is above 0."""
    if not targets.any():
        return Regression(np.zeros(rows.shape[1]), NEVER_DETECTED)
    return fit_svr(rows, targets, settings)


def report(name: str, record: Record) -> None:
    """Logs a line on a class; warns if it cannot be learnt, and of unfinished trainings."""
    if not record["positives"]:
        logger.warning("class '%s': no region overlaps an object of it, so nothing is ever segmented as it", name)
        return
    logger.debug(
        "class '%s': %s, of which %d overlap an object; mean squared error %.5f",
        name,
        number_of(int(record["examples"]), "example"),
        record["positives"],
        record["error"],
    )
    if record["unfinished"]:
        logger.warning(
            "class '%s': %s stopped at max_iterations before reaching the tolerance; raise max_iterations",
            name,
            number_of(int(record["unfinished"]), "training"),
        )


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """Per class: examples, those that overlap an object, and the mean squared error in training. With folds, also the
    fold of each image."""
    columns = ["examples", "positives", "error"]
    classes = {name: {key: record[key].item() for key in columns} for name, record in reader.records(columns)}
    summary: dict[str, Any] = {"layer": settings.layer, "classes": classes}
    if settings.folds:
        image_ids = JoinedFeatures.of(inputs, settings.layer).item_ids
        folds = folds_of(len(image_ids), settings.folds, settings.seed).tolist()
        summary["fold_of_image"] = dict(zip(image_ids, folds, strict=True))
    return summary
