"""Where compiled code is kept, and what is said when it takes long to compile."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.contract.errors import StageError
from stages.propose import compiled
from tests.pipeline import PROJECT


def test_a_quick_first_call_is_not_announced_and_a_slow_one_is(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "stages.propose")
    monkeypatch.setattr(compiled, "PATIENCE", 0.05)
    compiled.compile_aloud("a thing", lambda: None)
    time.sleep(0.2)
    assert not caplog.records
    compiled.compile_aloud("a thing", lambda: time.sleep(0.5))
    assert caplog.messages == ["compiling a thing for this processor; this takes about 20 s, once"]


def test_an_error_of_the_first_call_is_raised():
    def fail() -> None:
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        compiled.compile_aloud("a thing", fail)


@pytest.mark.parametrize("error", [EOFError(), pickle.UnpicklingError("pickle data was truncated")])
def test_damaged_machine_code_is_a_sentence_that_names_the_folder(error):
    def fail() -> None:
        raise error

    with pytest.raises(StageError, match=r"__pycache__: the machine code that is kept there is damaged; delete its"):
        compiled.compile_aloud("a thing", fail)


def test_a_full_disk_names_the_folder_of_the_machine_code():
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StageError, match=r"kept there \(No space left on device\); set NUMBA_CACHE_DIR"):
        compiled.compile_aloud("a thing", fail)


SMALL = """
from stages.propose import compiled, segmentation
import numpy as np
compiled.compile_aloud("a thing", lambda: segmentation.root_of(np.arange(3).astype(np.uint32), np.uint32(1)))
"""


def test_emptied_machine_code_is_noticed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "NUMBA_CACHE_DIR": str(tmp_path)}
    script = [sys.executable, "-c", SMALL]
    subprocess.run(script, env=environment, check=True)
    for path in tmp_path.rglob("*.nbc"):
        path.write_bytes(b"")
    done = subprocess.run(script, env=environment, text=True, capture_output=True)
    assert "StageError: " in done.stderr.splitlines()[-1]
    assert str(tmp_path) in done.stderr.splitlines()[-1]


SCRIPT = """
import sys
from numba.core import caching
if sys.argv[1] == "nowhere":
    caching.CacheImpl._locator_classes = []
from stages.propose import compiled

@compiled.compiled
def twice(number: int) -> int:
    return 2 * number

assert twice(21) == 42
print(compiled.KEPT)
"""


def test_machine_code_is_kept_in_the_folder_that_is_named_or_made_anew(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "NUMBA_CACHE_DIR": str(tmp_path / "kept")}

    def kept(where: str) -> str:
        done = subprocess.run(
            [sys.executable, script, where], env=environment, text=True, capture_output=True, check=True
        )
        return done.stdout.split()[0]

    assert kept("nowhere") == "False"
    assert not (tmp_path / "kept").exists()
    assert kept("somewhere") == "True"
    assert list((tmp_path / "kept").rglob("*.nbi"))
