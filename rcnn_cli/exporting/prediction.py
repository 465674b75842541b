"""What `rcnn predict` and the Python interface need to know of an exported detector in the place of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rcnn_cli.exporting.model_file import detector_of_file, read_card
from rcnn_cli.looking.image_detector import ImageDetector
from rcnn_cli.looking.prediction import Wish, chosen_thresholds, with_chosen
from stages.contract.errors import StageError
from stages.contract.execution import Execution


def check_of_recipes(path: Path, **given: Any) -> None:
    """Raises StageError where something is `given`, by its name, that only recipes have a use for."""
    for name, value in given.items():
        if value:
            raise StageError(f"{path}: an exported detector is complete and stays as it is; leave out {name}")


def wished_model(path: Path, execution: Execution, wish: Wish) -> ImageDetector:
    """The detector in a file, which draws what is asked for. Raises as `detector_of_file`, and StageError for
    thresholds that are not those of its classes."""
    chosen = chosen_thresholds(wish)
    detector = detector_of_file(path, execution, wish.threshold, wish.precision)
    if chosen is None:
        return detector
    return with_chosen(detector, wish, chosen, str(read_card(path).about.get("key", "")))
