"""`rcnn status --watch`: the state of a recipe's caches, looked at again and again until all are complete."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import click

from rcnn_cli.running.status import State, format_status, lines_of, width_of

Look = Callable[[], Sequence[State]]


def watch(look: Look, seconds: float, redraws: bool) -> bool:
    """Shows what `look` returns, every `seconds`, until all caches are complete or Ctrl-C: whether they are.

    With `redraws` the screen is cleared each time; without, only what has changed is printed, with the time (UTC).
    """
    states: Sequence[State] = ()
    show = redrawn if redraws else changed
    with contextlib.suppress(KeyboardInterrupt), interruptible():
        while True:
            before, states = states, look()
            show(before, states, seconds)
            if all_complete(states):
                break
            time.sleep(seconds)
    return all_complete(states)


def all_complete(states: Sequence[State]) -> bool:
    """Whether there is a state and no cache is left to be made."""
    return bool(states) and all(state.finished for state in states)


def redrawn(before: Sequence[State], states: Sequence[State], seconds: float) -> None:
    """Shows all states on a cleared screen; the last line says how many are complete and how to end."""
    click.clear()
    click.echo(format_status(states, False))
    if not all_complete(states):
        done = sum(state.finished for state in states)
        click.echo(f"{now()}: {done} of {len(states)} complete; looking again every {seconds:g} s, Ctrl-C ends")


def changed(before: Sequence[State], states: Sequence[State], seconds: float) -> None:
    """Prints the states that are not as `before`, each with the time."""
    known = {state.name: state for state in before}
    width = width_of(states)
    for state in states:
        if known.get(state.name) != state:
            for line in lines_of(state, width):
                click.echo(f"{now()}  {line}")


def now() -> str:
    """The time of day, UTC, as in the other commands."""
    return time.strftime("%H:%M:%S", time.gmtime())


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within it, Ctrl-C is no more than a KeyboardInterrupt: it ends the watching, not the command's exit status."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
