"""`rcnn submit`, `cancel`, and the jobs beside the caches in `status`.

What was submitted is recorded in `jobs/RECIPE.json` in the work folder. Whether a task did its work is read from the
cache, not from the batch system: a task that is no longer queued and whose parts are not all there has failed.
Records are only written by one process at a time (`alone`).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cache import CacheState
from cache.claims import Claims
from cache.files import read_json, write_json
from rcnn_cli.clusters.cluster_file import Cluster, ClusterError, Resources
from rcnn_cli.clusters.slurm import Queue, TaskState, cancel_jobs, read_queue, submit_script
from rcnn_cli.clusters.slurm_scripts import Submission, job_name, log_file, log_pattern, sbatch_script
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import complete
from rcnn_cli.running.status import State

Say = Callable[[str], None]

SUBMITTING = "submitting"
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """A submitted job: the cache (`key`) that its `tasks` make, each a shard of `shards`, and what it waits for."""

    id: str
    name: str
    node: str
    key: str
    shards: int
    tasks: tuple[int, ...]
    after: tuple[str, ...]
    log: str

    def states(self, queue: Queue) -> dict[int, TaskState]:
        """The states of those tasks that Slurm still knows, by number and name (`job_name` says why)."""
        found = {task: queue.get((self.id, task)) for task in self.tasks}
        return {task: state for task, state in found.items() if state is not None and state.name == self.name}

    def active(self, queue: Queue) -> list[int]:
        """The tasks that run or will run."""
        return [task for task, state in self.states(queue).items() if state.active]

    def failed(self, queue: Queue, folder: Path) -> list[int]:
        """The tasks that ended without having made their parts of the cache in `folder`, which is not complete.

        Where all parts are there, the last task to end should have closed the cache.
        """
        active = set(self.active(queue))
        ended = [task for task in self.tasks if task not in active]
        parts = CacheState(folder).missing_parts
        if parts == []:
            return [] if active else ended[-1:]
        missing = shards_of(parts, self.shards)
        return [task for task in ended if task in missing]


def missing_tasks(folder: Path, shards: int) -> list[int]:
    """The shards (from 1) of a cache that is not complete which have parts to make; one closes it if none has."""
    return shards_of(CacheState(folder).missing_parts, shards)


def shards_of(parts: Sequence[int] | None, shards: int) -> list[int]:
    """The shards (from 1) that have one of the `parts`, all where these are not known; the first if there is none."""
    if parts is None:
        return list(range(1, shards + 1))
    return sorted({index % shards + 1 for index in parts}) or [1]


# The record


def record_path(work: Path, recipe: str) -> Path:
    """Where the jobs of a recipe are recorded."""
    return work / "jobs" / f"{recipe.replace('/', '-')}.json"


def read_jobs(path: Path) -> list[Job]:
    """The recorded jobs, oldest first. Raises CacheError or ClusterError for a file that is not a record."""
    try:
        found = read_json(path)["jobs"]
        return [Job(**{**job, "tasks": tuple(job["tasks"]), "after": tuple(job["after"])}) for job in found]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError) as error:
        raise ClusterError(f"{path}: is not a record of jobs; delete it and submit again") from error


def write_jobs(path: Path, jobs: Sequence[Job]) -> None:
    """Replaces the record, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"jobs": [asdict(job) for job in jobs]})


def other_jobs(path: Path) -> list[Job]:
    """The jobs of other recipes, which may be making caches that this one shares."""
    return [job for other in sorted(path.parent.glob("*.json")) if other != path for job in read_jobs(other)]


@contextlib.contextmanager
def alone(work: Path, say: Say) -> Iterator[None]:
    """Lets one `submit` or `cancel` at a time, of all machines, work on the records of a work folder; others wait.

    Whoever holds it and dies leaves nothing behind that a human must remove: it is a claim, as those on parts.
    """
    # One that was stopped (Ctrl-Z) goes on later: on this host it is waited for, however long that takes.
    claims, told = Claims(work / "jobs", patience_here=math.inf), False
    try:
        while not claims.try_claim(SUBMITTING):
            if not told:
                say(f"waiting for another `rcnn submit` or `rcnn cancel` that is using {work / 'jobs'}")
                told = True
            time.sleep(POLL_SECONDS)
        yield
    finally:
        claims.close()


