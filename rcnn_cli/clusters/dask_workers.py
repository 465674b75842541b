"""`--dask`: the workers of a Dask scheduler make the parts of caches.

Each worker gets one task, whose shard is a share of the missing parts; a worker that has finished its own takes
unclaimed parts, so a slow or lost worker does not hold up the others. Claims divide the work (cache/claims.py) and the
results go into the caches; Dask carries only jobs, messages and errors. Only this process finishes a cache.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import inspect
import logging
import os
import pickle
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

from cache import Writer
from rcnn_cli.clusters import dask_supervision as supervision
from rcnn_cli.progress import progress
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import duration
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.plurals import number_of, plural

log = logging.getLogger("rcnn")

LOCAL = re.compile(r"local(?:/([1-9]\d*))?")
CONNECT_SECONDS = 10
ANSWER_SECONDS = 60
LATE_SECONDS = 90.0  # NFS shows a new file within a minute, with default mount options
LOOK_SECONDS = 1.0
POLL_SECONDS = 0.1
RETRIES = 3  # of a task whose process was killed; Dask allows as many if the worker was

# dask_supervision.py is sent as text and needs only Python on the worker. Pickled by name, it could not report that
# rcnn is not installed; pickled by value, it would need the same version of Python.
RUN = "exec(source, scope := {}) or scope['supervise'](job)"

# Ctrl-C reaches every process of a terminal; local workers leave it to the command that started them.
IGNORE_CTRL_C = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"


class Workers:
    """The workers of the Dask scheduler at `address` ("local" or "local/N" starts one here).

    Connects when there is work. `patience`: seconds to wait while no worker is connected. In `execution`, the device is
    as the user wrote it, for each worker to resolve, and 0 jobs means as many as the worker has threads.
    """

    def __init__(
        self,
        address: str,
        patience: float,
        execution: Execution,
        compression: str,
        adopt: bool = True,
        log_to: tuple[str, ...] = (),
    ) -> None:
        """Raises StageError for an invalid address, or if Dask is not installed."""
        if importlib.util.find_spec("distributed") is None:
            raise StageError(
                "--dask: needs the package distributed, which is not installed; `pip install 'rcnn[dask]'`, or in a "
                "checkout `pip install -e '.[dask]'`"
            )
        if not LOCAL.fullmatch(address) and not re.fullmatch(r"(\w+://)?[^\s/]+:\d+", address):
            raise StageError(f"--dask {address}: must be written tcp://HOST:PORT, local or local/N")
        self.address = address
        self.patience = patience
        self.execution = execution
        self.compression = compression
        self.adopt = adopt
        self.log_to = log_to
        self.token = uuid.uuid4().hex
        self.open = contextlib.ExitStack()
        self.client: Any = None
        self.heard: set[tuple[str, str]] = set()

    def close(self) -> None:
        """Closes the connection and stops local workers."""
        self.open.close()

    def make_parts(self, graph: Graph, node: Node, writer: Writer) -> None:
        """Has the workers make all missing parts. Raises what a task raised, or StageError."""
        missing = {part.name: len(part.item_ids) for part in writer.unfinished()}
        if not missing:
            return
        self.connect(graph.work)
        job = self.job(graph, node, writer)
        engaged = set(self.workers())
        shards = min(len(missing), len(engaged))
        tasks = [self.submit({**job, "shard": f"{index}/{shards}"}) for index in range(1, shards + 1)]
        parts, helpers = number_of(len(missing), "part"), number_of(len(engaged), "worker")
        log.info("%s: on Dask (%s): %s for %s", node.name, self.address, parts, helpers)
        try:
            with progress(node.name, sum(missing.values()), plural(writer.schema.item, 2)) as bar:
                looked = time.monotonic()
                while tasks := [task for task in tasks if not self.is_done(task)]:
                    time.sleep(POLL_SECONDS)
                    if time.monotonic() - looked < LOOK_SECONDS:
                        continue
                    looked = time.monotonic()
                    for name in missing.keys() & set(os.listdir(writer.folder)):
                        bar.advance(missing.pop(name))
                    connected = self.workers(tasks)
                    bar.done_by(f"Dask, {min(len(tasks), len(connected))} of {len(connected)} workers at work")
                    joined = set(connected) - engaged
                    engaged |= joined
                    # A worker that replaces a lost one gets its task from Dask.
                    idle = max(0, min(len(connected), len(missing)) - len(tasks))
                    tasks += [self.submit({**job, "shard": None}) for _ in range(min(len(joined), idle))]
        finally:
            for task in tasks:
                task.release()  # Dask cancels unreferenced tasks; their processes shut down and release claims
        self.wait_until_seen(writer)

    # The connection

    def connect(self, work: Path) -> None:
        """Connects to the scheduler; leaves a file by which workers recognise the work folder. Raises StageError."""
        if self.client is not None:
            return
        import distributed

        for name in ("distributed", "distributed.client", "distributed.gc", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # relevant errors become sentences here
        address: Any = self.address
        local = LOCAL.fullmatch(self.address)
        try:
            if local:
                address = self.open.enter_context(local_cluster(int(local[1] or 0)))
            else:
                asyncio.run(asyncio.wait_for(shake_hands(self.address), CONNECT_SECONDS))
            self.client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False, name="rcnn")
        except Exception as error:  # many types, depending on the protocol and on what listens there
            raise StageError(
                f"--dask {self.address}: cannot connect to a Dask scheduler ({reason(error)}); "
                "check the address and port, and that `dask scheduler` is running there in the version installed here"
            ) from error
        self.open.callback(self.disconnect)
        sign = sign_of(work, self.token)
        sign.touch()
        self.open.callback(sign.unlink, missing_ok=True)
        self.client.subscribe_topic(supervision.TOPIC, self.hear)

    def disconnect(self) -> None:
        """Closes the client, whatever state the scheduler is in."""
        with contextlib.suppress(Exception):
            self.client.close(timeout=CONNECT_SECONDS)

    def workers(self, tasks: Sequence[Any] = ()) -> list[str]:
        """The addresses of the workers. If there are none, warns and waits until one connects or one of `tasks` fails.

        Raises StageError after `patience` seconds.
        """
        started = time.monotonic()
        warned = False
        while not (connected := self.connected_workers()) and not any(task.status == "error" for task in tasks):
            if not warned:
                warned = True
                log.warning(
                    "the Dask scheduler %s has no workers; waiting up to %s for one",
                    self.address,
                    duration(self.patience),
                )
            if time.monotonic() - started > self.patience:
                raise StageError(
                    f"--dask {self.address}: no worker connected within {duration(self.patience)}; start some with "
                    "`dask worker`, or wait longer with --dask-wait; finished work is kept"
                )
            time.sleep(LOOK_SECONDS)
        return connected

    def connected_workers(self) -> list[str]:
        """The addresses of the workers now connected to the scheduler. Raises StageError."""
        try:
            if self.client.status == "running":
                return list(self.client.nthreads(callback_timeout=ANSWER_SECONDS))
        except Exception as error:
            raise self.lost() from error
        raise self.lost()

    def lost(self) -> StageError:
        """The error for a lost connection to the scheduler."""
        return StageError(
            f"--dask {self.address}: lost the connection to the Dask scheduler; finished work is kept, and the "
            "same command resumes from there, with or without --dask"
        )

    def hear(self, event: tuple[float, Any]) -> None:
        """Logs a worker's message, once."""
        _, message = event
        if message["token"] != self.token:
            return
        level, text = message["say"]
        if (message["by"], text) not in self.heard:
            self.heard.add((message["by"], text))
            log.log(level, "%s: %s", message["by"], text)

    # Tasks

    def job(self, graph: Graph, node: Node, writer: Writer) -> dict[str, Any]:
        """What a worker needs to make the node, as JSON for dask_task.py.

        Paths stay as the user wrote them, relative to `folder`, and so appear in messages.
        """
        return {
            "token": self.token,
            "folder": str(Path.cwd()),
            "work": str(graph.work),
            "sign": str(sign_of(graph.work, self.token)),
            "cache": str(writer.folder),
            "recipe": str(graph.recipe.path),
            "table": graph.recipe.as_json(),
            "node": node.name,
            "identity": writer.identity.as_json(),
            "device": self.execution.device,
            "jobs": self.execution.jobs,
            "batch_size": self.execution.batch_size,
            "skip_bad_images": self.execution.skip_bad_images,
            "compression": self.compression,
            "adopt": self.adopt,
            "log_to": self.log_to,
            "level": log.getEffectiveLevel(),
            # Recipes refer to data and weights by variables that a running worker lacks.
            "environment": {name: value for name, value in os.environ.items() if name.startswith("RCNN_")},
        }

    def submit(self, job: dict[str, Any]) -> Any:
        """Submits a task to Dask, which prefers an idle worker.

        Naming a worker would not work, even with allow_other_workers: once all named ones are lost, it runs nowhere.
        """
        return self.client.submit(
            eval,
            RUN,
            {"source": inspect.getsource(supervision), "job": job},
            key=f"rcnn-{job['node']}-{uuid.uuid4().hex}",
            retries=RETRIES,
            pure=False,
        )

    def is_done(self, task: Any) -> bool:
        """Whether a task has succeeded. Raises what it raised, or StageError, if it failed."""
        if task.status == "cancelled" or self.client.status != "running":
            raise self.lost()
        if task.status == "error":
            raise StageError(f"--dask {self.address}: {explained(task.exception(timeout=ANSWER_SECONDS))}")
        if task.status != "finished":
            return False
        try:
            outcome = task.result(timeout=LOOK_SECONDS)
        except (TimeoutError, CancelledError):
            return False  # its worker was lost with the result, and Dask repeats the task; or the scheduler was lost
        if "error" in outcome:
            raise pickle.loads(base64.b64decode(outcome["error"]))
        if "refused" in outcome:
            raise StageError(outcome["refused"])
        return True

    def wait_until_seen(self, writer: Writer) -> None:
        """Waits, up to LATE_SECONDS, until all parts made by workers are visible here. Raises StageError."""
        end = time.monotonic() + LATE_SECONDS
        while missing := writer.unfinished():
            if time.monotonic() > end:
                raise StageError(
                    f"{writer.folder / missing[0].name}: is missing although a worker has made it; "
                    "check that the workers see the same work folder, and run the same command again"
                )
            time.sleep(LOOK_SECONDS)


