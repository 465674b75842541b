"""Faults of the different kinds and twenty kills, drawn from a seed; `make chaos` does two hundred faults."""

import os
import subprocess
import sys

from benchmarks.chaos import OF_TWO_HUNDRED, WORDS
from tests.pipeline import PROJECT, SMALL, write_recipe

SLOW = ("claim", "main")  # a torn claim falls to others after a minute; workers take seconds to start

RECIPE = (
    SMALL.replace("images = 12", "images = 6")
    .replace("images = 8", "images = 4")
    .replace("resize_width = 240", "resize_width = 80")
)


def test_faults_of_all_kinds_change_nothing(tmp_path):
    line = [sys.executable, "-m", "benchmarks.chaos", "--faults", "37", "--seed", "1"]
    line += ["--recipe", str(write_recipe(tmp_path, RECIPE)), "--part-size", "2"]
    line += ["--output", str(tmp_path / "table.md")]
    line += [argument for kind in SLOW for argument in ("--without", kind)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (tmp_path / "table.md").read_text()
    assert table in done.stdout
    assert "all identical to the undisturbed run's" in table
    for kind in ("kill", *OF_TWO_HUNDRED):
        if kind not in (*SLOW, "disk"):
            assert f"| {WORDS[kind]} |" in table
    assert f"| {WORDS['kill']} | 20 |" in table
    assert f"| {WORDS['disk']} |" in table or f"{WORDS['disk']}: not done" in table
