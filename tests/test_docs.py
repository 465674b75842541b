"""README and docs: links lead somewhere, and the command lines in their blocks are ones that the commands take."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_lines import ASSIGNMENT, PROJECT, check

CONTRIBUTING = PROJECT / "CONTRIBUTING.md"  # its command lines are run by test_contributing.py
PAGES = [PROJECT / "README.md", CONTRIBUTING, PROJECT / "CHANGELOG.md", *sorted((PROJECT / "docs").glob("*.md"))]
FENCE = re.compile(r"^\s*```(\w*)[^\n]*\n(.*?)^\s*```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^]\[]*\]\(([^)\s]+)\)")
OUTSIDE = ("http://", "https://", "mailto:")
SHELL = ("", "sh", "bash", "console")


def prose(text: str) -> str:
    """The page without its blocks and spans of code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return names


def broken_links(page: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    broken = []
    for target in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if target.startswith(OUTSIDE):
            continue
        name, _, anchor = target.partition("#")
        file = page if not name else page.parent / name
        there = file.exists() and (not anchor or anchor in anchors(file.read_text(encoding="utf-8")))
        broken += [] if there else [target]
    return broken


def command_lines(page: Path) -> Iterator[str]:
    """Every line of a page's blocks of shell that calls `rcnn`, continued lines joined."""
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language not in SHELL:
            continue
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            words = line.strip().removeprefix("$ ").split(" #")[0].split()
            while words and ASSIGNMENT.fullmatch(words[0]):
                del words[0]
            if words and words[0].rpartition("/")[2] == "rcnn":
                yield line.strip().removeprefix("$ ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_reader_finds_every_page() -> None:
    seen, todo = set(), [PAGES[0]]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = [one.partition("#")[0] for one in LINK.findall(page.read_text(encoding="utf-8"))]
        todo += [(page.parent / one).resolve() for one in targets if one.endswith(".md") and "://" not in one]
    assert {page.name for page in PAGES} == {page.name for page in seen}


@pytest.mark.parametrize("page", [page for page in PAGES if page != CONTRIBUTING], ids=lambda page: page.name)
def test_command_lines_parse(page: Path) -> None:
    for line in command_lines(page):
        check(line)


def test_there_are_command_lines_to_parse() -> None:
    found = {page.name: list(command_lines(page)) for page in PAGES}
    assert len(found["README.md"]) > 8
    assert len(found["overview.md"]) > 15
    assert ".venv/bin/rcnn data fetch voc2007 data                # checksums" in " ".join(found["overview.md"])
    assert sum(map(len, found.values())) > 35


def test_what_is_wrong_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `thing`, two\n[a](#one-thing-two) [b](#none) [c](other.md) [d](page.md#one) `[e](f.md)` ![g](g.png)\n"
        "```\n$ A=b rcnn run \\\n    x.toml --onyl y   # why\nls rcnn\n```\n```toml\nrcnn = 1\n```\n"
    )
    assert broken_links(page) == ["#none", "other.md", "page.md#one", "g.png"]
    (line,) = command_lines(page)
    assert line == "A=b rcnn run  x.toml --onyl y   # why"
    with pytest.raises(Exception, match="--onyl"):
        check(line)


TRAINED_ON = """
Difficult objects are trained on like any others, as in R-CNN's release, unless `difficult = "ignore"` makes them
neither positives nor negatives; a crowd (COCO's `iscrowd`) is never an example, and a proposal inside one is never a
negative; in evaluation, neither counts as missed or as found."""


@pytest.mark.parametrize("name", ["recipes", "tutorial-in-depth", "finetune"])
def test_what_is_trained_on_is_said_in_the_same_words(name: str) -> None:
    page = (PROJECT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert " ".join(TRAINED_ON.split()) in " ".join(page.split())
