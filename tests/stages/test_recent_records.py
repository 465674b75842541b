"""Records that several readers share: each computed once, also by threads at the same time, and few of them held."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from stages.contract.errors import StageError
from stages.contract.recent_records import RecentRecords


def record(number: int) -> dict:
    return {"cells": np.full(3, number)}


def test_the_last_ones_are_held():
    recent, computed = RecentRecords(2), []

    def compute(number):
        computed.append(number)
        return record(number)

    def read(number):
        return recent.get(number, lambda: compute(number))

    for number in (1, 2, 1, 3, 1, 2):  # 2 makes room for 3, and 3 for 2
        assert read(number)["cells"].tolist() == [number] * 3
    assert computed == [1, 2, 3, 2]
    assert read(1) is read(1)


def test_threads_wait_for_the_one_that_computes():
    recent, started, go_on, computed = RecentRecords(2), threading.Event(), threading.Event(), []

    def compute():
        computed.append(1)
        started.set()
        assert go_on.wait(10)
        return record(1)

    with ThreadPoolExecutor(4) as pool:
        readings = [pool.submit(recent.get, "a", compute)]
        assert started.wait(10)
        readings += [pool.submit(recent.get, "a", compute) for _ in range(3)]
        go_on.set()
        results = [reading.result() for reading in readings]
    assert computed == [1]
    assert all(result is results[0] for result in results)


def test_what_fails_is_raised_and_tried_again():
    recent = RecentRecords(2)

    def fail():
        raise StageError("no picture")

    for _ in range(2):
        with pytest.raises(StageError, match="no picture"):
            recent.get("a", fail)
    assert recent.get("a", lambda: record(5))["cells"][0] == 5


def test_a_copy_starts_out_empty():
    recent = RecentRecords(3)
    recent.get("a", lambda: record(1))
    copy = pickle.loads(pickle.dumps(recent))
    assert copy.at_most == 3
    assert copy.get("a", lambda: record(2))["cells"][0] == 2
