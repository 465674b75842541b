"""`submit --dry-run`, cluster.toml, `status` and `wait`, without a Slurm."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cache import Identity, Schema
from cache.plan import Plan, write_plan
from rcnn_cli.clusters.jobs import Job, missing_tasks, read_jobs, record_path, write_jobs
from rcnn_cli.clusters.slurm import TaskState
from rcnn_cli.clusters.slurm_scripts import log_file
from tests.in_process import caller

RECIPE = """
[datasets.train]
source = "shapes:train"
images = 3
[network]
name = "shapenet"
weights = "random"
[propose]
method = "sliding-window"
max_boxes = 5
[extract]
layers = ["pool4"]
"""
CLUSTER = """
[default]
partition = "cpu"
account = "vision"
time = "01:00:00"
setup = ["module load python", ". env/bin/activate"]
command = "rcnn"

[propose]
array = 4
array_at_once = 2
cpus = 8

[extract]
partition = "gpu"
memory = "32G"
gpus = 1
requeue = false
sbatch = ["--constraint=a100", "--qos=long"]
options = ["--batch-size", "256"]
"""
GOLDEN = Path(__file__).with_name("submit-dry-run.txt")


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    """Calls `rcnn` in this process in a folder with r.toml and cluster.toml: (exit code, output, errors)."""
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "cluster.toml").write_text(CLUSTER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("RCNN_WORK", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0})
    return caller(capsys)


def test_dry_run_prints_the_scripts(call, tmp_path):
    code, printed, _ = call("submit", "r.toml", "--set", "propose.scales=[0.5, 0.75]", "--dry-run")
    assert code == 0
    assert (
        re.sub(r"@train\.[0-9a-f]{8}\n", "@train.DIGITS\n", printed.replace(str(tmp_path), "/project"))
        == GOLDEN.read_text()
    )


def test_dry_run_leaves_out_what_is_complete_and_the_shards_that_are_done(call):
    call("propose", "r.toml", "--part-size", "1", "--shard", "2/4", "--split", "train")
    assert "#SBATCH --array=1,3%2\n" in call("submit", "r.toml", "--dry-run")[1]
    call("propose", "r.toml")
    _, printed, _ = call("submit", "r.toml", "--dry-run")
    assert "propose@train" not in printed
    assert "--dependency" not in printed
    assert printed.count("#!/bin/bash") == 1


def test_scripts_are_shell(call):
    _, printed, _ = call("submit", "r.toml", "--set", 'description=it\'s a "file" of $HOME', "--dry-run")
    for script in printed.split("#!/bin/bash"):
        assert subprocess.run(["/bin/bash", "-n"], input=script, text=True).returncode == 0
    line = next(line for line in printed.splitlines() if line.startswith("exec "))
    shown = subprocess.run(
        ["/bin/bash", "-c", line.replace("exec rcnn", "printf '%s\\n'")], capture_output=True, text=True
    )
    assert 'description=it\'s a "file" of $HOME' in shown.stdout.splitlines()


def test_folders_of_any_name(call, tmp_path):
    folder = tmp_path / 'it\'s a "work" folder, 100%j #1 $HOME'
    printed = call("submit", "r.toml", "--work", folder, "--dry-run")[1]
    said = re.search(r'^#SBATCH --output="(.*)"$', printed, re.MULTILINE)
    assert said
    pattern = said[1].replace('\\"', '"')
    assert log_file(pattern, "12", 3) == folder / "logs" / "r-propose@train-12_3.log"
    for name in ("back\\slash", "two\nlines"):
        code, _, errors = call("submit", "r.toml", "--work", tmp_path / name, "--dry-run")
        assert (code, "a backslash or a control character in its name; choose another --work" in errors) == (2, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[extrakt]\ngpus = 1", "[extrakt] is neither a stage nor a table of r.toml, did you mean 'extract'?"),
        ("[extract]\ngpu = 1", "[extract]: unknown setting 'gpu', did you mean 'gpus'?"),
        ("[extract]\ntime = 01:00:00", "time = datetime.time(1, 0) must be a string"),
        ("[extract]\narray = 0", "array = 0 must be at least 1"),
        ("[default]\narray = 4", "[default] must not set array, which cannot suit every stage"),
        ("extract = 4", "'extract' must be a table, [extract]"),
        ('[extract]\naccount = ""', "account = '' must be one line of text"),
        ("[extract]\ncommand = 'rcnn\\n'".replace("'", '"'), "command = 'rcnn\\n' must be one line of text"),
        ('[extract]\nsbatch = ["constraint=a100"]', "sbatch = 'constraint=a100' is not an sbatch option"),
        ('[extract]\nsbatch = ["--array=1-3"]', "rcnn submit sets --array itself"),
        ('[extract]\nsbatch = ["-Jname"]', "rcnn submit sets -J"),
        ("[extract]\nsbatch = ['--comment=\"a']", "has an unclosed quotation mark"),
        ("[extract\n", "is not valid TOML"),
        ("[[extract]]\n", "'extract' must be a table"),
        ("default = 4", "'default' must be a table"),
    ],
)
def test_a_wrong_cluster_file_is_a_sentence(call, tmp_path, text, said):
    (tmp_path / "cluster.toml").write_text(text)
    code, _, errors = call("submit", "r.toml", "--dry-run")
    assert (code, errors.startswith("rcnn: cluster.toml: "), said in errors) == (2, True, True), errors


def test_without_a_cluster_file_or_slurm(call):
    code, _, errors = call("submit", "r.toml", "--cluster", "none.toml")
    assert (code, "none.toml: there is no such file" in errors) == (2, True)
    code, _, errors = call("submit", "r.toml")
    assert (code, errors) == (2, "rcnn: squeue: not found; run this on a machine with Slurm's commands in PATH\n")


def test_status_shows_recorded_jobs_without_slurm(call, tmp_path):
    assert "job" not in call("status", "r.toml")[1]
    states = json.loads(call("status", "r.toml", "--json")[1])
    record = record_path(tmp_path / "work", "r")
    key = states[0]["key"]
    job = Job("12", "r-propose@train", "propose@train", key, 4, (1, 2, 3, 4), (), str(tmp_path / "%A_%a.log"))
    write_jobs(record, [job])
    assert read_jobs(record) == [job]
    code, printed, _ = call("status", "r.toml")
    assert code == 1
    assert "propose@train  missing  [job 12: state unknown (squeue: not found;" in printed
    call("propose", "r.toml")
    assert "job" not in call("status", "r.toml")[1]
    record.write_text('{"jobs": [{}]}')
    code, _, errors = call("status", "r.toml")
    assert (code, "r.json: is not a record of jobs; delete it" in errors) == (2, True)


def test_the_shards_that_have_parts_to_make(tmp_path):
    assert missing_tasks(tmp_path, 3) == [1, 2, 3]
    assert write_plan(tmp_path, Plan(Identity("propose", 1), tuple("abcdefg"), Schema(), 1))
    for index in (0, 1, 3, 4, 6):
        (tmp_path / f"part-{index:05d}.h5").touch()
    assert missing_tasks(tmp_path, 3) == [3]
    assert missing_tasks(tmp_path, 7) == [3, 6]
    for index in (2, 5):
        (tmp_path / f"part-{index:05d}.h5").touch()
    assert missing_tasks(tmp_path, 3) == [1]


def test_a_task_that_is_gone_without_its_parts_has_failed(tmp_path):
    job = Job("12", "r-propose", "propose", "key", 2, (1, 2), (), "")
    running, pending = TaskState("RUNNING", "None", "r-propose"), TaskState("PENDING", "Resources", "r-propose")
    never = TaskState("PENDING", "DependencyNeverSatisfied", "r-propose")
    another = TaskState("RUNNING", "None", "another user's job of the same number")
    assert job.failed({("12", 1): running, ("12", 2): pending}, tmp_path) == []
    assert job.failed({("12", 1): running, ("12", 2): never}, tmp_path) == [2]
    assert job.failed({("12", 1): running, ("12", 2): another}, tmp_path) == [2]
    assert job.failed({}, tmp_path) == [1, 2]
    assert write_plan(tmp_path, Plan(Identity("propose", 1), ("a", "b"), Schema(), 1))
    (tmp_path / "part-00000.h5").touch()
    assert job.failed({}, tmp_path) == [2]
    (tmp_path / "part-00001.h5").touch()
    assert job.failed({("12", 2): running}, tmp_path) == []
    assert job.failed({}, tmp_path) == [2]


def test_wait_ends_when_the_caches_are_complete(call, tmp_path):
    call("status", "r.toml")
    code, _, errors = call("wait", "r.toml", "propose", "--timeout", "0.5")
    assert (code, "waiting for propose@train, missing" in errors) == (1, True)
    assert re.search(r"not complete after 0\.\d s: propose@train, missing", errors)
    line = [sys.executable, "-m", "rcnn_cli", "propose", "r.toml"]
    project = str(Path(__file__).parents[2])
    other = subprocess.Popen(line, cwd=tmp_path, env={"PYTHONPATH": project, "OMP_NUM_THREADS": "1"})
    code, _, errors = call("wait", "r.toml", "propose@train", "--timeout", "60")
    assert other.wait() == 0
    assert (code, "propose@train: complete" in errors) == (0, True)
    code, _, errors = call("wait", "r.toml", "extrakt")
    assert (code, "did you mean 'extract'?" in errors) == (2, True)


def test_one_cache_alone(call):
    code, _, errors = call("run", "r.toml", "--shard", "1/2")
    assert (code, "--shard: divides one cache; name it with --only" in errors) == (2, True)
    code, _, errors = call("run", "r.toml", "--only", "extract@train")
    assert (code, "extract@train needs propose@train, which is not complete" in errors) == (2, True)
    for shard in ("1/2", "2/2"):
        assert call("run", "r.toml", "--only", "propose@train", "--part-size", "1", "--shard", shard)[0] == 0
    assert call("run", "r.toml", "--only", "extract@train")[0] == 0
    assert call("status", "r.toml")[0] == 0


def test_an_input_that_nobody_closed_is_closed(call, tmp_path):
    call("propose", "r.toml")
    manifest = next((tmp_path / "work").glob("caches/propose/*/manifest.json"))
    manifest.unlink()
    assert call("run", "r.toml", "--only", "extract@train")[0] == 0
    assert manifest.exists()


def test_a_damaged_input_is_set_aside_and_submitted_again(call, tmp_path):
    call("propose", "r.toml")
    part = next((tmp_path / "work").glob("caches/propose/*/part-00000.h5"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    part.write_bytes(content)
    code, _, errors = call("run", "r.toml", "--only", "extract@train")
    assert (code, "damaged" in errors) == (2, True)
    assert "propose@train" in call("submit", "r.toml", "--dry-run")[1]
