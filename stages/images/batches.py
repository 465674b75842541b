"""Reading ahead: decoding images and preparing batches while the network works on earlier ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def images_ahead(device: str) -> int:
    """How many images to decode while the network works on an earlier one."""
    return 8 if device.startswith("cuda") else 1


def read_ahead(
    read: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    ahead: int,
    threads: int = 1,
    initializer: Callable[..., Any] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Generator[tuple[Task, Result], None, None]:
    """Yields (task, read(task)) for each task, in order, with up to `ahead` of them started early in `threads`.

    Tasks are drawn in the caller's thread; with `threads=0` they are also read there, on demand.
    `initializer(*initargs)` runs first in each thread. An exception of `read` is raised at its task; tasks not yet
    started when the caller stops are dropped.
    """
    if not threads:
        for task in tasks:
            yield task, read(task)
        return
    begun: deque[tuple[Task, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads, initializer=initializer, initargs=initargs) as pool:
        try:
            for task in tasks:
                begun.append((task, pool.submit(read, task)))
                if len(begun) > ahead:
                    first, future = begun.popleft()
                    yield first, future.result()
            while begun:
                first, future = begun.popleft()
                yield first, future.result()
        finally:
            for _, future in begun:
                future.cancel()
