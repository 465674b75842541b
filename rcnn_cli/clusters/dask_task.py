"""`rcnn task`: the process that a Dask worker starts (dask_supervision.py) to make parts of one cache.

It reads a job, one line of JSON, from standard input and writes messages, one line of JSON each, to standard output:
"say" for the user, and at the end an empty object, or "error" with the exception that ended it.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import signal
import threading
import time
import traceback
from io import FileIO
from pathlib import Path
from typing import Any

from cache import CacheError, DamagedFile, Identity, Shard, Writer, differences, find_adoption
from rcnn_cli.ending import PATIENCE, end_at_once
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import build_recipe
from rcnn_cli.running.device import resolve_device, runs_network
from rcnn_cli.running.runner import look, open_inputs
from rcnn_cli.sentences import TERMINATED
from rcnn_cli.tracking import tracked
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs

log = logging.getLogger("rcnn")

LATE_SECONDS = 90.0  # NFS shows a new file within a minute, with default mount options


class WorkerError(StageError):
    """A fault of a worker rather than of the recipe or its data; the message begins with the worker's name."""


class Messages(logging.Handler):
    """Sends messages to the process that started this one."""

    def __init__(self) -> None:
        """Takes over standard output: what libraries print goes to standard error."""
        super().__init__()
        self.file = os.fdopen(os.dup(1), "wb")
        self.sending = threading.RLock()
        os.dup2(2, 1)

    def send(self, **message: Any) -> None:
        """Sends one message."""
        with self.sending:
            self.file.write(json.dumps(message).encode() + b"\n")
            self.file.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Sends a log message."""
        self.send(say=[record.levelno, record.getMessage()])


def work() -> None:
    """Reads a job from standard input, runs it and sends the outcome."""
    messages = Messages()
    job = json.loads(FileIO(0, closefd=False).readline())
    done = threading.Event()
    threading.Thread(target=end_with_worker, args=(done,), daemon=True).start()
    for name in ("rcnn", "stages", "cache"):
        logging.getLogger(name).handlers = [messages]
        logging.getLogger(name).setLevel(job["level"])
    try:
        do(job)
    except Exception as error:
        error.add_note(f"In {job['worker']}:\n{traceback.format_exc()}")
        done.set()
        messages.send(error=pickled(error))
    else:
        done.set()
        messages.send()


def end_with_worker(done: threading.Event) -> None:
    """Ends this process with SIGTERM if standard input closes before the work is done: the worker is gone.

    If a library does not return to Python within PATIENCE, the process is killed.
    """
    while os.read(0, 1):
        pass
    if not done.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        end_at_once(TERMINATED)


def pickled(error: Exception) -> str:
    """The exception, pickled, in base64; one that cannot be pickled becomes a RuntimeError with the same text."""
    try:
        pickle.loads(content := pickle.dumps(error))
    except Exception:
        content = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return base64.b64encode(content).decode()


def do(job: dict[str, Any]) -> None:
    """Makes parts of one cache. Raises WorkerError if this machine differs from the one where the command runs."""
    try:
        graph, node = prepare(job)
        wait_for_inputs(job, graph, node)
        makers = graph.makers([node])
        device = (
            resolve_device(job["device"])
            if any(runs_network(maker.use.stage, maker.settings) for maker in makers)
            else "cpu"
        )
        if device != "cpu":
            log.info("networks run on %s", device)
        execution = Execution(device, job["jobs"], job["batch_size"], job["skip_bad_images"])
        execution = tracked(execution, job["log_to"], graph.work, Path(job["cache"]), node.use.stage, node.settings)
        inputs = open_inputs(graph, node, execution)
    except (WorkerError, DamagedFile):
        raise
    except (StageError, CacheError, OSError) as error:
        raise WorkerError(f"{job['worker']}: {error}") from error
    except ImportError as error:
        raise WorkerError(f"{job['worker']}: {error}; install the same packages there as on this machine") from error
    make_parts(job, graph, node, inputs, execution)


def prepare(job: dict[str, Any]) -> tuple[Graph, Node]:
    """The graph and the node to make. Raises WorkerError if the folder or the key differs from the client's."""
    os.environ.update(job["environment"])
    for folder, sign in ((job["folder"], "."), (job["work"], job["sign"])):
        folder = Path(job["folder"], folder)
        if not Path(job["folder"], sign).exists():
            raise WorkerError(
                f"{job['worker']}: cannot see the folder {folder}; every worker must see it under the same path"
            )
    os.chdir(job["folder"])
    graph = Graph(build_recipe(Path(job["recipe"]), job["table"]), Path(job["work"]))
    node = graph.nodes[job["node"]]
    here, there = graph.identity(node), Identity.from_json(job["identity"])
    if here.key != there.key:
        raise WorkerError(
            f"{job['worker']}: would make a different {node.name} ({', '.join(differences(there, here))}); "
            "it needs the same versions and data as this machine"
        )
    return graph, node


def wait_for_inputs(job: dict[str, Any], graph: Graph, node: Node) -> None:
    """Waits, up to LATE_SECONDS, until the inputs, which are complete for the client, are complete here too.

    Raises WorkerError, or DamagedFile for a file that is still damaged by then.
    """
    end = time.monotonic() + LATE_SECONDS
    for source in graph.reads(node):
        while True:
            late = time.monotonic() > end
            state = look(graph, source)
            if state.complete:
                break
            if late and state.damage is not None:
                raise state.damage
            if late:
                raise WorkerError(
                    f"{job['worker']}: does not see that {source.name} is complete ({graph.folder(source)}); "
                    "every worker must see the same work folder"
                )
            time.sleep(1.0)


def make_parts(job: dict[str, Any], graph: Graph, node: Node, inputs: Inputs, execution: Execution) -> None:
    """Makes the parts of the job's shard, then any other unclaimed ones; returns when the shard is complete.

    A job without a shard makes only unclaimed parts.
    """
    module = node.use.stage.load()
    items, schema = module.items(node.settings, inputs), module.schema(node.settings, inputs)
    identity, folder = Identity.from_json(job["identity"]), Path(job["cache"])
    adoption = find_adoption(folder, graph.item_keys(node), schema) if job["adopt"] else None
    digests = graph.image_digests(node)
    options: dict[str, Any] = {"compression": job["compression"], "adoption": adoption, "digests": digests}
    shared = Writer(folder, identity, items, schema, **options)
    shard = Shard.parse(job["shard"]) if job["shard"] else None
    own = Writer(folder, identity, items, schema, shard=shard, **options) if shard else None
    try:
        for output in (own, shared):
            if output is not None and output.free():
                module.run(node.settings, inputs, output, execution)
        while own is not None and own.unfinished_here() and own.wait(lambda parts: None):
            if own.free():
                module.run(node.settings, inputs, own, execution)
    finally:
        shared.release()
        if own is not None:
            own.release()
