"""What a Dask worker does with a task: it starts `rcnn` as a separate process and supervises it.

Workers receive this file as text (dask_workers.py): it runs under whatever Python a worker has, finds out whether rcnn
is installed there, and so must not import anything from this project.

Why a separate process: the random numbers of libc and liblinear are global to a process, and Dask runs tasks as threads
of one, so a result could otherwise depend on the worker's number of threads. Also, a crash or the kernel's OOM killer
ends that process and not the worker, which keeps answering its scheduler, and memory and device are freed afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, Any

TOPIC = "rcnn"
POLL_SECONDS = 0.2
PATIENCE_SECONDS = 20.0
ENDING = ("closing", "closed", "failed", "stopping", "stopped")


def supervise(job: dict[str, Any]) -> dict[str, Any]:
    """Runs `job` (dask_task.py) in a separate process and returns the outcome.

    That is an empty dictionary on success, {"refused": a sentence} if rcnn cannot be started here, or {"error": a
    pickled exception in base64}. Raises RuntimeError with a sentence if the process was killed, so that Dask may retry;
    Reschedule if this worker is shutting down, so that Dask tries another.
    """
    from distributed import Reschedule, get_worker

    worker = get_worker()
    key = worker.get_current_task()
    name = f"worker {worker.address} on {socket.gethostname()}"

    def unwanted() -> bool:
        """Whether the client has cancelled the task or is gone, or the worker is shutting down."""
        task = worker.state.tasks.get(key)
        return task is None or task.state == "cancelled" or worker.status.name in ENDING

    def hear(message: dict[str, Any]) -> None:
        """Forwards a message of the process to the client."""
        worker.log_event(TOPIC, {"token": job["token"], "by": name, **message})

    # One process at a time, however many threads the worker has: the process uses that many jobs.
    turn = vars(worker).setdefault("rcnn_turn", threading.Lock())
    while not turn.acquire(timeout=POLL_SECONDS):
        if unwanted():
            raise Reschedule
    try:
        job = {**job, "worker": name, "jobs": job["jobs"] or worker.state.nthreads}
        outcome = run_process(job, unwanted, hear)
    finally:
        turn.release()
    if outcome is None:
        raise Reschedule
    return outcome


def run_process(
    job: dict[str, Any], unwanted: Callable[[], bool], hear: Callable[[dict[str, Any]], None]
) -> dict[str, Any] | None:
    """Runs the process; returns as `supervise`, or None if the process was stopped because it was `unwanted`."""
    outcome = None
    with tempfile.TemporaryFile() as noise:
        # The process watches its standard input and shuts down when this end closes, even if by SIGKILL. It runs in a
        # session of its own, so Ctrl-C and the like reach it only in this way.
        process = subprocess.Popen(
            [sys.executable, "-m", "rcnn_cli", "task"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        threading.Thread(target=end_if, args=(process, unwanted), daemon=True).start()
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(job).encode() + b"\n")
                process.stdin.flush()
            started = False
            for line in process.stdout:
                if not line.endswith(b"\n"):
                    break  # it was killed halfway through a message
                message = json.loads(line)
                started = True
                if "say" in message:
                    hear(message)
                else:
                    outcome = message
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
            process.wait()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
        said = last_line(noise)
    if unwanted():
        return None
    if outcome is not None:
        return outcome
    if not started and process.returncode > 0:
        advice = f"on that machine, install the version of rcnn that you run here for {sys.executable}"
        return {"refused": f"{job['worker']}: rcnn cannot be started ({said}); {advice}"}
    raise RuntimeError(
        f"{job['worker']}: the process that made {job['node']} was ended by {cause(process.returncode)} "
        f"({said or 'no output'}), probably out of memory; try --jobs 1, a smaller --batch-size or fewer "
        "workers per machine"
    )


def end_if(process: subprocess.Popen[bytes], unwanted: Callable[[], bool]) -> None:
    """Terminates the process once it is `unwanted`, and kills it if it does not exit."""
    while process.poll() is None:
        if unwanted():
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_SECONDS)
            process.kill()
            return
        time.sleep(POLL_SECONDS)


def cause(code: int) -> str:
    """How a process ended: "SIGKILL" or "exit status 3"."""
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def last_line(file: IO[bytes]) -> str:
    """The last line of what a process wrote to `file`."""
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - 4096))
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else ""
