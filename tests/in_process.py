"""`rcnn` called in a test's own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rcnn_cli.main import main


def caller(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str, str]]:
    """A function that calls `rcnn` in this process: (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[Any, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(one) for one in arguments])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run
