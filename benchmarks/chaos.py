"""Fault injection: shows that no fault loses finished work: `python -m benchmarks.chaos --faults 200 --seed 0`.

Runs a recipe while processes are killed, files damaged and the disk filled, each at a place and time drawn from the
seed; resumes; and compares every cache (bytes of the parts; key, items, rows, summary and parts of the manifests) and
the mAP with those of an undisturbed run. Prints a table by kind of fault; exit status 1 if anything differs.

To avoid starting Python for every fault, this process imports the libraries once and forks the commands; those with
worker processes, the undisturbed run and the last one are real `rcnn` command lines. Cost is processor time (user and
system) beyond that of the same work undisturbed. Times of faults are drawn in it too, uniformly over what the
undisturbed stage used: wall time means little on a shared machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cache.files import read_json
from cache.parts import USER_BLOCK, write_part
from tests.pipeline import SMALL, contents, write_recipe

PROJECT = Path(__file__).parents[1]
PART_SIZE = 3
NAMED = ("stage", "key", "part", "items", "compression")  # what a writer gives for a part's header
BATCH = 4
MOST_PROBLEMS = 30
LIMIT_SECONDS = 3600.0
KEPT = re.compile(r"finished work is kept, of .* \((\d+) of \d+ parts?\)")
PATIENCE_SECONDS, BEAT_SECONDS = 2.0, 0.2  # for writers in the "stop" faults, which would otherwise take a minute each
OF_TWO_HUNDRED = {
    "worker": 5,
    "main": 3,
    "term": 10,
    "writers": 10,
    "stop": 4,
    "truncate": 6,
    "flip": 8,
    "header": 4,
    "manifest": 3,
    "part": 4,
    "plan": 2,
    "bit": 4,
    "view": 3,
    "foreign": 3,
    "claim": 2,
    "checkpoint": 2,
    "disk": 4,
}
WORDS = {
    "kill": "SIGKILL of the whole process group",
    "worker": "SIGKILL of one worker process of two",
    "main": "SIGKILL of the main process, its workers orphaned",
    "term": "SIGTERM",
    "writers": "three writers at once, one killed",
    "stop": "two writers at once, one stopped (SIGSTOP) and continued once the other had ended",
    "truncate": "a part truncated",
    "flip": "a byte of a part's data flipped",
    "header": "a byte of a part's header flipped",
    "manifest": "a manifest removed",
    "part": "a part removed",
    "plan": "a plan truncated",
    "bit": "a bit of a plan or a manifest flipped",
    "view": "a view (data.h5) removed, truncated or with a bit flipped",
    "foreign": "a part replaced by one of another cache",
    "claim": "a claim truncated",
    "checkpoint": "a checkpoint truncated or with a bit flipped",
    "disk": "a full disk (tmpfs)",
}
BESIDES = {"manifest": ("manifest.json",), "bit": ("plan.json", "manifest.json"), "view": ("data.h5",)}
SIGNS = {
    "it will be rewritten; the parts are kept": "named as damaged by the next run and written again",
    "moved to": "named and set aside by the run",
    "the file is missing": "named as missing",
    "its SHA-256 does not": "named by cache verify",
    "the disk is full": "exit 2: the disk is full",
    "resuming after epoch": "resumed from the checkpoint",
    "resuming: ": "resumed from the finished parts",
    "waiting for": "waited for the claim, then took it over",
    "process died": "exit 2: a process died",
    "a worker was killed": "exit 2: a worker was killed",
}


@dataclass(frozen=True)
class Unit:
    """What one stage command makes: a stage's caches on a split. `folders` are relative to the work folder."""

    stage: str
    split: str | None
    folders: tuple[str, ...]

    def arguments(self) -> list[str]:
        """The arguments of the stage command, without the recipe."""
        return [self.stage, *(["--split", self.split] if self.split else [])]


@dataclass(frozen=True)
class Fault:
    """One fault: its kind, the stage, how it was noticed, seconds repeated, damaged and intact parts made again."""

    kind: str
    stage: str
    noticed: str
    seconds: float
    damaged: int = 0
    intact: int = 0


class TooManyProblems(Exception):
    """Raised after so many problems that it makes no sense to continue."""


