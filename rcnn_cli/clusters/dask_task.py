"""`rcnn task`: the process that a Dask worker starts (supervision.py) to make parts of one cache.

It reads a job, one line of JSON, from standard input, and answers on standard output, a line of JSON a message: "say"
for what the user should read, and at the end an empty object, or "error" with the exception that ended it.
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
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs

log = logging.getLogger("rcnn")

LATE_SECONDS = 90.0  # NFS shows a new file after a minute at most, unless mounted otherwise


class WorkerError(StageError):
    """What is wrong with a worker rather than with the recipe or its data; begins with the worker's name."""


class Speech(logging.Handler):
    """Sends messages to the process that has started this one."""

    def __init__(self) -> None:
        """Takes standard output for itself: what libraries print goes to standard error."""
        super().__init__()
        self.file = os.fdopen(os.dup(1), "wb")
        self.whole = threading.RLock()
        os.dup2(2, 1)

    def send(self, **message: Any) -> None:
        """Sends one message."""
        with self.whole:
            self.file.write(json.dumps(message).encode() + b"\n")
            self.file.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Sends a message of the log."""
        self.send(say=[record.levelno, record.getMessage()])


def work() -> None:
    """Does the job on standard input."""
    speech = Speech()
    job = json.loads(FileIO(0, closefd=False).readline())
    done = threading.Event()
    threading.Thread(target=end_with_worker, args=(done,), daemon=True).start()
    for name in ("rcnn", "stages", "cache"):
        logging.getLogger(name).handlers = [speech]
        logging.getLogger(name).setLevel(job["level"])
    try:
        do(job)
    except Exception as error:
        error.add_note(f"In {job['worker']}:\n{traceback.format_exc()}")
        done.set()
        speech.send(error=pickled(error))
    else:
        done.set()
        speech.send()


def end_with_worker(done: threading.Event) -> None:
    """Ends this process as SIGTERM does, when standard input ends before the work: the worker is gone.

    In order where it can; a library that does not return to Python for long is not waited for.
    """
    while os.read(0, 1):
        pass
    if not done.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        end_at_once(TERMINATED)


def pickled(error: Exception) -> str:
    """The exception for another process, as one that can be pickled."""
    try:
        pickle.loads(content := pickle.dumps(error))
    except Exception:
        content = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return base64.b64encode(content).decode()


def do(job: dict[str, Any]) -> None:
    """Makes parts of one cache; whatever differs here from where the command runs is a WorkerError."""
    try:
        graph, node = prepare(job)
        wait_for_inputs(job, graph, node)
        made_here = graph.makers([node])
        device = resolve_device(job["device"]) if any(runs_network(one.use.stage) for one in made_here) else "cpu"
        if device != "cpu":
            log.info("networks run on %s", device)
        execution = Execution(device, job["jobs"], job["batch_size"], job["skip_bad_images"])
        inputs = open_inputs(graph, node, execution)
    except (WorkerError, DamagedFile):
        raise
    except (StageError, CacheError, OSError) as error:
        raise WorkerError(f"{job['worker']}: {error}") from error
    except ImportError as error:
        raise WorkerError(f"{job['worker']}: {error}; install the same packages there as here") from error
    make_parts(job, graph, node, inputs, execution)


def prepare(job: dict[str, Any]) -> tuple[Graph, Node]:
    """The graph and the node to make. Raises WorkerError if folder or key are not those of the client."""
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
    """Waits, for a while, until inputs that are complete for the client are complete here too.

    Raises WorkerError, or DamagedFile for a file that is still not what it should be.
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
    """Makes the parts of the job's shard, then helps with those that nobody works on; returns when the shard is there.

    A job without a shard only helps.
    """
    module = node.use.stage.load()
    items, schema = module.items(node.settings, inputs), module.schema(node.settings, inputs)
    identity, folder = Identity.from_json(job["identity"]), Path(job["cache"])
    adoption = find_adoption(folder, graph.item_keys(node), schema) if job["adopt"] else None
    digests = graph.image_digests(node)
    options: dict[str, Any] = {"compression": job["compression"], "adoption": adoption, "digests": digests}
    helped = Writer(folder, identity, items, schema, **options)
    shard = Shard.parse(job["shard"]) if job["shard"] else None
    own = Writer(folder, identity, items, schema, shard=shard, **options) if shard else None
    try:
        for output in (own, helped):
            if output is not None and output.free():
                module.run(node.settings, inputs, output, execution)
        while own is not None and own.unfinished_here() and own.wait(lambda parts: None):
            if own.free():
                module.run(node.settings, inputs, own, execution)
    finally:
        helped.release()
        if own is not None:
            own.release()
