"""`rcnn submit`, `cancel`, and the jobs beside the caches in `status`.

What was submitted is recorded in `jobs/RECIPE.json` in the work folder. Whether a task did its work is read from the
cache, not from the batch system: a task that is no longer queued and whose parts are not all there has failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cache.files import read_json, write_json
from rcnn_cli.batch import Submission, job_name, log_file, log_pattern, sbatch_script
from rcnn_cli.cluster import Cluster, ClusterError, Resources
from rcnn_cli.graph import Graph, Node
from rcnn_cli.runner import complete, missing_parts
from rcnn_cli.slurm import Queue, TaskState, cancel_jobs, read_queue, submit_script

Say = Callable[[str], None]


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
        """The states of those tasks that Slurm still knows (by the job's name too: a new cluster counts from 1)."""
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
        if missing_parts(folder) == []:
            return [] if active else ended[-1:]
        missing = set(missing_tasks(folder, self.shards))
        return [task for task in ended if task in missing]


def missing_tasks(folder: Path, shards: int) -> list[int]:
    """The shards (from 1) of a cache that is not complete which have parts to make; one closes it if none has."""
    missing = missing_parts(folder)
    if missing is None:
        return list(range(1, shards + 1))
    return sorted({index % shards + 1 for index in missing}) or [1]


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
        raise ClusterError(f"{path}: is no record of jobs; delete it and submit again") from error


def write_jobs(path: Path, jobs: Sequence[Job]) -> None:
    """Replaces the record, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"jobs": [asdict(job) for job in jobs]})


def other_jobs(path: Path) -> list[Job]:
    """The jobs of other recipes, which may be making caches that this one shares."""
    return [job for other in sorted(path.parent.glob("*.json")) if other != path for job in read_jobs(other)]


# Submitting


class Submitter:
    """Walks the graph, inputs first, and submits a job for each cache that is not complete and not on its way."""

    def __init__(self, graph: Graph, cluster: Cluster, submission: Submission, say: Say) -> None:
        self.graph = graph
        self.cluster = cluster
        self.submission = submission
        self.say = say
        self.path = record_path(graph.work, graph.recipe.name)
        self.queue = read_queue()
        self.jobs = [job for job in read_jobs(self.path) if job.active(self.queue)]
        self.others = [job for job in other_jobs(self.path) if job.active(self.queue)]
        self.placed: dict[str, str] = {}

    def submit(self) -> int:
        """Submits what is missing; the number of jobs submitted. Each is recorded as soon as it is there."""
        self.submission.logs.mkdir(parents=True, exist_ok=True)
        submitted = 0
        for node in self.graph.caches():
            if complete(self.graph, node):
                self.say(f"{node.name}: complete, not submitted")
                continue
            after = tuple(self.placed[source.name] for source in self.graph.reads(node) if source.name in self.placed)
            job = self.on_its_way(node, after)
            if job is None:
                job = self.submit_node(node, after)
                submitted += 1
            self.placed[node.name] = job.id
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
        key, name = self.graph.identity(node).key, job_name(self.submission, node)
        tasks = missing_tasks(self.graph.folder(node), resources.array)
        older = [job for job in self.jobs if job.key == key]
        stale = [job for job in older if not set(after) <= set(job.after)]
        if stale:
            cancel_jobs([job.id for job in stale])
            self.jobs = [job for job in self.jobs if job not in stale]
        dependencies = dependency_list(after, [job.id for job in older if job not in stale])
        script = sbatch_script(self.submission, node, resources, tasks, dependencies)
        try:
            job_id = submit_script(script)
        except ClusterError as error:
            place = f"correct its table in {self.cluster.path} and submit again, what was submitted before stays"
            raise ClusterError(f"{node.name}: {error}; {place}") from error
        pattern = log_pattern(self.submission, node, resources)
        job = Job(job_id, name, node.name, key, resources.array, tuple(tasks), after, pattern)
        self.jobs.append(job)
        write_jobs(self.path, self.jobs)
        self.say(f"{node.name}: job {job_id}{split(tasks, resources)}{waits(after)}")
        return job


def dependency_list(after: Sequence[str], older: Sequence[str]) -> list[str]:
    """sbatch's --dependency: success of the inputs' jobs, and the end of older jobs of the same cache."""
    return [*[f"afterok:{job}" for job in dict.fromkeys(after)], *[f"afterany:{job}" for job in older]]


def split(tasks: Sequence[int], resources: Resources) -> str:
    """ ", 4 tasks", or which of how many."""
    if resources.array == 1:
        return ""
    if len(tasks) == resources.array:
        return f", {resources.array} tasks"
    return f", {len(tasks)} of {resources.array} tasks: the others have made their parts"


def waits(after: Sequence[str]) -> str:
    """ ", after 12 and 13"."""
    return f", after {' and '.join(dict.fromkeys(after))}" if after else ""


def scripts(graph: Graph, cluster: Cluster, submission: Submission) -> Iterator[str]:
    """The script of each cache that is not complete, as `submit` would send it to a cluster with an empty queue."""
    placed: dict[str, str] = {}
    for node in graph.caches():
        if complete(graph, node):
            continue
        resources = cluster.resources(node)
        after = [placed[source.name] for source in graph.reads(node) if source.name in placed]
        tasks = missing_tasks(graph.folder(node), resources.array)
        placed[node.name] = f"<{node.name}>"
        yield sbatch_script(submission, node, resources, tasks, dependency_list(after, ()))


def cancel(graph_work: Path, recipe: str) -> list[str]:
    """Cancels the recipe's jobs that are queued or running; their ids. Caches keep what is finished."""
    path = record_path(graph_work, recipe)
    jobs = read_jobs(path)
    if not jobs:
        return []
    queue = read_queue()
    ids = [job.id for job in jobs if job.active(queue)]
    if ids:
        cancel_jobs(ids)
    write_jobs(path, [])
    return ids


# Status


def job_lines(graph: Graph) -> dict[str, list[str]]:
    """For each node that a recorded job works on or failed to make: what became of the job, in a few lines."""
    jobs = {job.key: job for job in read_jobs(record_path(graph.work, graph.recipe.name))}
    if not jobs:
        return {}
    try:
        queue, trouble = read_queue(), ""
    except ClusterError as error:
        queue, trouble = {}, str(error)
    lines = {}
    for node in graph.nodes.values():
        job = jobs.get(graph.identity(node).key)
        if job is not None and trouble:
            lines[node.name] = [f"job {job.id}: state unknown ({trouble})"]
        elif job is not None:
            lines[node.name] = describe_job(job, queue, graph.folder(node))
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
        else:
            known = state is not None and state.state not in ("COMPLETED", "PENDING")
            words[state.state.lower() if state is not None and known else "ended unfinished"] += 1
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
