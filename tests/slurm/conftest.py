"""A private Slurm of one node, as root or as an ordinary user, without systemd and without an accounting database."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "setpriv")
ORDINARY = "nobody"
READING = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")  # a Python below /root, for example

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# cred_expire is also how long a requeued job waits; less than 5 counts as the 120 of the default
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
MinJobAge=3600
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=2
"""


class Slurm:
    """The daemons, and what tests ask of them. They end with the process that started them, however it ends."""

    def __init__(self, folder: Path, user: str | None = None) -> None:
        self.folder = folder
        self.user = user
        self.host = socket.gethostname().split(".")[0]
        self.variables = {"PATH": SYSTEM_PATH, "SLURM_CONF": str(folder / "slurm.conf")}
        self.environment = {**os.environ, **self.variables}
        self.processes: dict[str, subprocess.Popen] = {}

    @property
    def as_user(self) -> list[str]:
        """What precedes a command that is to run as the cluster's user (who may read where only root may)."""
        if self.user is None:
            return []
        group = pwd.getpwnam(self.user).pw_gid
        return ["setpriv", f"--reuid={self.user}", f"--regid={group}", "--clear-groups", *READING]

    def start(self) -> None:
        """Starts munged, slurmctld and slurmd, and waits until the node is idle."""
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        user = self.user or pwd.getpwuid(os.getuid()).pw_name
        values = {"host": self.host, "user": user, "folder": self.folder}
        ports = {"controller_port": free_port(), "node_port": free_port()}
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(**values, **ports))
        if self.user is not None:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, self.user)
        self.folder.chmod(0o711)  # as munged asks of its socket's folder
        names = {"key": "munge.key", "socket": "munge.sock", "pid": "munged.pid", "log": "munged.log", "seed": "seed"}
        options = [
            f"--{name}{'' if name == 'socket' else '-file'}={self.folder / file}" for name, file in names.items()
        ]
        self.start_daemon("munged", "--foreground", *options)
        self.until((self.folder / "munge.sock").exists, 30, "munged listens")
        self.start_controller()
        self.start_node()
        self.until(lambda: "idle" in self.call("sinfo", "--noheader", "--format=%t"), 60, "the node is idle")

    def start_controller(self) -> None:
        """Starts slurmctld and waits until it answers."""
        self.start_daemon("slurmctld", "-D")
        self.until(lambda: "is UP" in self.call("scontrol", "ping", check=False), 60, "the controller answers")

    def start_node(self) -> None:
        """Starts slurmd."""
        self.start_daemon("slurmd", "-D")

    def start_daemon(self, *line: str) -> None:
        """Starts a daemon that does not detach itself, so that it ends with this process."""
        log = (self.folder / f"{line[0]}.out").open("ab")
        call = ["setpriv", "--pdeathsig", "TERM", *self.as_user[1:], *line]
        self.processes[line[0]] = subprocess.Popen(
            call, env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )

    def stop(self) -> None:
        """Ends all jobs and daemons."""
        with contextlib.suppress(AssertionError, OSError, subprocess.SubprocessError):
            self.end_jobs()
        for name in ("slurmd", "slurmctld", "munged"):
            if name in self.processes:
                self.end(name)

    def end_jobs(self) -> None:
        """Cancels all jobs and waits until they have ended."""
        jobs = self.call("squeue", "--noheader", "--format=%F").split()
        if jobs:
            self.call("scancel", *set(jobs), check=False)
        self.until(self.is_empty, 60, "no job is there")

    def is_empty(self) -> bool:
        """Whether no job is queued or runs."""
        return not self.call("squeue", "--noheader")

    def end(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends one daemon."""
        process = self.processes.pop(name)
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def call(self, *line: object, check: bool = True) -> str:
        """What a command prints, asked by the cluster's user."""
        call = [*self.as_user, *map(str, line)]
        done = subprocess.run(call, env=self.environment, capture_output=True, text=True, timeout=120)
        assert not check or done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    def states(self) -> dict[str, str]:
        """The states of all tasks, by "JOB" or "JOB_TASK"."""
        lines = self.call("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def processes_of(self, task: str) -> list[int]:
        """The processes of a running task, and the daemon that watches over them first."""
        numbers = dict(line.split() for line in self.call("squeue", "--noheader", "--format=%i %A").splitlines())
        listed = [line.split() for line in self.call("scontrol", "listpids", numbers[task]).splitlines()[1:]]
        found = [int(fields[0]) for fields in listed if fields[0] != "-1"]
        watchers = {parent(process) for process in found} - set(found)
        return [*watchers, *found]

    def until(self, holds, seconds: float, what: str) -> None:
        """Waits until something holds; an AssertionError with the daemons' view if it does not."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise AssertionError(f"not so after {seconds} s: {what}\n{self.view()}")
            time.sleep(0.2)

    def view(self) -> str:
        """What squeue shows and the controller's last words, for a failed test."""
        log = self.folder / "slurmctld.log"
        words = log.read_text(errors="replace").splitlines()[-20:] if log.exists() else []
        return "\n".join([self.call("squeue", "--array", "--states=all", check=False), *words])


def parent(process: int) -> int:
    """The process that started `process`."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def running_slurm(user: str | None = None):
    """A Slurm that is up, in a folder of its own; skips the test aloud where it is not installed."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        pytest.skip(
            f"no Slurm to test with ({', '.join(missing)} not installed; .ci/run installs it as root on Debian)"
        )
    folder = Path(tempfile.mkdtemp(prefix="rcnn-slurm-"))
    cluster = Slurm(folder, user)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slurm():
    with running_slurm() as cluster:
        yield cluster


@pytest.fixture
def slurm_of_nobody():
    """A Slurm whose daemons and jobs run as an ordinary user."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user; here the other tests run as an ordinary user anyway")
    if subprocess.run([*Slurm(Path(), ORDINARY).as_user, "true"], capture_output=True).returncode:
        pytest.skip(f"this root may not become {ORDINARY} with leave to read")
    with running_slurm(ORDINARY) as cluster:
        yield cluster
