"""Errors as sentences: only options that the command has are advised."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click
import pytest

from cache.files import MACHINE
from rcnn_cli.main import cli, exit_code
from rcnn_cli.sentences import NAMES, explain, sentence
from stages.contract.errors import BadImage


@pytest.mark.parametrize(
    ("command", "advised"),
    [("run", True), ("extract", True), ("explain", False), ("units", False), ("data", False)],
)
def test_a_bad_image(command: str, advised: bool) -> None:
    text, code = sentence(BadImage("a.jpg", "is damaged"), cli.commands[command])
    skip = ", or pass --skip-bad-images" if advised else ""
    assert (text, code) == (f"a.jpg: is damaged; repair or remove it{skip}", 2)


@pytest.mark.parametrize(
    ("command", "ways"),
    [("run", "--jobs 1 or a smaller --batch-size"), ("pretrain", "--jobs 1 or a smaller --batch-size")]
    + [("report", "a machine with more memory")],
)
def test_no_memory(command: str, ways: str) -> None:
    text, code = sentence(MemoryError("12 GB"), cli.commands[command])
    assert text.endswith(f"try {ways}")
    assert code == 2


def caused(text: str, cause: Exception) -> Exception:
    """An error that another one led to."""
    error = ImportError(text)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOMEM, "Cannot allocate memory", "/data/a.jpg"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        caused("the install seems to be broken", ImportError("_x.so: failed to map segment from shared object")),
        RuntimeError("can't start new thread"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        ValueError("array is too big; Unable to allocate 3 GiB"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_memory_in_the_words_of_libraries(error: Exception) -> None:
    text, code = sentence(error, cli.commands["run"])
    assert text.startswith("memory ran out or a worker was killed (")
    assert code == 2


def test_no_memory_even_to_see_how_much_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> str:
        raise MemoryError

    monkeypatch.setattr(Path, "read_text", refused)
    text, code = sentence(SystemError("error return without exception set"), cli.commands["run"])
    assert text.startswith("memory ran out or a worker was killed (error return")
    assert code == 2
    assert sentence(MemoryError(), cli.commands["run"])[0].startswith(
        "memory ran out or a worker was killed (MemoryError)"
    )


@pytest.mark.parametrize("number", sorted({*NAMES, *MACHINE} - {errno.ENOMEM}))  # of that `memory_ran_out` tells
def test_what_the_machine_refuses_is_no_bug(number: int) -> None:
    text, code = sentence(OSError(number, os.strerror(number), "/data/r"), cli.commands["run"])
    assert text.startswith(f"/data/r: {os.strerror(number)}; ")
    assert code == 2


def test_a_bug_is_a_bug() -> None:
    assert sentence(RuntimeError("shapes do not agree"), cli.commands["run"])[1] == 70
    assert sentence(ValueError("no"), cli.commands["run"])[1] == 70


@pytest.mark.parametrize(("options", "advised"), [([], True), (["--skip-bad-images"], False)])
def test_an_option_that_was_given_is_not_advised_again(
    options: list[str], advised: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither by the command that fails, nor by one that goes on after the error."""

    def fail(**options: object) -> None:
        error = BadImage("a.jpg", "is damaged")
        click.echo(explain(error), err=True)
        raise error

    monkeypatch.setattr(cli.commands["run"], "callback", fail)
    assert exit_code(["run", "recipes/shapes.toml", *options]) == 2
    expected = "a.jpg: is damaged; repair or remove it" + (", or pass --skip-bad-images" if advised else "")
    assert capsys.readouterr().err.splitlines() == [expected, f"rcnn: {expected}"]
