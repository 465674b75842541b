"""`rcnn` called in a test's own process."""

from __future__ import annotations

import contextlib
import io
import subprocess
from collections.abc import Callable
from pathlib import Path
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


def rcnn(*arguments: object, work: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """As `tests.pipeline.rcnn`, without the seconds in which a new process imports its libraries, and with one job
    where `arguments` do not say how many."""
    line = [str(one) for one in arguments]
    output, errors = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        patch.setenv("RCNN_WORK", str(work))
        patch.setattr("rcnn_cli.running.device.cores", lambda: 1)
        with pytest.raises(SystemExit) as ended:
            main(line)
    code = ended.value.code
    assert isinstance(code, int)
    done = subprocess.CompletedProcess(line, code, output.getvalue(), errors.getvalue())
    if check and code:
        raise AssertionError(f"rcnn {' '.join(line)} ended with {code}:\n{done.stdout}\n{done.stderr}")
    return done
