"""Validation while training, and early stopping (Goodfellow, Bengio and Courville, Deep Learning, algorithm 7.1).

A validation changes nothing of the training: weights, random numbers and the batches that follow are those of a
training that is not validated. When to stop, and which weights are the best, follows from the log alone, so that a
training that was killed decides as it would have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cache import Reader
from stages.training.log import read_validations
from stages.training.validation_settings import LOSS, Validated, interval

Trained = TypeVar("Trained", contravariant=True)
Row = Mapping[str, float]


@dataclass(frozen=True)
class Validation(Generic[Trained]):
    """How a training is validated: what `measure` finds every `every` steps, and after the last.

    With a `patience`, the training ends after that many validations without a better value of `stop_on`, and its result
    is the weights with the best.
    """

    measure: Callable[[Trained], Row]
    every: int
    patience: int = 0
    stop_on: str = LOSS

    @staticmethod
    def of(settings: Validated, measure: Callable[[Any], Row]) -> Validation[Any]:
        """The validation that the settings ask for."""
        return Validation(measure, interval(settings), settings.patience, settings.stop_on)

    def is_due(self, step: int, last: int) -> bool:
        """Whether the network is validated after this step, with `last` steps in all."""
        return step % self.every == 0 or step == last

    def is_best(self, rows: Sequence[Row]) -> bool:
        """Whether the last of the validations is better than all before."""
        return best_row(rows, self.stop_on) == len(rows) - 1

    def is_over(self, rows: Sequence[Row]) -> bool:
        """Whether the training is to stop after these validations."""
        return bool(self.patience) and len(rows) - 1 - best_row(rows, self.stop_on) >= self.patience


def best_row(rows: Sequence[Row], measure: str) -> int:
    """The index of the best of the validations, the first if several are as good: the one with the lowest loss, or the
    highest of any other measure; -1 if there are none."""
    sign = 1 if measure == LOSS else -1
    return min(range(len(rows)), key=lambda index: sign * rows[index][measure], default=-1)


def validation_summary(reader: Reader, settings: Validated) -> dict[str, Any]:
    """Of a complete cache: `validation`, what was measured of the weights that it has, and after which iteration they
    are; with early stopping also `last_iteration`. Nothing without a validation set."""
    (item,) = reader.item_ids
    columns = {name: values.tolist() for name, values in read_validations(reader, item).items()}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if not rows:
        return {}
    kept = rows[best_row(rows, settings.stop_on) if settings.patience else -1]
    return {"validation": kept, **({"last_iteration": rows[-1]["iteration"]} if settings.patience else {})}
