"""What a release consists of agrees with itself: version, Pythons, changes, citation, workflows."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline import PROJECT

CONFIG = configparser.ConfigParser()
CONFIG.read(PROJECT / "setup.cfg", encoding="utf-8")
VERSION = CONFIG["metadata"]["version"]
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))
CITED = {"1311.2524", "1504.08083", "1506.01497", "1312.6229"}
PINNED = re.compile(r"actions/[a-z-]+@v\d+")


def read(path: Path) -> Any:
    """The content of a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def pythons() -> list[str]:
    """The versions of Python that setup.cfg names: "3.11", ..."""
    return re.findall(r"Python :: (3\.\d+)$", CONFIG["metadata"]["classifiers"], re.MULTILINE)


def steps_of(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    """All steps of a workflow's jobs."""
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_the_changes_begin_with_this_version() -> None:
    found = re.search(r"^## (\S+)", (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    assert found[1] == VERSION


def test_the_oldest_python_is_the_one_required_and_checked() -> None:
    assert pythons()[0] == CONFIG["options"]["python_requires"].removeprefix(">=") == CONFIG["mypy"]["python_version"]
    assert pythons() == [f"3.{minor}" for minor in range(int(pythons()[0][2:]), int(pythons()[-1][2:]) + 1)]


def test_the_citation_names_the_software_and_the_papers() -> None:
    """The fields that version 1.2.0 of the Citation File Format requires, and those that say what is cited."""
    citation = read(PROJECT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert (citation["type"], citation["version"], citation["license"]) == ("software", VERSION, "MIT")
    assert citation["message"]
    assert citation["title"].startswith("rcnn")
    assert citation["authors"]
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= reference.keys()
        assert all({"family-names", "given-names"} == author.keys() for author in reference["authors"])
    assert {reference["url"].removeprefix("https://arxiv.org/abs/") for reference in citation["references"]} == CITED


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_one(path: Path) -> None:
    workflow = read(path)
    assert workflow["name"] == path.stem
    assert workflow[True]  # YAML 1.1 reads the key "on" as true
    assert workflow["permissions"] == {"contents": "read"}
    for step in steps_of(workflow):
        assert ("uses" in step) != ("run" in step)
        assert "uses" not in step or PINNED.fullmatch(step["uses"])


def test_the_tests_run_what_ci_runs_on_every_python() -> None:
    workflow = read(PROJECT / ".github" / "workflows" / "tests.yml")
    (job,) = workflow["jobs"].values()
    assert job["strategy"]["matrix"]["python-version"] == pythons()
    last = job["steps"][-1]
    assert last["run"] == "bash .ci/run"
    assert (PROJECT / ".ci" / "run").is_file()
    setup = next(step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/setup-python@"))
    assert setup["cache"] == "pip"
    assert all((PROJECT / name).is_file() for name in setup["cache-dependency-path"].split())
    slurm = re.search(r"install (slurmctld[\w -]+)", (PROJECT / ".ci" / "run").read_text(encoding="utf-8"))
    assert slurm is not None
    assert any(slurm[1].strip() in step.get("run", "") for step in job["steps"])


def test_nothing_is_published() -> None:
    for path in WORKFLOWS:
        words = path.read_text(encoding="utf-8").lower()
        assert not re.search(r"twine|pypi-publish|secrets\.|id-token", words), path


def test_the_page_on_installation_lists_every_extra() -> None:
    page = (PROJECT / "docs" / "installation.md").read_text(encoding="utf-8")
    table = page.split("## Extras")[1].split("\n## ")[0]
    listed = [
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`([\w-]+)`", row)
    ]
    assert sorted(listed) == sorted(CONFIG["options.extras_require"])


def test_the_container_copies_only_what_is_there_and_installs_extras_that_exist() -> None:
    text = (PROJECT / "Containerfile").read_text(encoding="utf-8").replace("\\\n", "")
    copied = [line.split()[1] for line in text.splitlines() if line.startswith("COPY ") and "--from" not in line]
    assert copied == [".", "constraints.txt"]
    assert all((PROJECT / name).exists() for name in copied)
    (extras,) = re.findall(r"\.whl\)\[([\w,]+)\]", text)
    assert set(extras.split(",")) <= set(CONFIG["options.extras_require"])