class Command:
    """A running `rcnn`, the leader of its own process group."""

    def __init__(self, arguments: Sequence[str], log: Path, *, real: bool = False, hasty: bool = False) -> None:
        """`real`: starts a new Python instead of forking; `hasty`: stopped writers count as dead after two seconds."""
        self.arguments, self.log = list(arguments), log
        self.status: int | None = None
        self.seconds = 0.0
        self.started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            become_rcnn(self.arguments, log, real, hasty)
        with contextlib.suppress(OSError):
            os.setpgid(self.pid, self.pid)  # also here, as the first signal may come before the child has done it

    def running(self) -> bool:
        """Whether it is still running; once it has ended, records its status and processor time."""
        if self.status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                self.seconds = usage.ru_utime + usage.ru_stime
        return self.status is None

    def wait(self, seconds: float = LIMIT_SECONDS, *, processor: float | None = None) -> bool:
        """Waits until it has ended, but at most until `seconds` after its start or `processor` seconds of its own time.

        Returns whether it has ended.
        """
        while self.running() and time.monotonic() - self.started < seconds:
            if processor is not None and self.used() >= processor:
                break
            time.sleep(0.003)
        return self.status is not None

    def used(self) -> float:
        """The processor seconds used so far by all threads of the main process."""
        nanoseconds = 0
        for path in Path(f"/proc/{self.pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                nanoseconds += int(path.read_text().split()[0])
        return nanoseconds / 1e9

    def signal_group(self, number: int) -> None:
        """Sends a signal to all its processes, including orphaned ones."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def signal(self, number: int) -> None:
        """Sends a signal to the main process only."""
        if self.running():
            os.kill(self.pid, number)

    def workers(self) -> list[int]:
        """The ids of its worker processes."""
        process_ids = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.pid and b"LokyProcess" in (folder / "cmdline").read_bytes():
                    process_ids.append(int(folder.name))
        return sorted(process_ids)

    def text(self) -> str:
        """Its output so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def become_rcnn(arguments: list[str], log: Path, real: bool, hasty: bool) -> None:
    """Turns this forked process into `rcnn`; never returns."""
    code = 70
    try:
        os.setpgid(0, 0)
        for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (os.open(log, os.O_WRONLY | os.O_CREAT), 1)):
            os.dup2(source, target)
        os.dup2(1, 2)
        os.chdir(PROJECT)
        if real:
            environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
            os.execve(sys.executable, [sys.executable, "-m", "rcnn_cli", *arguments], environment)
        import cache.claims
        from rcnn_cli.main import main

        if hasty:
            cache.claims.PATIENCE_SECONDS, cache.claims.BEAT_SECONDS = PATIENCE_SECONDS, BEAT_SECONDS
        sys.argv = ["rcnn", *arguments]
        main(arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def import_libraries() -> None:
    """Imports everything that the commands need."""
    import importlib

    for name in (
        "cv2",
        "torch",
        "torchvision",
        "sklearn.svm",
        "joblib",
        "matplotlib.pyplot",
        "threadpoolctl",
        "tqdm",
    ):
        importlib.import_module(name)
    for name in ("propose", "extract", "pretrain", "train_svm", "train_bbox", "detect", "eval"):
        importlib.import_module(f"stages.{name}.stage")
    for name in (
        "main",
        "looking.results",
        "progress",
        *(f"running.{module}" for module in ("runner", "status", "caches", "device")),
    ):
        importlib.import_module(f"rcnn_cli.{name}")


@dataclass
class Chaos:
    """A recipe under faults: `work` is disturbed, `reference` has the caches of the undisturbed run."""

    recipe: Path
    folder: Path
    random: random.Random
    part_size: int | None
    faults: list[Fault] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    cost: dict[Unit, float] = field(default_factory=dict)
    nothing: float = 0.0
    commands: int = 0
    not_done: list[str] = field(default_factory=list)
    deadline: float = float("inf")

    @property
    def work(self) -> Path:
        """The disturbed work folder."""
        return self.folder / "work"

    @property
    def reference(self) -> Path:
        """The work folder of the undisturbed run."""
        return self.folder / "reference"

    # Commands

    def start(self, *arguments: str, work: Path | None = None, jobs: int = 1, **options: bool) -> Command:
        """Starts a command on the recipe."""
        self.commands += 1
        line = [*arguments, str(self.recipe), "--work", str(work or self.work), "--jobs", str(jobs)]
        line += ["--part-size", str(self.part_size)] if self.part_size else []
        return Command(line, self.folder / f"log-{self.commands:05d}.txt", **options)

    def start_unit(self, unit: Unit, **options: Any) -> Command:
        """Starts a stage command."""
        return self.start(*unit.arguments(), **options)

    def expect(self, command: Command, *codes: int) -> Command:
        """Waits for a command; records a problem unless it ends with one of `codes`."""
        if not command.wait():
            command.signal_group(signal.SIGKILL)
            self.problem(f"`{' '.join(command.arguments)}` did not end in {LIMIT_SECONDS / 60:.0f} minutes")
        elif command.status not in (codes or (0,)):
            last = (command.text().strip().splitlines() or [""])[-1]
            self.problem(f"`{' '.join(command.arguments)}` ended with {command.status}: {last}")
        return command

    def problem(self, text: str) -> None:
        """Records and prints a problem."""
        self.problems.append(text)
        print(f"PROBLEM: {text}", file=sys.stderr, flush=True)
        if len(self.problems) >= MOST_PROBLEMS:
            raise TooManyProblems

    def note(self, kind: str, stage: str, noticed: str, seconds: float, damaged: int = 0, intact: int = 0) -> None:
        """Records and prints a fault."""
        self.faults.append(Fault(kind, stage, noticed, seconds, damaged, intact))
        clock = time.strftime("%H:%M:%S", time.gmtime())
        line = f"{clock}  {len(self.faults):4}  {WORDS[kind]}, {stage}: {noticed} ({seconds:+.2f} s)"
        print(line, file=sys.stderr, flush=True)

    # State

    def stamps(self, unit: Unit, work: Path | None = None) -> dict[str, tuple[int, int]]:
        """(inode, mtime) of each part of the unit, which change whenever a part is written again."""
        states = {}
        for folder in unit.folders:
            for path in ((work or self.work) / folder).glob("part-*.h5"):
                with contextlib.suppress(FileNotFoundError):
                    state = path.stat()
                    states[f"{folder}/{path.name}"] = (state.st_ino, state.st_mtime_ns)
        return states

    def reset(self, unit: Unit, work: Path | None = None) -> None:
        """Removes the unit's caches."""
        for folder in unit.folders:
            shutil.rmtree((work or self.work) / folder, ignore_errors=True)

    def compare(self, when: str, unit: Unit | None = None, work: Path | None = None) -> bool:
        """Compares all caches, or a unit's, with the undisturbed run's; records differences as problems."""
        names = {Path(folder).name for folder in unit.folders} if unit else None
        actual, expected = (
            {name: value for name, value in contents(place).items() if names is None or name in names}
            for place in (work or self.work, self.reference)
        )
        for name in sorted({*actual, *expected}):
            if actual.get(name) != expected.get(name):
                what = "is not complete" if name not in actual else "differs from the undisturbed run's"
                self.problem(f"{name} {what} after {when}")
        if actual != expected and work is None and when != "the last run":
            self.restore()
        return actual == expected

    def restore(self) -> None:
        """Restores the undisturbed caches, so that one problem does not hide the next."""
        shutil.rmtree(self.work / "caches", ignore_errors=True)
        shutil.copytree(self.reference / "caches", self.work / "caches")

    def choose(self, *stages: str) -> Unit:
        """A random unit, of the named stages if the recipe has them."""
        candidates = [unit for unit in self.units if unit.stage in stages] if stages else self.units
        return self.random.choice(candidates or self.units)

    def a_part(self, taken: Collection[Path]) -> Path:
        """A random finished part of a cache other than those of the parts `taken`."""
        used = {path.parent for path in taken}
        folders = [self.work / folder for unit in self.units for folder in unit.folders]
        free = [folder for folder in folders if folder not in used and any(folder.glob("part-*.h5"))]
        return self.random.choice(sorted(self.random.choice(free).glob("part-*.h5")))

    # The undisturbed run

    def undisturbed(self) -> None:
        """Runs the recipe undisturbed with the real command; then each stage by forking, to measure it."""
        self.expect(self.start("run", work=self.reference, real=True))
        if self.problems:
            return
        self.units = self.find_units()
        shutil.copytree(self.reference / "datasets", self.work / "datasets")
        for unit in self.units:
            self.cost[unit] = self.expect(self.start_unit(unit)).seconds
        self.compare("the undisturbed run by forking")
        self.nothing = self.expect(self.start("run")).seconds

    def find_units(self) -> list[Unit]:
        """The recipe's stage commands, inputs first."""
        from rcnn_cli.recipes.graph import Graph
        from rcnn_cli.recipes.recipe import load_recipe

        graph = Graph(load_recipe(self.recipe, ()), self.reference)
        grouped: dict[tuple[str, str | None], list[str]] = {}
        for node in graph.caches():
            split = node.split if node.use.stage.follows_split else None
            folder = str(graph.folder(node).relative_to(self.reference))
            grouped.setdefault((node.use.stage.name, split), []).append(folder)
        return [Unit(stage, split, tuple(folders)) for (stage, split), folders in grouped.items()]

    # Processes that die

    def interrupt(self, kind: str, unit: Unit, count: int) -> None:
        """Runs the unit's command, stops it at a random time, resumes it and compares; `count` times.

        A command that ends before that time is not a fault: its caches are compared and it starts again.
        """
        number = signal.SIGKILL if kind == "kill" else signal.SIGTERM
        while count > 0:
            self.reset(unit)
            attempts: list[Command] = []
            kept: list[dict[str, tuple[int, int]]] = []
            while len(kept) == len(attempts):
                command = self.start_unit(unit)
                attempts.append(command)
                if len(kept) < count and not command.wait(processor=self.random.uniform(0, self.cost[unit])):
                    command.signal_group(number)
                    self.expect(command, -signal.SIGKILL, -signal.SIGTERM, 143, 0)
                    kept.append(self.stamps(unit))
            self.expect(command)
            count -= len(kept)
            self.compare(f"{len(kept)} times {WORDS[kind]} in {unit.stage}", unit)
            extra = (sum(attempt.seconds for attempt in attempts) - self.cost[unit]) / max(1, len(kept))
            final = self.stamps(unit)
            texts = [attempt.text() for attempt in attempts]
            for after, (ended, parts) in enumerate(zip(attempts, kept, strict=False), 1):
                how = resumed(next(text for text in texts[after:] if text))
                if kind == "term":
                    how = f"exit {ended.status}, then {how}"
                    if ended.status and (left := list(self.claims(ended))):
                        self.problem(f"SIGTERM left claims: {left}")
                    claimed = KEPT.search(ended.text())
                    if claimed and len(unit.folders) == 1 and int(claimed[1]) != len(parts):
                        self.problem(f"after SIGTERM {len(parts)} parts are kept, not `{claimed[0]}`")
                    how += ", with as many parts as it had said" if claimed else ""
                self.note(kind, unit.stage, how, extra, intact=sum(final.get(part) != parts[part] for part in parts))

    def claims(self, command: Command) -> Iterator[str]:
        """The parts still claimed by the ended process."""
        for path in (self.work / "caches").glob("*/*/claims/part-*"):
            if read_json(path).get("pid") == command.pid:
                yield path.name

    def kill_with_workers(self, kind: str, count: int) -> None:
        """Kills one worker, or only the main process, of a real command with two workers at a random time."""
        lasting: dict[Unit, float] = {}
        while count > 0:
            unit = self.choose("propose", "extract", "train-svm", "train-bbox")
            if unit not in lasting:
                self.reset(unit)
                command = self.start_unit(unit, jobs=2, real=True)
                appeared = await_workers(command)
                self.expect(command)
                lasting[unit] = max(0.1, time.monotonic() - appeared)
                self.compare("two undisturbed workers", unit)
            self.reset(unit)
            command = self.start_unit(unit, jobs=2, real=True)
            await_workers(command)
            command.wait(time.monotonic() - command.started + self.random.uniform(0, lasting[unit]))
            workers = command.workers()
            if not command.running() or not workers:
                self.expect(command)
                continue
            os.kill(self.random.choice(workers) if kind == "worker" else command.pid, signal.SIGKILL)
            if kind == "worker":
                self.expect(command, 0, 2)
            command.wait()
            kept = self.stamps(unit)
            again = self.expect(self.start_unit(unit))
            command.signal_group(signal.SIGKILL)
            self.compare(f"{WORDS[kind]} in {unit.stage}", unit)
            final = self.stamps(unit)
            how = resumed(again.text())
            if kind == "worker":
                how = f"{sign(command.text()) or f'exit {command.status}'}; then {how}"
            lost = sum(final.get(part) != kept[part] for part in kept)
            self.note(kind, unit.stage, how, again.seconds, intact=lost)
            count -= 1

    def writers(self, count: int) -> None:
        """Three processes fill the same cache; one is killed and the others finish."""
        while count > 0:
            unit = self.choose()
            self.reset(unit)
            commands = [self.start_unit(unit) for _ in range(3)]
            victim = self.random.choice(commands)
            if not victim.wait(processor=self.random.uniform(0, self.cost[unit])):
                victim.signal_group(signal.SIGKILL)
            victim.wait()
            for command in commands:
                if command is not victim:
                    self.expect(command)
            self.compare(f"{WORDS['writers']} in {unit.stage}", unit)
            if victim.status == 0:
                continue
            count -= 1
            others = "".join(command.text() for command in commands if command is not victim)
            how = "the others waited and took its part over" if "waiting for" in others else "the others continued"
            extra = sum(command.seconds for command in commands) - self.cost[unit]
            self.note("writers", unit.stage, how, extra)

    # Damaged files

    def damage(self, kind: str, count: int) -> None:
        """Corrupts files of finished caches, several at once, then verifies and runs until everything is intact."""
        if kind in ("truncate", "header", "part") and count > 1:
            self.damage_unfinished(kind, count // 2)
            count -= count // 2
        while count > 0:
            batch = min(count, BATCH)
            removed = (
                self.remove_downstream() if kind in ("flip", "header", "foreign") and self.random.random() < 0.5 else []
            )
            verify_first = not removed and kind != "manifest" and self.random.random() < 0.5
            before = {name: stamp for unit in self.units for name, stamp in self.stamps(unit).items()}
            spoilt: list[Path] = []
            for _ in range(batch):
                path = self.a_part(spoilt)
                path = path.with_name(self.random.choice(BESIDES[kind])) if kind in BESIDES else path
                spoil(path, kind, self.random)
                spoilt.append(path)
            texts = [self.verify().text()] if verify_first else []
            runs = [self.expect(self.start("run"))]
            texts.append(runs[0].text())
            verified = self.verify()
            texts.append(verified.text())
            if verified.status:
                runs.append(self.expect(self.start("run")))
            self.compare(f"{batch} times {WORDS[kind]}")
            extra = sum(run.seconds - self.nothing for run in runs) - sum(self.cost[unit] for unit in removed)
            final = {name: stamp for unit in self.units for name, stamp in self.stamps(unit).items()}
            again = {self.work / name for name, stamp in before.items() if final.get(name) != stamp}
            intact = len(again.difference(spoilt))
            for path in spoilt:
                how = noticed(path, texts, verify_first)
                self.note(kind, path.parent.parent.name, how, extra / batch, int(path in again), intact)
                intact = 0
            count -= batch

    def damage_unfinished(self, kind: str, count: int) -> None:
        """Corrupts a part of a cache that lacks its manifest and another part; the stage command resumes."""
        for _ in range(count):
            unit = self.random.choice([unit for unit in self.units if len(self.stamps(unit)) > 1])
            before = self.stamps(unit)
            gone, spoilt = (self.work / part for part in self.random.sample(sorted(before), 2))
            gone.unlink()
            gone.with_name("manifest.json").unlink()
            spoilt.with_name("manifest.json").unlink(missing_ok=True)
            spoil(spoilt, kind, self.random)
            command = self.expect(self.start_unit(unit))
            verified = self.verify()
            self.compare(f"{WORDS[kind]} in an unfinished {unit.stage}")
            final = self.stamps(unit)
            again = {self.work / name for name, stamp in before.items() if final.get(name) != stamp} - {gone}
            how = noticed(spoilt, [command.text(), verified.text()], False)
            if kind == "part":
                how = "made with the other missing parts"
            extra = command.seconds - self.nothing
            self.note(kind, unit.stage, how, extra, int(spoilt in again), len(again - {spoilt}))

    def remove_downstream(self) -> list[Unit]:
        """Removes the caches made from features, so that a run reads the features; returns their units."""
        units = [unit for unit in self.units if unit.stage in ("train-svm", "train-bbox", "detect", "eval")]
        for unit in units:
            self.reset(unit)
        return units

    def verify(self) -> Command:
        """Runs `rcnn cache verify` on the disturbed work folder."""
        self.commands += 1
        log = self.folder / f"log-{self.commands:05d}.txt"
        return self.expect(Command(["cache", "verify", "--work", str(self.work)], log), 0, 1)

    def stop(self, count: int) -> None:
        """Two processes fill the same cache; one is stopped, and continued once the other has finished the cache."""
        while count > 0:
            unit = self.choose()
            self.reset(unit)
            stopped, other = (self.start_unit(unit, hasty=True) for _ in range(2))
            if not stopped.wait(processor=self.random.uniform(0, self.cost[unit] / 2)):
                stopped.signal_group(signal.SIGSTOP)
            self.expect(other)
            parts = self.stamps(unit)
            stopped.signal_group(signal.SIGCONT)
            self.expect(stopped)
            self.compare(f"{WORDS['stop']} in {unit.stage}", unit)
            if ": complete (" not in stopped.text() and self.stamps(unit) == parts:
                count -= 1
                waited = "waiting for" in other.text()
                how = "the other took its part over" if waited else "it had no claim"
                extra = stopped.seconds + other.seconds - self.cost[unit]
                self.note("stop", unit.stage, f"{how}; both ended with 0", extra)
            elif self.stamps(unit) != parts:
                self.problem(f"{unit.stage}: a part was written again by a process that had been stopped")

    def tear_plan(self, count: int) -> None:
        """Truncates the plan of a finished cache, or of one without a manifest, and runs."""
        for _ in range(count):
            removed = self.remove_downstream()
            unfinished = self.random.random() < 0.5
            unit = self.choose("propose", "extract") if unfinished else self.choose("extract")
            plan = self.work / self.random.choice(unit.folders) / "plan.json"
            if unfinished:
                plan.with_name("manifest.json").unlink()
            before = self.stamps(unit)
            cut(plan, self.random)
            command = self.expect(self.start("run"))
            self.compare(f"{WORDS['plan']} in {unit.stage}")
            extra = command.seconds - self.nothing - sum(self.cost[each] for each in removed)
            final = self.stamps(unit)
            how = sign(command.text()) or "not noticed"
            self.note("plan", unit.stage, how, extra, intact=sum(final.get(part) != before[part] for part in before))

    def tear_claims(self, count: int) -> None:
        """Truncates claims on several parts of a cache; a process takes them over after watching them for a minute."""
        while count > 0:
            unit = self.choose("propose")
            parts = [Path(part).name for part in self.stamps(unit)][:count]
            self.reset(unit)
            claims = self.work / unit.folders[0] / "claims"
            claims.mkdir(parents=True)
            for name in parts:
                (claims / name).write_text('{"host": "another", "pi')
            command = self.expect(self.start_unit(unit))
            self.compare(f"{WORDS['claim']} in {unit.stage}", unit)
            how = f"{sign(command.text())} ({time.monotonic() - command.started:.0f} s)"
            for _ in parts:
                self.note("claim", unit.stage, how, (command.seconds - self.cost[unit]) / len(parts))
            count -= len(parts)

    def tear_checkpoint(self, count: int) -> None:
        """Kills the training of a network after its first checkpoint, truncates or flips that, and resumes."""
        if not any(unit.stage == "pretrain" for unit in self.units):
            self.not_done.append(f"{WORDS['checkpoint']}: not done, the recipe trains no network")
            return
        while count > 0:
            unit = self.choose("pretrain")
            self.reset(unit)
            command = self.start_unit(unit)
            folder = self.work / unit.folders[0]
            while not (checkpoints := list(folder.glob("checkpoint-*.npz"))) and command.running():
                time.sleep(0.003)
            command.signal_group(signal.SIGKILL)
            command.wait()
            if not checkpoints or not checkpoints[0].exists():  # the part was finished meanwhile
                continue
            count -= 1
            spoil(checkpoints[0], self.random.choice(("truncate", "flip")), self.random)
            again = self.expect(self.start_unit(unit))
            self.compare(f"{WORDS['checkpoint']} in {unit.stage}", unit)
            used = "resuming after epoch" in again.text()
            if used:
                self.problem("a damaged checkpoint was used")
            how = "used" if used else "not used, as its SHA-256 is wrong; the part was started again"
            self.note("checkpoint", unit.stage, how, command.seconds + again.seconds - self.cost[unit])

    def fill_disk(self, count: int) -> None:
        """Runs a stage on a tmpfs that is too small for its cache, enlarges it and resumes."""
        disk = self.folder / "disk"
        disk.mkdir(exist_ok=True)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(disk)], capture_output=True)
        if mounted.returncode:
            self.not_done.append(f"{WORDS['disk']}: not done, this user may not mount a tmpfs")
            return
        try:
            shutil.copytree(self.reference, disk / "work")
            for _ in range(count):
                self.fill_disk_once(disk)
        finally:
            subprocess.run(["umount", str(disk)], check=False)

    def fill_disk_once(self, disk: Path) -> None:
        """Fills the disk with a random stage, once."""
        work = disk / "work"
        fitted = True
        while fitted:
            unit = self.choose()
            size = sum(path.stat().st_size for folder in unit.folders for path in (work / folder).glob("*"))
            self.reset(unit, work)
            state = os.statvfs(disk)
            used = (state.f_blocks - state.f_bfree) * state.f_frsize
            room = int(used + self.random.uniform(0.05, 0.95) * size) // 4096 * 4096
            subprocess.run(["mount", "-o", f"remount,size={room}", str(disk)], check=True)
            command = self.expect(self.start_unit(unit, work=work), 0, 2)
            fitted = command.status == 0
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        kept = self.stamps(unit, work)
        again = self.expect(self.start_unit(unit, work=work))
        self.compare(f"{WORDS['disk']} in {unit.stage}", unit, work)
        final = self.stamps(unit, work)
        lost = sum(final.get(part) != kept[part] for part in kept)
        how = f"{sign(command.text()) or 'another message'}; then {resumed(again.text())}"
        self.note("disk", unit.stage, how, command.seconds + again.seconds - self.cost[unit], intact=lost)

    # Everything

    def disturb(self, counts: Counter[str]) -> None:
        """Injects all faults, in random order."""
        tasks: list[Callable[[], None]] = []
        for kind in ("kill", "term"):
            for unit, count in shares(counts[kind], self.units):
                tasks.append(partial(self.interrupt, kind, unit, count))
        for kind in ("worker", "main"):
            tasks.append(partial(self.kill_with_workers, kind, counts[kind]))
        for kind in ("truncate", "flip", "header", "manifest", "part", "bit", "view", "foreign"):
            tasks.append(partial(self.damage, kind, counts[kind]))
        for once, kind in (
            (self.writers, "writers"),
            (self.stop, "stop"),
            (self.tear_plan, "plan"),
            (self.tear_claims, "claim"),
            (self.tear_checkpoint, "checkpoint"),
        ):
            tasks.append(partial(once, counts[kind]))
        if counts["disk"]:
            tasks.append(partial(self.fill_disk, counts["disk"]))
        self.random.shuffle(tasks)
        for task in tasks:
            if time.monotonic() < self.deadline:
                task()
        missing = counts - Counter(fault.kind for fault in self.faults)
        for kind, count in missing.items():
            if not any(WORDS[kind] in sentence for sentence in self.not_done):
                self.not_done.append(f"{WORDS[kind]}: {count} not done for lack of time")

    def last(self) -> None:
        """Runs the recipe once more with the real command, verifies every byte and compares everything."""
        self.expect(self.start("run", real=True))
        if self.verify().status:
            self.problem("cache verify found damage after the last run")
        self.compare("the last run")