# Submitting


class Submitter:
    """Walks the graph, inputs first, and submits a job for each cache that is not complete and not on its way.

    To be made and used `alone`.
    """

    def __init__(self, graph: Graph, cluster: Cluster, submission: Submission, say: Say) -> None:
        self.graph = graph
        self.cluster = cluster
        self.submission = submission
        self.say = say
        self.path = record_path(graph.work, graph.recipe.name)
        self.queue = read_queue()
        self.jobs = [job for job in read_jobs(self.path) if job.active(self.queue)]
        self.others = [job for job in other_jobs(self.path) if job.active(self.queue)]
        self.placed: dict[str, str] = {}  # the job that makes a cache, by the cache's key

    def submit(self) -> int:
        """Submits what is missing; the number of jobs submitted. Each is recorded as soon as it is there."""
        self.submission.logs.mkdir(parents=True, exist_ok=True)
        submitted = 0
        for node in self.graph.caches():
            if complete(self.graph, node):
                self.say(f"{node.name}: complete, not submitted")
                continue
            key = self.graph.identity(node).key
            after = inputs_placed(self.graph, node, self.placed)
            if key in self.placed:
                self.say(f"{node.name}: same cache as another table's; job {self.placed[key]} makes it")
                continue
            job = self.on_its_way(node, after)
            if job is None:
                job = self.submit_node(node, after)
                submitted += 1
            self.placed[key] = job.id
        return submitted

    def on_its_way(self, node: Node, after: tuple[str, ...]) -> Job | None:
        """The job that makes the node's cache, unless a task of it has failed or it waits for jobs that are no more."""
        key, folder = self.graph.identity(node).key, self.graph.folder(node)
        for job in reversed([*self.others, *self.jobs]):
            if job.key == key and not job.failed(self.queue, folder) and set(after) <= set(job.after):
                self.say(f"{node.name}: job {job.id} is queued or running, not submitted again")
                return job
        return None

    def submit_node(self, node: Node, after: tuple[str, ...]) -> Job:
        """Submits the shards that have parts to make, after its inputs' jobs and what is left of an older job."""
        resources = self.cluster.resources(node)
        key = self.graph.identity(node).key
        tasks = missing_tasks(self.graph.folder(node), resources.array)
        older = [job for job in self.jobs if job.key == key]
        stale = [job for job in older if not set(after) <= set(job.after)]
        if stale:
            cancel_jobs([job.id for job in stale])
            self.jobs = [job for job in self.jobs if job not in stale]
        dependencies = dependency_list(after, [job.id for job in older if job not in stale])
        script = sbatch_script(self.submission, node, key, resources, tasks, dependencies)
        try:
            job_id = submit_script(script)
        except ClusterError as error:
            place = f"correct its table in {self.cluster.path} and submit again; jobs already submitted remain"
            raise ClusterError(f"{node.name}: {error}; {place}") from error
        pattern = log_pattern(self.submission, node, resources)
        name = job_name(self.submission, node, key)
        job = Job(job_id, name, node.name, key, resources.array, tuple(tasks), after, pattern)
        self.jobs.append(job)
        write_jobs(self.path, self.jobs)
        self.say(f"{node.name}: job {job_id}{split(tasks, resources)}{waits(after)}")
        return job


def inputs_placed(graph: Graph, node: Node, placed: Mapping[str, str]) -> tuple[str, ...]:
    """The jobs, of those in `placed` by the key of what they make, that make the node's inputs."""
    keys = [graph.identity(source).key for source in graph.reads(node)]
    return tuple(dict.fromkeys(placed[key] for key in keys if key in placed))


def dependency_list(after: Sequence[str], older: Sequence[str]) -> list[str]:
    """sbatch's --dependency: success of the inputs' jobs, and the end of older jobs of the same cache."""
    return [*[f"afterok:{job}" for job in after], *[f"afterany:{job}" for job in older]]


