"""Records computed on demand that several stages read: each is computed once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache import Record


class RecentRecords:
    """The last `at_most` records that were asked for, by key. Thread-safe; a pickled copy starts out empty.

    A thread that asks for a record which another thread is computing waits for it, so nobody may hold a lock that the
    computation needs (such as that of `stages.networks.precision.arithmetic`). Readers must not change a record.
    """

    def __init__(self, at_most: int) -> None:
        self.at_most = at_most
        self.held: OrderedDict[Hashable, Future[Record]] = OrderedDict()
        self.guard = threading.Lock()

    def __reduce__(self) -> tuple[type[RecentRecords], tuple[int]]:
        return RecentRecords, (self.at_most,)

    def get(self, key: Hashable, compute: Callable[[], Record]) -> Record:
        """The record of `key`, computed unless it is held. Raises what `compute` raises; nothing is held then."""
        with self.guard:
            future, held = self.held.get(key, Future()), key in self.held
            self.held[key] = future
            self.held.move_to_end(key)
            while len(self.held) > self.at_most:
                self.held.popitem(last=False)
        if not held:
            try:
                future.set_result(compute())
            except BaseException as error:
                with self.guard:
                    if self.held.get(key) is future:
                        del self.held[key]
                future.set_exception(error)
        return future.result()
