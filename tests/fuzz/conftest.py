"""Where the fuzz tests write."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which each example writes its files over the last one's."""
    return tmp_path_factory.mktemp("fuzz")
