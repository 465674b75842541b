"""The recipes and grids that come with rcnn, found by name: "shapes", "grids/table2"."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from stages.contract.settings import closest

log = logging.getLogger("rcnn")

CHECKOUT = "recipes"
ENDING = ".toml"
SENTENCE = re.compile(r".*?\.(?= |$)")


@dataclass(frozen=True)
class Packaged:
    """A recipe or grid that comes with rcnn: its name, its file and the first sentence of its comment."""

    name: str
    path: Path

    @property
    def about(self) -> str:
        """The first sentence of the comment at the top of the file."""
        comment = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            comment.append(line.lstrip("# ").rstrip())
        text = " ".join(comment)
        found = SENTENCE.match(text)
        return found[0] if found else text


def packaged_folder() -> Path:
    """The folder of the recipes that belong to this code: the package rcnn_recipes beside it, or a checkout's recipes/.

    Not importlib.resources: with one checkout installed and another in PYTHONPATH, it would find the other's.
    """
    root = Path(__file__).parents[2]
    installed = root / "rcnn_recipes"  # setup.py gives recipes/ this name
    return installed if installed.is_dir() else root / CHECKOUT


def packaged() -> dict[str, Packaged]:
    """All recipes, then all grids, by name."""
    folder = packaged_folder()
    found = [*folder.glob(f"*{ENDING}"), *folder.glob(f"*/*{ENDING}")]
    named = {path.relative_to(folder).as_posix().removesuffix(ENDING): path for path in found}
    return {name: Packaged(name, named[name]) for name in sorted(named, key=lambda name: (name.count("/"), name))}


def find_recipe(path: Path, prefix: str = "") -> Path:
    """The file at `path`; if nothing is there, the packaged recipe of that name, which is logged.

    A name may have ".toml" and begin with "recipes/", as in a checkout; those that begin with `prefix` ("grids/") may
    leave it out. A path that is neither is returned as it is.
    """
    if os.path.exists(path) and not os.path.isdir(path):
        return path
    recipes, name = packaged(), name_of(path)
    found = recipes.get(prefix + name) or recipes.get(name)
    if found is None:
        return path
    log.info("%s is not a file here: taking the recipe that comes with rcnn, %s", path, found.path)
    return found.path


def place_of_derived(recipe: Path, name: str) -> Path:
    """Where the file `name`, made from a recipe, goes unless told: beside it, or into the current folder if the recipe
    comes with rcnn and is no file of the current folder's.
    """
    home = packaged_folder().resolve()
    is_packaged = recipe.resolve().is_relative_to(home) and not home.is_relative_to(Path.cwd())
    return Path(name) if is_packaged else recipe.with_name(name)


def name_of(path: Path) -> str:
    """The name that a path may stand for: "shapes" of recipes/shapes.toml."""
    return path.as_posix().removeprefix(f"{CHECKOUT}/").removesuffix(ENDING)


def advice(path: Path, prefix: str = "") -> str:
    """The end of a message about a `path` at which there is no file and which is no packaged recipe's name."""
    names = [name.removeprefix(prefix) for name in packaged() if name.startswith(prefix)]
    close = closest(name_of(path), names, 0.6)
    meant = f"; did you mean '{close}'?" if close else ""
    return f"{meant}; `rcnn recipes` lists those that come with rcnn"
