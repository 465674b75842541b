"""Reading ahead: in order, so far and no further, and errors at their place."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from stages.images.batches import read_ahead


def test_results_come_in_order_whatever_takes_longest():
    def read(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    assert list(read_ahead(read, range(7), ahead=3, threads=3)) == [(number, number**2) for number in range(7)]
    assert list(read_ahead(read, [], ahead=3)) == []


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_no_more_is_drawn_than_asked_for(ahead):
    """So a part is claimed no earlier than its first image is read ahead."""
    drawn = []

    def tasks():
        for number in range(10):
            drawn.append(number)
            yield number

    results = read_ahead(str, tasks(), ahead=ahead, threads=2)
    assert drawn == []
    assert next(results) == (0, "0")
    assert drawn == list(range(ahead + 1))
    results.close()
    assert drawn == list(range(ahead + 1))


def test_without_threads_each_is_read_when_it_is_asked_for():
    read = []
    results = read_ahead(lambda number: read.append((number, threading.get_ident())), range(3), ahead=2, threads=0)
    next(results)
    next(results)
    assert read == [(0, threading.get_ident()), (1, threading.get_ident())]


def test_an_error_comes_at_its_task_and_what_has_not_begun_is_dropped(monkeypatch):
    begun, closing = [], threading.Event()

    class Pool(ThreadPoolExecutor):
        def __exit__(self, *error):
            closing.set()
            return super().__exit__(*error)

    def read(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise ValueError("no image")
        if number == 2:
            assert closing.wait(60)
        return number

    monkeypatch.setattr("stages.images.batches.ThreadPoolExecutor", Pool)
    results = read_ahead(read, range(9), ahead=4)
    assert next(results) == (0, 0)
    with pytest.raises(ValueError, match="no image"):
        next(results)
    assert begun in ([0, 1], [0, 1, 2])


def test_each_thread_is_initialised():
    names = []
    place = threading.local()

    def begin(name: str) -> None:
        place.name = name
        names.append(name)

    results = read_ahead(lambda number: place.name, range(3), ahead=1, threads=1, initializer=begin, initargs=("a",))
    assert [name for _, name in results] == ["a"] * 3
    assert names == ["a"]
