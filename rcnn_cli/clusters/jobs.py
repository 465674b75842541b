"""`rcnn submit`, `rcnn cancel`, and the jobs shown beside the caches in `rcnn status`.

Submitted jobs are recorded in `jobs/RECIPE.json` in the work folder. Whether a task has succeeded is read from the
cache, not from the batch system: a task that is no longer queued and whose parts are incomplete has failed. Only one
process at a time writes records (`alone`).
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
    """A submitted job: its `tasks` (shards of `shards`) make the cache `key`, once the jobs `after` have succeeded."""

    id: str
    name: str
    node: str
    key: str
    shards: int
    tasks: tuple[int, ...]
    after: tuple[str, ...]
    log: str

    def states(self, queue: Queue) -> dict[int, TaskState]:
        """The states of the tasks that Slurm still knows, matched by job id and name (see `job_name`)."""
        states = {task: queue.get((self.id, task)) for task in self.tasks}
        return {task: state for task, state in states.items() if state is not None and state.name == self.name}

    def active(self, queue: Queue) -> list[int]:
        """The tasks that are running or will run."""
        return [task for task, state in self.states(queue).items() if state.active]

    def failed(self, queue: Queue, folder: Path) -> list[int]:
        """The tasks that ended without making their parts of the incomplete cache in `folder`.

        If all parts exist and no task is active, the last task has failed: it should have finished the cache.
        """
        active = set(self.active(queue))
        ended = [task for task in self.tasks if task not in active]
        parts = CacheState(folder).missing_parts
        if parts == []:
            return [] if active else ended[-1:]
        missing = shards_of(parts, self.shards)
        return [task for task in ended if task in missing]


def missing_tasks(folder: Path, shards: int) -> list[int]:
    """The shards (from 1) of an incomplete cache with missing parts; if none has any, one to finish the cache."""
    return shards_of(CacheState(folder).missing_parts, shards)


def shards_of(parts: Sequence[int] | None, shards: int) -> list[int]:
    """The shards (from 1) with at least one of `parts`: all shards for None, the first if there are no parts."""
    if parts is None:
        return list(range(1, shards + 1))
    return sorted({index % shards + 1 for index in parts}) or [1]


# Records


def record_path(work: Path, recipe: str) -> Path:
    """The file in which the jobs of a recipe are recorded."""
    return work / "jobs" / f"{recipe.replace('/', '-')}.json"


def read_jobs(path: Path) -> list[Job]:
    """The recorded jobs, oldest first. Raises CacheError or ClusterError for a file that is not a record."""
    try:
        records = read_json(path)["jobs"]
        return [Job(**{**job, "tasks": tuple(job["tasks"]), "after": tuple(job["after"])}) for job in records]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError) as error:
        raise ClusterError(f"{path}: is not a record of jobs; delete it and submit again") from error


def write_jobs(path: Path, jobs: Sequence[Job]) -> None:
    """Replaces the record atomically. Raises CacheError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"jobs": [asdict(job) for job in jobs]})


def other_jobs(path: Path) -> list[Job]:
    """The recorded jobs of other recipes, which may be making caches that this recipe shares."""
    return [job for other in sorted(path.parent.glob("*.json")) if other != path for job in read_jobs(other)]


@contextlib.contextmanager
def alone(work: Path, say: Say) -> Iterator[None]:
    """Lets only one `submit` or `cancel` at a time, on any machine, use the records of a work folder; others wait.

    It is a claim like those on parts, so a process that dies leaves nothing to clean up by hand.
    """
    # A process suspended on this host (Ctrl-Z) will continue some time: wait for it indefinitely.
    claims, announced = Claims(work / "jobs", patience_here=math.inf), False
    try:
        while not claims.try_claim(SUBMITTING):
            if not announced:
                say(f"waiting for another `rcnn submit` or `rcnn cancel` that is using {work / 'jobs'}")
                announced = True
            time.sleep(POLL_SECONDS)
        yield
    finally:
        claims.close()


# Submitting