def sign_of(work: Path, token: str) -> Path:
    """The empty file by which workers recognise the work folder."""
    return work / f".dask-{token}"


async def shake_hands(address: str) -> None:
    """Connects to a Dask scheduler and disconnects: Client would wait forever if something else listens there."""
    from distributed import Security
    from distributed.comm import connect

    comm = await connect(address, timeout=CONNECT_SECONDS, **Security().get_connection_args("client"))
    await comm.close()


@contextlib.contextmanager
def local_cluster(count: int) -> Iterator[Any]:
    """A Dask cluster of `count` worker processes on this machine (0: one per core), on loopback only."""
    import distributed

    from rcnn_cli.running.device import cores

    workers = count or cores()
    with distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=max(1, cores() // workers),
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,  # it would limit the worker's memory, not that of the process that does the work
        silence_logs=logging.CRITICAL,
        preload=[IGNORE_CTRL_C],
    ) as cluster:
        yield cluster


def explained(error: BaseException) -> str:
    """Why Dask could not run a task."""
    if type(error).__name__ == "KilledWorker":
        return (
            "the workers making a cache were killed one after another, probably out of memory; check "
            "their logs and give them more memory, fewer threads or --jobs 1; finished work is kept"
        )
    if isinstance(error, RuntimeError) and str(error).startswith("worker "):
        return str(error)  # a sentence from `supervise`
    return (
        f"Dask could not run a task ({type(error).__name__}: {reason(error)}); "
        "client, scheduler and workers need the same version of distributed"
    )


def reason(error: BaseException) -> str:
    """A library's exception on one line, at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
