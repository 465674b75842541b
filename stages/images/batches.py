"""Reading ahead: images are decoded and batches prepared while the network works on the ones before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def read_ahead(
    read: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    ahead: int,
    threads: int = 1,
    initializer: Callable[..., Any] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Generator[tuple[Task, Result], None, None]:
    """(task, read(task)) of each task, in order, up to `ahead` of them begun by `threads` before they are asked for.

    Tasks are drawn in the caller's thread; without `threads` they are read there, too, each when it is asked for.
    `initializer(*initargs)` is called in each thread first. Raises what `read` raises, at its task; what has not begun
    when the caller stops asking is dropped.
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
