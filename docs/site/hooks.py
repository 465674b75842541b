"""Hooks of MkDocs: the pages that are generated from the code, and links to files outside docs/."""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

from docs.site.generated_pages import generated_pages

PROJECT = Path(__file__).parents[2]
FROM_TOP = {"CONTRIBUTING.md": "reference/contributing.md", "CHANGELOG.md": "reference/changes.md"}
"""The pages that are files of the top folder."""
ON_SITE = {"README.md": "index.md", **FROM_TOP}
"""Where links to files of the top folder lead."""
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)")
CODE = re.compile(r"(<pre.*?</pre>|<code.*?</code>)", re.DOTALL)
FORMULA = re.compile(r"\$\$([^$]+)\$\$|\$([^$\n<>]+)\$")
FENCE = re.compile(r"^```(\w+) title=(\S+).*$", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages, and those of the project's top folder."""
    pages = generated_pages()
    for name, page in FROM_TOP.items():
        pages[page] = from_top((PROJECT / name).read_text(encoding="utf-8"))
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def from_top(text: str) -> str:
    """A page of the top folder as one of docs/reference/: its links, and the titles of its blocks of code."""
    linked = LINK.sub(lambda match: posixpath.relpath(match[1], "docs/reference"), text)
    return FENCE.sub(r'```\1 title="\2"', linked)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leads links to files outside docs/ to their pages on the site."""
    folder = posixpath.dirname(page.file.src_uri)

    def on_site(match: re.Match[str]) -> str:
        name = posixpath.normpath(posixpath.join("docs", folder, match[1]))
        return posixpath.relpath(ON_SITE[name], folder or ".") if name in ON_SITE else match[1]

    return LINK.sub(on_site, markdown)


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Draws the formulas of notebooks, $...$ and $$...$$ outside code, as MathML, which browsers need no script for."""
    if not page.file.src_uri.endswith(".ipynb"):
        return content
    return "".join(part if part.startswith(("<pre", "<code")) else with_formulas(part) for part in CODE.split(content))


def with_formulas(content: str) -> str:
    """HTML without code, its LaTeX as MathML."""
    return FORMULA.sub(
        lambda match: convert(html.unescape(match[1] or match[2]), display="block" if match[1] else "inline"), content
    )
