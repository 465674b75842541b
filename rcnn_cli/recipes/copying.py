"""Copies of the recipes that come with rcnn, to be edited."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cache.files import cannot, write_atomically
from rcnn_cli.outputs import check_writable
from rcnn_cli.recipes.packaged import ENDING, advice, name_of, packaged, packaged_folder
from stages.contract.errors import StageError

BESIDE = re.compile(r"\{recipe\}/([\w./-]+)")
"""A file that a recipe names relative to its folder; in a grid, {recipe} is the folder of its base recipe."""
BASE = re.compile(r'^recipe = "\.\./([^"]+)"', re.MULTILINE)
"""The base recipe that a grid or one of its cells names, relative to the grid's folder."""


def copy_recipe(name: str, folder: Path) -> list[Path]:
    """Copies a packaged recipe into `folder`, with the lists of images that it names and, of a grid, its base recipes.

    All keep their places relative to each other. Returns the files, the recipe first; those that are there already with
    the same content are not written again. Raises StageError for an unknown name and, before anything is written, if a
    file with other content is in the way.
    """
    recipes = packaged()
    found = recipes.get(name_of(Path(name)))
    if found is None:
        raise StageError(f"{name}: is not a recipe that comes with rcnn{advice(Path(name))}")
    check_writable("-o", folder)
    home = packaged_folder()
    copies = {folder / path: (home / path).read_bytes() for path in needed(f"{found.name}{ENDING}", home)}
    missing = [path for path, content in copies.items() if not is_there(path, content)]
    for path in missing:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StageError(f"-o {path.parent}: " + cannot("be created", error, "choose another folder")) from error
        if not write_atomically(path, [copies[path]], exclusive=True):
            raise in_the_way(path)
    return [*copies]


def needed(name: str, home: Path) -> dict[str, None]:
    """The files that a copy of the recipe needs, as paths relative to `home`, the recipe first; each once."""
    text = (home / name).read_text(encoding="utf-8")
    files = dict.fromkeys([name, *(path for path in BESIDE.findall(text) if (home / path).is_file())])
    for base in BASE.findall(text):
        files |= needed(base, home)
    return files


def is_there(path: Path, content: bytes) -> bool:
    """Whether the file has this content already. Raises StageError if something else is there."""
    if not os.path.lexists(path):
        return False
    if path.is_file() and path.read_bytes() == content:
        return True
    raise in_the_way(path)


def in_the_way(path: Path) -> StageError:
    """The error for a file that a copy would replace."""
    return StageError(f"{path}: is there already and differs; copy into another folder with -o")
