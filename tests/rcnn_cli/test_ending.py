"""A command that is told to end does so, also where no thread can be started that sees to it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.command_lines import PROJECT

SCRIPT = """
import os, signal, threading, time
from rcnn_cli import ending

def refused(thread):
    raise RuntimeError("can't start new thread")

def stuck(thread):
    time.sleep(600)

ending.PATIENCE = ending.COUNTING = 0.2
threading.Thread.start = START
signal.signal(signal.SIGTERM, ending.stop)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(600)
"""


@pytest.mark.parametrize(("start", "code"), [("refused", 143), ("stuck", -signal.SIGALRM)])
def test_a_termination_without_memory_for_a_thread(start: str, code: int) -> None:
    """A thread that starts and dies before it says so leaves `Thread.start` waiting for ever."""
    script = SCRIPT.replace("START", start)
    assert subprocess.run([sys.executable, "-c", script], cwd=PROJECT).returncode == code
