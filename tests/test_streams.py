"""Commands whose output is closed, a pipe without a reader, or on a full disk: the right status, and never a bug's."""

from __future__ import annotations

import errno
import io
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rcnn_cli.streams import Messages, Output, OutputLost
from tests.pipeline import command

FULL = Path("/dev/full")


def shell(line: str, work: Path) -> tuple[int, str, str]:
    """Runs a line of shell in which `rcnn` is the real command: (exit status, standard output, standard error)."""
    words, environment = command(work=work)
    text = f'rcnn() {{ {shlex.join(words)} "$@"; }}\n{line}'
    done = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("rcnn --help >&-", 0),
        ("rcnn --help 2>&-", 0),
        ("rcnn --help <&- >&- 2>&-", 0),
        ("rcnn --help | true; exit ${PIPESTATUS[0]}", 141),
        ("rcnn --help 2>&1 | true; exit ${PIPESTATUS[0]}", 141),
        ("rcnn inspect nothing >&-", 2),
        ("rcnn inspect nothing 2>&-", 2),
        ("rcnn inspect nothing 2>&1 | true; exit ${PIPESTATUS[0]}", 2),
    ],
)
def test_closed_streams_and_pipes_without_a_reader(line: str, status: int, tmp_path: Path) -> None:
    code, _, errors = shell(line, tmp_path)
    assert code == status
    assert "Traceback" not in errors
    assert "Exception" not in errors


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
def test_output_and_messages_to_a_full_disk(tmp_path: Path) -> None:
    code, _, errors = shell("rcnn --help >/dev/full", tmp_path)
    assert (code, errors.count("\n")) == (2, 1)
    assert errors.startswith("rcnn: standard output: cannot be written (")
    assert shell("rcnn inspect nothing 2>/dev/full", tmp_path)[0] == 2


def test_a_closed_stream_is_not_taken_for_the_next_file_that_is_opened(tmp_path: Path) -> None:
    lines = ["import os", "from rcnn_cli.streams import prepare", "prepare()"]
    lines += ["told = os.open(os.devnull, os.O_RDONLY) > 2", "open('told', 'w').write(str(told))"]
    words, environment = command(work=tmp_path)
    line = f"{words[0]} -c {shlex.quote('; '.join(lines))} <&- >&- 2>&-"
    subprocess.run(["bash", "-c", line], env=environment, cwd=tmp_path, check=True)
    assert (tmp_path / "told").read_text() == "True"


class Pipe(io.RawIOBase):
    """A pipe, at first without a reader."""

    is_read = False

    def writable(self) -> bool:
        return True

    def write(self, content: Any, /) -> int:
        if not self.is_read:
            raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
        return len(content)


def test_what_cannot_be_written_ends_output_and_never_a_message() -> None:
    pipe = Pipe()
    output, messages = Output(io.BufferedWriter(pipe)), Messages(io.BufferedWriter(pipe), line_buffering=True)
    output.write("mAP")
    with pytest.raises(OutputLost) as lost:
        output.flush()
    assert lost.value.pipe_closed
    assert messages.write("going on\n") == 9
    messages.flush()
    pipe.is_read = True
    output.flush()
