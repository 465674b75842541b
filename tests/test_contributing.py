"""CONTRIBUTING.md's examples, carried out as they stand there in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline import PROJECT

PAGE = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r'^```(\w+)(?: title=(\S+))?(?: (before|after)="([^\n]*)")?\n(.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
EXAMPLES = re.findall(r"^## (Add [^\n]+)\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
COPIED = ("cache", "stages", "rcnn_cli", "tests", "setup.cfg", "pyproject.toml")


@pytest.mark.parametrize(("heading", "text"), EXAMPLES, ids=[heading for heading, _ in EXAMPLES])
def test_an_example_works(heading: str, text: str, tmp_path: Path) -> None:
    for name in COPIED:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    commands = []
    for language, title, place, anchor, content in BLOCK.findall(text):
        if language == "sh":
            commands += content.splitlines()
        else:
            put(tmp_path / title, place, anchor.replace('\\"', '"'), content)
    assert commands
    for command in commands:
        run(command, tmp_path)
    written = [path for path in tmp_path.rglob("*.py") if "tests" not in path.parts]
    lint = [sys.executable, "-m", "ruff", "check", "--quiet", *map(str, written)]
    assert subprocess.run(lint, cwd=tmp_path, capture_output=True, text=True).stdout == ""


def put(path: Path, place: str, anchor: str, content: str) -> None:
    """Writes a file, or inserts lines before or after the only line that begins with `anchor`."""
    if not place:
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        return
    lines = path.read_text().splitlines(keepends=True)
    (found,) = (number for number, line in enumerate(lines) if line.startswith(anchor))
    lines.insert(found + (place == "after"), content)
    path.write_text("".join(lines))


def run(command: str, folder: Path) -> None:
    """Runs a line of the page in the copy."""
    program, *words = command.split()
    line = [sys.executable, *(["-m", "rcnn_cli"] if program == "rcnn" else []), *words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RCNN_")}
    environment |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
