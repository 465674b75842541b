"""`rcnn status --watch`: what is shown again and again, how it ends, and with which exit status."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rcnn_cli.running import watching
from rcnn_cli.running.status import State
from rcnn_cli.running.watching import watch
from tests.in_process import caller

Call = Callable[..., tuple[int, str, str]]
RECIPE = '[datasets.test]\nsource = "shapes:test"\nimages = 2\n[propose]\nmethod = "sliding-window"\nmax_boxes = 5\n'


def state(name: str, what: str = "complete", detail: str = "", jobs: tuple[str, ...] = ()) -> State:
    """A cache's state with what is shown of it."""
    return State(name, what, detail or what, (), f"work/{name}", "0" * 12, 4, 4, jobs=jobs)


HALF = state("extract@test", "partial", "2 of 4 images", ("job 7: 1 running",))
FAILED = state("extract@test", "partial", "2 of 4 images", ("job 7: 1 failed", "logs/7.out: no memory"))


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds between looks, which do not pass; the time is fixed."""
    seconds: list[float] = []
    monkeypatch.setattr(watching.time, "sleep", seconds.append)
    monkeypatch.setattr(watching, "now", lambda: "17:00:00")
    return seconds


def looks(*seen: Sequence[State]) -> Callable[[], Sequence[State]]:
    """A look that sees these states, one after the other; then Ctrl-C is pressed."""
    rest = iter(seen)

    def look() -> Sequence[State]:
        try:
            return next(rest)
        except StopIteration:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("Ctrl-C is not heard") from None

    return look


def test_lines_are_appended_for_what_has_changed(slept: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    missing = [state("propose@test"), state("extract@test", "missing")]
    half, failed, done = [missing[0], HALF], [missing[0], FAILED], [missing[0], state("extract@test")]
    assert watch(looks(missing, half, half, failed, done), 3, redraws=False)
    assert slept == [3, 3, 3, 3]
    assert capsys.readouterr().out.splitlines() == [
        "17:00:00  propose@test  complete",
        "17:00:00  extract@test  missing",
        "17:00:00  extract@test  2 of 4 images  [job 7: 1 running]",
        "17:00:00  extract@test  2 of 4 images  [job 7: 1 failed]",
        "17:00:00                logs/7.out: no memory",
        "17:00:00  extract@test  complete",
    ]


def test_a_screen_is_redrawn_and_says_how_far_it_is(slept: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    first, last = [state("propose@test"), HALF], [state("propose@test"), state("extract@test")]
    assert watch(looks(first, last), 2.5, redraws=True)
    assert capsys.readouterr().out.splitlines() == [
        "propose@test  complete",
        "extract@test  2 of 4 images  [job 7: 1 running]",
        "17:00:00: 1 of 2 complete; looking again every 2.5 s, Ctrl-C ends",
        "propose@test  complete",
        "extract@test  complete",
    ]


@pytest.mark.parametrize("redraws", [False, True])
def test_ctrl_c_ends_it_without_an_error(redraws: bool, slept: list[float]) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert not watch(looks([HALF], [HALF]), 1, redraws)
    assert signal.getsignal(signal.SIGINT) is before


def test_what_is_computed_on_demand_is_not_waited_for(slept: list[float]) -> None:
    assert watch(looks([state("propose@test", "on demand")]), 1, redraws=False)
    assert slept == []


def test_ctrl_c_before_the_first_look_has_seen_nothing(slept: list[float]) -> None:
    assert not watch(looks(), 1, redraws=False)


# The command


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`rcnn` in this process, in a folder with r.toml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RCNN_WORK", raising=False)
    Path("r.toml").write_text(RECIPE)
    return caller(capsys)


def test_the_exit_status_is_that_of_status(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching.time, "sleep", lambda _: signal.raise_signal(signal.SIGINT))
    code, printed, said = call("status", "r.toml", "--watch")
    assert (code, "propose@test  missing" in printed, "interrupted" in said) == (1, True, False)
    assert call("propose", "r.toml", "--split", "test", "--jobs", "1")[0] == 0
    code, printed, _ = call("status", "r.toml", "--watch", "0.5")
    assert (code, "propose@test  complete" in printed) == (0, True)


def test_another_process_makes_it_meanwhile(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache becomes complete between two looks."""
    from rcnn_cli.recipes.graph import Graph
    from rcnn_cli.recipes.recipe import load_recipe
    from rcnn_cli.running.runner import Options, run_nodes

    def make(_: float) -> None:
        graph = Graph(load_recipe(Path("r.toml")), Path("work"))
        run_nodes(graph, graph.caches(), Options())

    monkeypatch.setattr(watching.time, "sleep", make)
    code, printed, _ = call("status", "r.toml", "--watch", "1")
    assert code == 0
    assert [line.split()[2] for line in printed.splitlines()] == ["missing", "complete"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--watch", "r.toml"), "'r.toml' is not a number of seconds; write the option last"),
        (("r.toml", "--watch", "nan"), "not a finite number"),
        (("r.toml", "--watch", "0"), "0.0 is not in the range"),
        (("r.toml", "--watch", "--json"), "--watch: is for people to read; leave out --json"),
    ],
)
def test_what_it_does_not_take(words: tuple[str, ...], said: str, call: Call) -> None:
    code, _, errors = call("status", *words)
    assert (code, said in errors) == (2, True), errors
