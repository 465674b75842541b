"""Reading ahead: decoding images and preparing batches while the network works on earlier ones."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from cache import Part, Record, Writer
    from stages.contract.execution import Progress

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


def fill_items(
    compute: Callable[[str], Record],
    skipped: Mapping[str, str],
    output: Writer,
    parts: Iterable[Part],
    bar: Progress,
    *,
    ahead: int = 0,
    threads: int = 0,
) -> None:
    """Writes `parts` with the record that `compute` makes of each item, read ahead as by `read_ahead`.

    `skipped` is where the computation notes the items that it skips, and why.
    """
    tasks = ((part, item_id) for part in parts for item_id in part.item_ids)
    rows = next(iter(output.schema.rows), None)
    records: list[Record] = []
    with contextlib.closing(read_ahead(lambda task: compute(task[1]), tasks, ahead=ahead, threads=threads)) as made:
        for (part, _), record in made:
            records.append(record)
            bar.advance(1, 0 if rows is None else len(record[rows]))
            if len(records) == len(part.item_ids):
                output.write(part, records, {name: skipped[name] for name in part.item_ids if name in skipped})
                records = []
