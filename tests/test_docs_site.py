"""The docs site: every page is in its navigation, its reference has every setting and command, and it builds."""

import dataclasses
import os
import re
import subprocess
import sys

import click
import pytest

from rcnn_cli.main import cli
from stages.contract.catalogue import catalogue
from tests.command_lines import PROJECT

pytest.importorskip("mkdocs", reason="the site is built with the extra `docs`")


@pytest.fixture(scope="module")
def pages():
    from docs.site.generated_pages import generated_pages

    return generated_pages()


def test_every_setting_of_every_stage_is_in_the_reference_with_its_source(pages):
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", pages["reference/settings.md"], re.M | re.S))
    assert list(sections) == list(catalogue())
    for name, stage in catalogue().items():
        for field in dataclasses.fields(stage.settings):
            [row] = re.findall(rf"^\| `{field.name}` \|.*$", sections[name], re.M)
            assert field.metadata["source"].replace("|", "\\|") in row


def test_every_command_is_in_the_reference(pages):
    def titles(command, title):
        yield title
        inner = command.commands if isinstance(command, click.Group) else {}
        for name in (name for name in inner if not inner[name].hidden):
            yield from titles(inner[name], f"{title} {name}")

    for title in titles(cli, "rcnn"):
        assert title == "rcnn" or f"\n### {title}\n" in pages["reference/commands.md"]


def test_every_recipe_is_in_the_reference(pages):
    for path in (PROJECT / "recipes").rglob("*.toml"):
        assert f"\n### {path.stem}\n" in pages["reference/recipes.md"], path


def test_every_page_is_in_the_navigation():
    listed = (PROJECT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in (PROJECT / "docs").glob("*.md"):
        assert re.search(rf"[: ]{path.name}$", listed, re.M), path


def test_the_site_builds_and_its_links_lead_somewhere(tmp_path):
    line = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(
        line, cwd=PROJECT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "encode_deltas" in (tmp_path / "reference" / "mathematics.html").read_text(encoding="utf-8")
    notebook = (tmp_path / "notebooks" / "one-image-four-detectors.html").read_text(encoding="utf-8")
    assert "<mfrac>" in notebook
    assert "$$" not in notebook
