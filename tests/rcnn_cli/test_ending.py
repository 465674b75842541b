"""A command that is told to end does so, also where no thread can be started that sees to it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from rcnn_cli.ending import told_to_end
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


AFTER_A_SIGNAL = """
import os, signal, time
from rcnn_cli import main

@main.cli.command()
def fails_when_told_to_end():
    try:
        os.kill(os.getpid(), SIGNAL)
        time.sleep(600)
    except BaseException:
        raise RuntimeError("cannot schedule new futures after shutdown")

main.main(["fails-when-told-to-end"])
"""


@pytest.mark.parametrize(("number", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_what_fails_because_of_a_signal_is_no_bug(number: str, code: int, word: str) -> None:
    """Joblib turns the exception of a handler into its own where it comes while the processes start."""
    script = AFTER_A_SIGNAL.replace("SIGNAL", f"signal.{number}")
    ended = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True)
    assert ended.returncode == code
    assert ended.stderr.startswith(f"rcnn: {word}; finished work is kept")
    assert "Traceback" not in ended.stderr


def test_an_error_without_a_signal_stays_that_error() -> None:
    error = RuntimeError("a bug")
    assert told_to_end(error) is error