def split(tasks: Sequence[int], resources: Resources) -> str:
    """ ", 4 tasks", or which of how many."""
    if resources.array == 1:
        return ""
    if len(tasks) == resources.array:
        return f", {resources.array} tasks"
    return f", {len(tasks)} of {resources.array} tasks: the others have made their parts"


def waits(after: Sequence[str]) -> str:
    """ ", after 12 and 13"."""
    return f", after {' and '.join(after)}" if after else ""


def scripts(graph: Graph, cluster: Cluster, submission: Submission) -> Iterator[str]:
    """The script of each cache that is not complete, as `submit` would send it to a cluster with an empty queue."""
    placed: dict[str, str] = {}
    for node in graph.caches():
        key = graph.identity(node).key
        if complete(graph, node) or key in placed:
            continue
        resources = cluster.resources(node)
        after = inputs_placed(graph, node, placed)
        tasks = missing_tasks(graph.folder(node), resources.array)
        placed[key] = f"<{node.name}>"
        yield sbatch_script(submission, node, key, resources, tasks, dependency_list(after, ())).text


def cancel(work: Path, recipe: str) -> list[str]:
    """Cancels the recipe's jobs that are queued or running; their ids. To be called `alone`.

    Finished parts of caches are kept.
    """
    path = record_path(work, recipe)
    jobs = read_jobs(path)
    if not jobs:
        return []
    queue = read_queue()
    ids = [job.id for job in jobs if any(not state.ended for state in job.states(queue).values())]
    if ids:
        cancel_jobs(ids)
    write_jobs(path, [])
    return ids


# Status


def with_jobs(graph: Graph, states: Sequence[State]) -> list[State]:
    """The states of a recipe's caches with the jobs that were submitted for those that are not complete."""
    jobs = job_lines(graph, [graph.nodes[state.name] for state in states if state.state != "complete"])
    return [replace(state, jobs=tuple(jobs.get(state.name, ()))) for state in states]


def job_lines(graph: Graph, nodes: Sequence[Node]) -> dict[str, list[str]]:
    """For each of `nodes` that recorded jobs work on or failed to make: what became of the jobs, in a few lines.

    Jobs of other recipes are told of where they make what this recipe has not submitted itself.
    """
    path = record_path(graph.work, graph.recipe.name)
    own, others = read_jobs(path), other_jobs(path)
    found: dict[str, list[Job]] = {}
    for node in nodes:
        key = graph.identity(node).key
        found[node.name] = [job for job in own if job.key == key] or [job for job in others if job.key == key]
    if not any(found.values()):
        return {}
    try:
        queue, trouble = read_queue(), ""
    except ClusterError as error:
        queue, trouble = {}, str(error)
    lines = {}
    for node in nodes:
        folder = graph.folder(node)
        lines[node.name] = [
            line
            for job in found[node.name]
            for line in ([f"job {job.id}: state unknown ({trouble})"] if trouble else describe_job(job, queue, folder))
        ]
    return lines


def describe_job(job: Job, queue: Queue, folder: Path) -> list[str]:
    """ "job 12: 3 running, 1 failed" and a line for each failed task that left a log: the log and its last line."""
    states, failed = job.states(queue), job.failed(queue, folder)
    words: Counter[str] = Counter()
    for task in job.tasks:
        state = states.get(task)
        if state is not None and state.active:
            reason = f" ({state.reason})" if state.state == "PENDING" and state.reason != "None" else ""
            words[f"{state.state.lower()}{reason}"] += 1
        elif task not in failed:
            words["done"] += 1
        elif state is None or state.state == "COMPLETED":
            words["ended unfinished"] += 1
        else:
            words["unable to start" if state.state == "PENDING" else state.state.lower()] += 1
    lines = [f"job {job.id}: {', '.join(f'{count} {word}' for word, count in words.items())}"]
    for task in failed:
        log = log_file(job.log, job.id, task)
        if log.exists():
            lines.append(f"{log}: {last_line(log)}")
    return lines


def last_line(log: Path) -> str:
    """The last line of a log that is not empty, of its last 4 kB."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        text = file.read().decode(errors="replace").strip()
    return text.splitlines()[-1] if text else "(empty)"
