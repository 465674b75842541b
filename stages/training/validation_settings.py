"""Settings of stages that measure a training on a validation set while it runs, and may stop it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from stages.contract.card import Input
from stages.contract.errors import BadSetting
from stages.contract.settings import setting

LOSS, MAP, RECALL = "loss", "mAP", "recall"
"""What early stopping may watch: a loss falls, the others rise."""
ROLE, PROPOSALS = "validation", "validation_proposals"
TIMES = 10
"""How often a training is validated if nobody says."""

VALIDATION_SET = Input(ROLE, kinds=("dataset",), crowds=True, optional=True)
"""The input that turns validation on."""
ITS_PROPOSALS = Input(PROPOSALS, kinds=("proposals",), optional=True, counterpart=("proposals", ROLE))
"""For stages that are trained on proposals: those of the validation set."""


class Validated(Protocol):
    """Settings of a training that can be validated."""

    @property
    def iterations(self) -> int: ...
    @property
    def validate_every(self) -> int: ...
    @property
    def patience(self) -> int: ...
    @property
    def stop_on(self) -> str: ...


def validate_every_setting() -> Any:
    """The setting `validate_every`."""
    return setting(
        0,
        "With inputs.validation: iterations between two validations; the last is always validated. 0: a tenth of all.",
        at_least=0,
        later=True,
        source="ours",
    )


def patience_setting() -> Any:
    """The setting `patience`."""
    return setting(
        0,
        "With inputs.validation: the training stops after this many validations in a row without improvement, and the "
        "best weights are kept. 0: it never stops, and the last are kept.",
        at_least=0,
        later=True,
        source="ours; Goodfellow et al., Deep Learning, algorithm 7.1",
    )


def stop_on_setting(*choices: str) -> Any:
    """The setting `stop_on`, which may be LOSS or one of the `choices`."""
    rising = {MAP: "mAP: the mean average precision rises", RECALL: "recall: that of proposals at an IoU of 0.5 rises"}
    what = "; ".join(
        [f"With patience: what an improvement is. {LOSS}: the loss falls", *map(rising.__getitem__, choices)]
    )
    return setting(LOSS, f"{what}.", choices=(LOSS, *choices), later=True, source="ours")


def check_stopping(settings: Validated) -> None:
    """Raises BadSetting for a criterion without early stopping."""
    if settings.stop_on != LOSS and not settings.patience:
        raise BadSetting(f"stop_on = '{settings.stop_on}' is for early stopping; set patience, or leave it out")


def check_validated(settings: Validated, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting for settings of the validation where there is no validation set among the `sources`."""
    if ROLE not in sources:
        for name in ("validate_every", "patience"):
            if value := getattr(settings, name):
                raise BadSetting(
                    f"{name} = {value} needs a validation set; name a dataset in inputs.{ROLE}, or leave it out"
                )


def interval(settings: Validated) -> int:
    """Iterations between two validations."""
    return settings.validate_every or max(1, settings.iterations // TIMES)
