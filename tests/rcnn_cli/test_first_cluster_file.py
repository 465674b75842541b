"""`rcnn submit --init`: what sinfo prints on clusters of several kinds, and the cluster.toml that follows from it."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rcnn_cli.clusters.cluster_file import ClusterError, load_cluster
from rcnn_cli.clusters.first_file import first_file
from rcnn_cli.clusters.partitions import Nodes, parse_gpus, parse_limit, parse_partitions
from rcnn_cli.recipes.packaged import packaged
from rcnn_cli.recipes.recipe import load_recipe
from tests.in_process import caller

Call = Callable[..., tuple[int, str, str]]
UNIVERSITY = """\
cpu*|up|7-00:00:00|112|64|257000|mixed|(null)|
cpu*|up|7-00:00:00|20|64|257000|allocated|(null)|
cpu*|up|7-00:00:00|3|64|257000|drained*|(null)|
cpu*|up|7-00:00:00|1|64|257000|down*|(null)|
bigmem|up|7-00:00:00|4|128|2063000|idle|(null)|
gpu|up|2-00:00:00|9|64|515000|mixed|gpu:a100:4(S:0-1)|
gpu|up|2-00:00:00|1|64|515000|draining|gpu:a100:4(S:0-1)|
gpu|up|2-00:00:00|2|40|385000|idle~|gpu:v100:8(S:0-1),nvme:1|
debug|up|30:00|2|64|257000|idle|gpu:a100:1(S:0)|
old|down|infinite|8|16|64000|idle|(null)|
"""
ONLY_GPUS = """\
batch*|up|infinite|6|96|1031000|mixed|gpu:h100:8(S:0-1),shard:h100:80(S:0-1)|
interactive|up|4:00:00|6|96|1031000|mixed|gpu:h100:8(S:0-1),shard:h100:80(S:0-1)|
"""
NO_GPUS = """\
short*|up|1:00:00|2|4|7800|idle|(null)|
long|up|14-00:00:00|3|16|64000|idle|(null)|
long|up|14-00:00:00|1|32|48000|idle|(null)|
"""
NO_DEFAULT_NO_MEMORY = "lab|up|infinite|1|4|1|idle|(null)|\n"


def text_for(sinfo: str, recipe: str | None = "shapes-finetuned") -> str:
    """The file for a cluster with this sinfo."""
    return first_file(parse_partitions(sinfo), load_recipe(packaged()[recipe].path) if recipe else None)


def tables(sinfo: str, recipe: str | None = "shapes-finetuned") -> dict[str, Any]:
    """The tables of the file for a cluster with this sinfo."""
    return tomllib.loads(text_for(sinfo, recipe))


# What sinfo prints


def test_partitions_have_the_nodes_that_take_jobs() -> None:
    cpu, bigmem, gpu, debug = parse_partitions(UNIVERSITY)
    assert (cpu.name, cpu.default, cpu.limit, cpu.nodes, cpu.out) == (
        "cpu",
        True,
        7 * 1440,
        (Nodes(132, 64, 257000),),
        4,
    )
    assert (bigmem.default, bigmem.cpus, bigmem.out) == (False, 4 * 128, 0)
    assert gpu.nodes == (Nodes(9, 64, 515000, (("a100", 4),)), Nodes(2, 40, 385000, (("v100", 8),)))
    assert (gpu.out, gpu.gpus, gpu.gpu_types) == (1, 9 * 4 + 2 * 8, ["a100", "v100"])
    assert (debug.limit, debug.gpus) == (30, 2)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("infinite", None),
        ("UNLIMITED", None),
        ("n/a", None),
        ("2-12:30:00", 3630),
        ("1-00:00:00", 1440),
        ("4:00:00", 240),
        ("30:00", 30),
        ("0:30", 0),
    ],
)
def test_time_limits(text: str, minutes: int | None) -> None:
    assert parse_limit(text) == minutes


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", ()),
        ("", ()),
        ("gpu:4", (("", 4),)),
        ("gpu", (("", 1),)),
        ("gpu:a100:4(S:0-1)", (("a100", 4),)),
        ("gpu:a100:2(S:0),gpu:a100:2(S:1)", (("a100", 4),)),
        ("gpu:a100_1g.5gb:7(S:0-1),gpu:a100:1(S:0)", (("a100_1g.5gb", 7), ("a100", 1))),
        ("nvme:1,gpu:tesla:2(IDX:0,1),license:3", (("tesla", 2),)),
        ("gpu:v100", (("v100", 1),)),
        ("gpu:0", ()),
        ("shard:h100:80(S:0-1)", ()),
    ],
)
def test_gpus_among_the_generic_resources(gres: str, gpus: tuple[tuple[str, int], ...]) -> None:
    assert parse_gpus(gres) == gpus


@pytest.mark.parametrize(
    "row",
    ["PARTITION AVAIL", "cpu|up|1:00|2|64|257000|idle|(null)", "cpu|up|soon|2|64|257000|idle|(null)|", "|||||||||"]
    + ["cpu|up|1:00|two|64|257000|idle|(null)|", "|up|1:00|2|64|257000|idle|(null)|", ""],
)
def test_other_output_is_an_error_that_shows_it(row: str) -> None:
    with pytest.raises(ClusterError, match=r"^sinfo: printed .* which is not a partition; see what `sinfo"):
        parse_partitions(f"{row}\n")


def test_counts_with_a_plus_are_the_least() -> None:
    (mixed,) = parse_partitions("all*|up|infinite|5|16+|64000+|mixed|(null)|\n")
    assert mixed.nodes == (Nodes(5, 16, 64000),)


# The file


def test_processors_and_gpus_have_partitions_of_their_own() -> None:
    made = tables(UNIVERSITY)
    assert made["default"] == {"partition": "cpu", "time": "04:00:00", "cpus": 8, "memory": "31G"}
    assert made["propose"] == {"array": 8}
    # 64 cores for 4 GPUs, 40 for 8: five for each GPU, and the memory that goes with them on the poorer nodes
    assert made["extract"] == {
        **{"partition": "gpu", "time": "04:00:00", "cpus": 5, "memory": "39G", "gpus": 1},
        "array": 4,
    }
    assert made["finetune"] == {name: value for name, value in made["extract"].items() if name != "array"}
    assert "eval" not in made
    assert "--gres=gpu:a100:1" in text_for(UNIVERSITY)


def test_a_cluster_of_gpus_alone() -> None:
    made = tables(ONLY_GPUS)
    assert made["default"] == {"partition": "batch", "time": "04:00:00", "cpus": 8, "memory": "83G"}
    assert (made["extract"]["partition"], made["extract"]["gpus"], made["extract"]["array"]) == ("batch", 1, 4)
    assert "of any type" not in text_for(ONLY_GPUS)


def test_a_cluster_without_gpus_whose_default_is_for_short_jobs() -> None:
    made = tables(NO_GPUS)
    # 48000 MiB for 32 cores is the least for each core: 11.7 GiB for eight
    assert made["default"] == {"partition": "long", "time": "04:00:00", "cpus": 8, "memory": "11G"}
    assert made["extract"] == {"array": 8}
    assert "no partition has GPUs" in text_for(NO_GPUS)
    assert tables(NO_GPUS.splitlines()[0])["default"] == {
        **{"partition": "short", "time": "01:00:00", "cpus": 4, "memory": "7G"}
    }


def test_memory_that_slurm_does_not_know_is_left_out() -> None:
    made = tables(NO_DEFAULT_NO_MEMORY)
    assert made == {"default": {"partition": "lab", "time": "04:00:00", "cpus": 4}}


def test_the_comments_list_the_partitions() -> None:
    lines = text_for(UNIVERSITY).splitlines()
    assert "# cpu*       7-00:00:00  132, 4 not in service  64          250         none" in lines
    assert "# gpu        2-00:00:00  11, 1 not in service   40 to 64    375 to 502  4 a100 or 8 v100" in lines
    assert not any(line.startswith("# old") for line in lines)
    assert all(len(line) <= 120 for line in lines)


@pytest.mark.parametrize("sinfo", [UNIVERSITY, ONLY_GPUS, NO_GPUS, NO_DEFAULT_NO_MEMORY])
@pytest.mark.parametrize("name", [None, *(name for name in packaged() if not name.startswith("grids/"))])
def test_submit_takes_the_file_of_every_recipe(name: str | None, sinfo: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(text_for(sinfo, name))
    cluster = load_cluster(path, load_recipe(packaged()[name or "shapes"].path))
    assert all(resources.cpus <= 8 for resources in cluster.tables.values())


# The command


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`rcnn` in this process, in an empty folder, with an empty PATH."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return caller(capsys)


def install_sinfo(program: str) -> None:
    """A sinfo that runs this Python."""
    Path("bin/sinfo").write_text(f"#!{sys.executable} -I\n{program}")
    Path("bin/sinfo").chmod(0o755)


def test_the_command_writes_a_file_once(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SINFO_PARTITION", "elsewhere")
    install_sinfo(f"import os\nassert 'SINFO_PARTITION' not in os.environ\nprint({UNIVERSITY!r}, end='')")
    code, printed, _ = call("submit", "--init", "shapes", "--dry-run")
    assert (code, printed, Path("cluster.toml").exists()) == (0, text_for(UNIVERSITY, "shapes"), False)
    code, printed, _ = call("submit", "shapes", "--init")
    assert (code, "cluster.toml written; edit it" in printed) == (0, True)
    assert Path("cluster.toml").read_text() == text_for(UNIVERSITY, "shapes")
    Path("cluster.toml").write_text("# mine\n")
    code, _, said = call("submit", "shapes", "--init")
    assert (code, said.splitlines()[-1]) == (
        2, "rcnn: cluster.toml: already exists; name another file with --cluster, or move it away"
    )  # fmt: skip
    assert Path("cluster.toml").read_text() == "# mine\n"
    assert call("submit", "--init", "--cluster", "all.toml")[0] == 0
    assert Path("all.toml").read_text() == text_for(UNIVERSITY, None)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (None, "sinfo: not found; run this on a machine with Slurm's commands in PATH"),
        (
            "import sys\nsys.exit('sinfo: error: no controller')",
            "sinfo: failed (no controller); run this on a login node",
        ),
        ("print('cpu*|up|1:00:00|3|8|16000|down*|(null)|')", "sinfo: shows no partition with a node that takes jobs"),
        ("", "sinfo: shows no partition with a node that takes jobs"),
    ],
)
def test_where_sinfo_does_not_help_a_sentence_says_so(program: str | None, said: str, call: Call) -> None:
    if program is not None:
        install_sinfo(program)
    code, _, errors = call("submit", "--init")
    assert (code, said in errors, len(errors.splitlines())) == (2, True, 1), errors
    assert not Path("cluster.toml").exists()


def test_submit_needs_a_recipe(call: Call) -> None:
    code, _, errors = call("submit")
    assert (code, "Missing argument 'RECIPE'" in errors) == (2, True)
