"""docs/tutorial.md and docs/tutorial-in-depth.md, run as a reader runs them: their files are written, their commands
run in an empty folder, in order, and what they print of the output is compared with what is printed here, numbers
aside; on fewer and smaller images, and without worker processes, which would each import the libraries anew."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rcnn_cli.recipes.recipe import load_recipe
from tests.pipeline import PROJECT

SHORT, TUTORIAL = PROJECT / "docs" / "tutorial.md", PROJECT / "docs" / "tutorial-in-depth.md"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALLER = {
    "--set train=40 --set val=16 --set test=24": "--set train=12 --set val=6 --set test=10",
    "per_class = 200": "per_class = 12",
    "max_boxes = 300": "max_boxes = 60",
    "# boxes that may hold something, by selective search\n": "\nresize_width = 160\n",
}
SHORTER = {
    "--set train=60": "--set train=9",
    "rcnn init photos": "rcnn init photos --minutes 0.1",
    "arrow         16       19\n": "arrow          1        1\n...\n",
}
STATUS = re.compile(r"# exit status (\d+)")


def blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """(language, name of a file or "", content) of each block."""
    yield from BLOCK.findall(text)


def commands(block: str) -> list[str]:
    """The lines of a block of shell, continued ones joined."""
    return [line for line in re.sub(r"\\\n\s*", " ", block).splitlines() if line.strip()]


def plain(line: str) -> str:
    """A line of output without what differs from run to run and from machine to machine: numbers, times, keys."""
    line = re.sub(r"\.[0-9a-f]{12}\b", ".KEY", line)
    line = re.sub(r"\d+ (?:h|min) \d+ (?:min|s)\b|\d[\d.]* (?:h|min|s)\b", "TIME", line)
    line = re.sub(r"\d[\d.,]* [kMG]?B\b", "SIZE", line)
    line = re.sub(r"(?:(?<!\w)[+-])?\d[\d.,]*", "#", line)
    return " ".join(re.sub(r"-{3,}", "---", line).split())


def missing(shown: str, printed: str) -> list[str]:
    """The lines of a block of output that are not in what was printed, in this order; "..." stands for any lines."""
    rest = iter([plain(line) for line in printed.splitlines()])
    wanted = [line for line in shown.splitlines() if line.strip() and line.strip() != "..."]
    return [line for line in wanted if plain(line) not in rest]


def run(line: str, folder: Path) -> str:
    """Runs a line of the tutorial in bash; what it prints. Its exit status is 0 or the one that it states."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RCNN_")}
    environment |= {"PATH": f"{folder.parent}/bin:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}
    with on_one_core():
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=folder, env={**environment, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    stated = STATUS.search(line)
    assert done.returncode == (int(stated[1]) if stated else 0), f"{line}\n{done.stdout}"
    assert "Traceback" not in done.stdout
    return done.stdout


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """What is started here has one core, so that `rcnn` works in one process; where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def follow(page: Path, smaller: Mapping[str, str], place: Path) -> Path:
    """Does what a page says, made `smaller`, in a new folder of `place`, which is returned."""
    folder, programs = place / "reader", place / "bin"
    folder.mkdir()
    programs.mkdir()
    for name, arguments in (("rcnn", "-m rcnn_cli "), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments}"$@"\n')
        (programs / name).chmod(0o755)
    printed, text = "", page.read_text(encoding="utf-8")
    for as_printed, in_its_place in smaller.items():
        assert as_printed in text
        text = text.replace(as_printed, in_its_place)
    for language, name, content in blocks(text):
        if name:
            (folder / name).write_text(content)
        elif language == "sh":
            printed = "".join(run(line, folder) for line in commands(content))
        elif language == "text":
            assert missing(content, printed) == [], printed
    return folder


def test_the_tutorial_in_depth_runs_as_printed(tmp_path: Path) -> None:
    folder = follow(TUTORIAL, SMALLER, tmp_path)
    assert (folder / "work" / "results" / "my" / "eval" / "results.json").exists()


def test_five_commands_lead_to_a_report(tmp_path: Path) -> None:
    folder = follow(SHORT, SHORTER, tmp_path)
    assert (folder / "report" / "index.html").exists()
    assert {path.suffix for path in (folder / "out").iterdir()} >= {".json", ".png"}


def test_tables_for_other_networks_are_recipes_too(tmp_path: Path) -> None:
    found = [
        content for language, name, content in blocks(TUTORIAL.read_text("utf-8")) if language == "toml" and not name
    ]
    assert found
    for number, content in enumerate(found):
        path = tmp_path / f"{number}.toml"
        path.write_text(content if "[datasets." in content else f'[datasets.train]\nsource = "voc:x:y"\n{content}')
        load_recipe(path)


@pytest.mark.parametrize(
    ("shown", "printed", "lost"),
    [
        ("class   AP\n-----\ncat  1.5\n", "class  AP\n----------\ncat  27.5\n", []),
        ("a 1\n...\nb 2\n", "a 3\nx\nb\nb 4\n", []),
        ("b 2\na 1\n", "a 1\nb 2\n", ["a 1"]),
        ("done in 55.8 s: work/x.0123456789ab\n", "done in 1 min 02 s: work/x.ba9876543210\n", []),
        ("dog 1\n", "cat 1\n", ["dog 1"]),
        ("+1.5 [-0.2, +0.3]\n", "-10.5 [+0.2, +1.3]\n", []),
    ],
)
def test_what_is_compared(shown: str, printed: str, lost: list[str]) -> None:
    assert missing(shown, printed) == lost