class Submitter:
    """Walks the graph, inputs first, and submits a job for each incomplete cache that no job is making yet.

    To be created and used within `alone`.
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
        self.placed: dict[str, str] = {}  # the id of the job that makes a cache, by the cache's key

    def submit(self) -> int:
        """Submits what is missing and returns the number of jobs. Each job is recorded as soon as it is submitted."""
        self.submission.logs.mkdir(parents=True, exist_ok=True)
        submitted = 0
        for node in self.graph.caches():
            if complete(self.graph, node):
                self.say(f"{node.name}: complete, not submitted")
                continue
            key = self.graph.identity(node).key
            after = inputs_placed(self.graph, node, self.placed)
            if key in self.placed:
                self.say(f"{node.name}: same cache as another table's, made by job {self.placed[key]}")
                continue
            job = self.on_its_way(node, after)
            if job is None:
                job = self.submit_node(node, after)
                submitted += 1
            self.placed[key] = job.id
        return submitted

    def on_its_way(self, node: Node, after: tuple[str, ...]) -> Job | None:
        """The job making the node's cache; None if one of its tasks has failed or its inputs' jobs have changed."""
        key, folder = self.graph.identity(node).key, self.graph.folder(node)
        for job in reversed([*self.others, *self.jobs]):
            if job.key == key and not job.failed(self.queue, folder) and set(after) <= set(job.after):
                self.say(f"{node.name}: job {job.id} is queued or running, not submitted again")
                return job
        return None

    def submit_node(self, node: Node, after: tuple[str, ...]) -> Job:
        """Submits the shards with missing parts, to run after the inputs' jobs and what remains of older jobs."""
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
    """The ids of the jobs that make the node's inputs; `placed`: job ids by the key of the cache they make."""
    keys = [graph.identity(source).key for source in graph.reads(node)]
    return tuple(dict.fromkeys(placed[key] for key in keys if key in placed))


def dependency_list(after: Sequence[str], older: Sequence[str]) -> list[str]:
    """sbatch's --dependency: success of the inputs' jobs, and the end of older jobs of the same cache."""
    return [*[f"afterok:{job}" for job in after], *[f"afterany:{job}" for job in older]]


def split(tasks: Sequence[int], resources: Resources) -> str:
    """What a line about a job says of its tasks: ", 4 tasks", ", 3 of 4 tasks: ..." or nothing."""
    if resources.array == 1:
        return ""
    if len(tasks) == resources.array:
        return f", {resources.array} tasks"
    return f", {len(tasks)} of {resources.array} tasks (the others have made their parts)"


def waits(after: Sequence[str]) -> str:
    """What a line about a job says of those it waits for: ", after 12 and 13" or nothing."""
    return f", after {' and '.join(after)}" if after else ""


def scripts(graph: Graph, cluster: Cluster, submission: Submission) -> Iterator[str]:
    """The script of each incomplete cache, as `submit` would send it to a cluster with an empty queue."""
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
    """Cancels the recipe's queued and running jobs and returns their ids. To be called within `alone`.

    Finished parts are kept.
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
    """The states of a recipe's caches, with the jobs submitted for the incomplete ones."""
    jobs = job_lines(graph, [graph.nodes[state.name] for state in states if state.state != "complete"])
    return [replace(state, jobs=tuple(jobs.get(state.name, ()))) for state in states]


def job_lines(graph: Graph, nodes: Sequence[Node]) -> dict[str, list[str]]:
    """By node name, a few lines about the jobs that are making a node's cache or failed to.

    Other recipes' jobs are shown for caches for which this recipe has none.
    """
    path = record_path(graph.work, graph.recipe.name)
    own, others = read_jobs(path), other_jobs(path)
    jobs: dict[str, list[Job]] = {}
    for node in nodes:
        key = graph.identity(node).key
        jobs[node.name] = [job for job in own if job.key == key] or [job for job in others if job.key == key]
    if not any(jobs.values()):
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
            for job in jobs[node.name]
            for line in ([f"job {job.id}: state unknown ({trouble})"] if trouble else describe_job(job, queue, folder))
        ]
    return lines


def describe_job(job: Job, queue: Queue, folder: Path) -> list[str]:
    """ "job 12: 3 running, 1 failed", then the log's path and last line for each failed task that has a log."""
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
    """The last non-empty line in the last 4 kB of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        text = file.read().decode(errors="replace").strip()
    return text.splitlines()[-1] if text else "(empty)"
