"""Errors as sentences: only options that the command has are advised."""

from __future__ import annotations

import pytest

from rcnn_cli.main import cli
from rcnn_cli.sentences import sentence
from stages.errors import BadImage


@pytest.mark.parametrize(("command", "advised"), [("run", True), ("extract", True), ("units", False), ("data", False)])
def test_a_bad_image(command: str, advised: bool) -> None:
    text, code = sentence(BadImage("a.jpg", "is damaged"), cli.commands[command])
    skip = ", or pass --skip-bad-images" if advised else ""
    assert (text, code) == (f"a.jpg: is damaged; repair or remove it{skip}", 2)


@pytest.mark.parametrize(
    ("command", "ways"),
    [("run", "--jobs 1 or a smaller --batch-size"), ("pretrain", "--jobs 1 or a smaller --batch-size")]
    + [("report", "a machine with more")],
)
def test_no_memory(command: str, ways: str) -> None:
    text, code = sentence(MemoryError("12 GB"), cli.commands[command])
    assert text.endswith(f"try {ways}")
    assert code == 2
