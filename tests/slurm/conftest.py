"""A private Slurm of one node, as root or as an ordinary user, without systemd and without an accounting database."""

from __future__ import annotations

import contextlib
import getpass
import os
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
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# cred_expire is also how long a requeued job waits
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
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """The daemons, and what tests ask of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PATH": SYSTEM_PATH, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """Starts munged, slurmctld and slurmd, and waits until the node is idle."""
        self.folder.chmod(0o711)  # as munged asks of its socket's folder
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        values = {"host": socket.gethostname().split(".")[0], "user": getpass.getuser(), "folder": self.folder}
        ports = {"controller_port": free_port(), "node_port": free_port()}
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(**values, **ports))
        names = {"key": "munge.key", "socket": "munge.sock", "pid": "munged.pid", "log": "munged.log", "seed": "seed"}
        options = [
            f"--{name}{'' if name == 'socket' else '-file'}={self.folder / file}" for name, file in names.items()
        ]
        self.call("munged", *options)
        self.call("slurmctld")
        self.call("slurmd")
        self.until(lambda: "idle" in self.call("sinfo", "--noheader", "--format=%t"), 30, "the node is idle")

    def stop(self) -> None:
        """Ends all jobs and daemons."""
        with contextlib.suppress(AssertionError, OSError):
            self.call("scancel", f"--user={os.getuid()}")
            self.until(lambda: not self.call("squeue", "--noheader"), 15, "no job runs")
        for name in ("slurmd", "slurmctld", "munged"):
            self.end(name)

    def end(self, name: str) -> None:
        """Ends one daemon by its pid file."""
        with contextlib.suppress(OSError, ValueError):
            process = int((self.folder / f"{name}.pid").read_text())
            os.kill(process, signal.SIGTERM)
            self.until(lambda: is_gone(process), 20, f"{name} has ended")

    def call(self, *line: object) -> str:
        """What a command prints."""
        done = subprocess.run(list(map(str, line)), env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    def states(self) -> dict[str, str]:
        """The states of all tasks, by "JOB" or "JOB_TASK"."""
        lines = self.call("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def until(self, holds, seconds: float, what: str) -> None:
        """Waits until something holds; an AssertionError with the daemons' view if it does not."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise AssertionError(f"not so after {seconds} s: {what}\n{self.view()}")
            time.sleep(0.2)

    def view(self) -> str:
        """What squeue shows, for a failed test."""
        line = ["squeue", "--array", "--states=all"]
        return subprocess.run(line, env=self.environment, capture_output=True, text=True, timeout=60).stdout


def is_gone(process: int) -> bool:
    """Whether a process has ended (one that nobody has asked for its exit status has)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="session")
def slurm():
    missing = [name for name in PROGRAMS if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        pytest.skip(
            f"no Slurm to test with ({', '.join(missing)} not installed; .ci/run installs it as root on Debian)"
        )
    folder = Path(tempfile.mkdtemp(prefix="rcnn-slurm-"))
    cluster = Slurm(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