def shares(count: int, units: Sequence[Unit]) -> list[tuple[Unit, int]]:
    """Distributes `count` faults evenly over the stages, and within a stage over its units."""
    stages = list(dict.fromkeys(unit.stage for unit in units))
    given: Counter[Unit] = Counter()
    for number in range(count):
        own = [unit for unit in units if unit.stage == stages[number % len(stages)]]
        given[own[number // len(stages) % len(own)]] += 1
    return list(given.items())


def await_workers(command: Command) -> float:
    """Waits for the first worker process; returns the monotonic time at which it appeared."""
    while command.running() and not command.workers():
        time.sleep(0.02)
    return time.monotonic()


def resumed(text: str) -> str:
    """How a command continued after an interruption, from its output."""
    if "resuming after epoch" in text:
        return "resumed from the checkpoint"
    if "resuming: " in text:
        return "resumed from the finished parts"
    return (
        "was complete" if ": complete (" in text and ": done (" not in text else "no part was finished; started again"
    )


def sign(text: str) -> str | None:
    """What a command's output says about a fault; None if nothing."""
    return next((meaning for words, meaning in SIGNS.items() if words in text), None)


def noticed(path: Path, texts: Sequence[str], verify_first: bool) -> str:
    """Which command named the damaged file first, and how."""
    for number, text in enumerate(texts):
        for line in text.splitlines():
            if str(path) in line:
                by_verify = verify_first == (number == 0)
                reason = "missing" if "missing" in line else "damaged"
                return f"named as {reason} by {'cache verify' if by_verify else 'the next run'}"
    return "written again by the next run from the parts" if path.name == "manifest.json" else "not noticed"


def spoil(path: Path, kind: str, chance: random.Random) -> None:
    """Truncates or removes a file, flips a bit in it, or replaces a part by another cache's, depending on `kind`."""
    if kind == "view":
        kind = chance.choice(("part", "truncate", "bit"))
    if kind in ("manifest", "part"):
        path.unlink()
    elif kind == "foreign":
        block, data = path.read_bytes()[:USER_BLOCK], path.read_bytes()[USER_BLOCK:]
        header = json.loads(block)
        write_part(path, {name: header[name] for name in NAMED} | {"key": header["key"][::-1]}, data)
    elif kind == "truncate":
        cut(path, chance)
    else:
        content = bytearray(path.read_bytes())
        first, end = {"header": (0, USER_BLOCK), "bit": (0, len(content))}.get(kind, (USER_BLOCK, len(content)))
        place = chance.randrange(first, end)
        content[place] ^= 1 << chance.randrange(8)
        path.write_bytes(content)


def cut(path: Path, chance: random.Random) -> None:
    """Truncates a file at a random place."""
    os.truncate(path, chance.randrange(path.stat().st_size))


def counts_of(faults: int, without: Sequence[str], only: str | None = None) -> Counter[str]:
    """The number of faults of each kind: at least one each, most of them kills; or all of the kind `only`."""
    if only:
        return Counter({only: faults})
    counts = Counter(
        {kind: max(1, round(faults * share / 200)) for kind, share in OF_TWO_HUNDRED.items() if kind not in without}
    )
    counts["kill"] = max(1, faults - counts.total())
    return counts


def table(chaos: Chaos) -> str:
    """Markdown tables of the faults by kind, and of the kills by stage."""
    lines = [
        "| fault | count | how it was noticed | processor seconds repeated per fault, median (max.) | "
        "damaged parts made again | intact parts made again |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for kind, words in WORDS.items():
        if chosen := [fault for fault in chaos.faults if fault.kind == kind]:
            lines.append(row(words, chosen))
    lines.append(f"| **all** | **{len(chaos.faults)}** | | | | |")
    lines += ["", "| SIGKILL of the whole group in | count | the next run | seconds | | intact parts made again |"]
    lines.append("|---|---:|---|---:|---:|---:|")
    for stage in dict.fromkeys(unit.stage for unit in chaos.units):
        chosen = [fault for fault in chaos.faults if fault.kind == "kill" and fault.stage == stage]
        if chosen:
            lines.append(row(stage, chosen))
    return "\n".join(lines + [""] + [f"- {sentence}" for sentence in chaos.not_done])


def row(name: str, faults: Sequence[Fault]) -> str:
    """One line of the table."""
    how = "; ".join(f"{words} ({count})" for words, count in Counter(fault.noticed for fault in faults).most_common())
    seconds = [max(0.0, fault.seconds) for fault in faults]
    cost = f"{statistics.median(seconds):.2f} ({max(seconds):.2f})"
    parts = f"{sum(fault.damaged for fault in faults)} | {sum(fault.intact for fault in faults)}"
    return f"| {name} | {len(faults)} | {how} | {cost} | {parts} |"


def verdict(chaos: Chaos, seconds: float) -> str:
    """What was compared, and whether it was identical."""
    caches = contents(chaos.reference)
    parts = sum(len(value[0]) for value in caches.values())
    mean = {name: value[1]["summary"].get("map_11") for name, value in caches.items()}
    maps = ", ".join(f"{name}: {value:.6f}" for name, value in mean.items() if value is not None)
    ending = (
        "all identical to the undisturbed run's"
        if not chaos.problems
        else "NOT IDENTICAL, or something went wrong:\n" + "\n".join(f"- {problem}" for problem in chaos.problems)
    )
    return (
        f"{len(chaos.faults)} faults in {seconds / 60:.1f} minutes, {chaos.commands} commands; "
        f"{len(caches)} caches of {parts} parts, mAP ({maps}): {ending}"
    )


def main() -> None:
    """Injects the faults and prints the tables; exit status 1 if anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="small", help="small (that of the tests) or a file")
    parser.add_argument("--part-size", type=int, help="items per part [small: 3, else the stage's]")
    parser.add_argument(
        "--without", action="append", choices=WORDS, default=[], help="leave out a kind of fault; repeatable"
    )
    parser.add_argument("--only", choices=WORDS, help="only this kind of fault")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no further faults after this long")
    parser.add_argument("--output", type=Path, help="also write the table to this Markdown file")
    parser.add_argument("--keep", type=Path, help="work in this new folder and keep it")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    small = arguments.recipe == "small"
    recipe = write_recipe(folder, SMALL) if small else Path(arguments.recipe).resolve()
    size = arguments.part_size or (PART_SIZE if small else None)
    chaos = Chaos(recipe, folder.resolve(), random.Random(arguments.seed), size)
    started = time.monotonic()
    try:
        import_libraries()
        chaos.deadline = started + 60 * arguments.minutes
        with contextlib.suppress(TooManyProblems):
            chaos.undisturbed()
            if not chaos.problems:
                chaos.disturb(counts_of(arguments.faults, arguments.without, arguments.only))
                chaos.last()
        text = f"{table(chaos)}\n{verdict(chaos, time.monotonic() - started)}\n"
        print(text)
        if arguments.output:
            arguments.output.write_text(text)
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if chaos.problems else 0)


if __name__ == "__main__":
    main()
