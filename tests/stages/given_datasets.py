"""Datasets of which a test says what matters to it."""

from __future__ import annotations

from typing import Any

from stages.datasets import Dataset


class GivenDataset(Dataset):
    """A dataset with no more than is given; to ask it for anything else of its files is an AttributeError."""

    def __init__(self, **given: Any) -> None:
        vars(self).update(given)

    images_with_crowds: frozenset[str] = frozenset()
    images_not_exhaustive: frozenset[str] = frozenset()
