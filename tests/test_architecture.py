"""The house: its rooms, imports one way, no stage imports another, and a front door that opens quickly."""

import ast
import graphlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stages.contract.catalogue import FOLDERS
from tests.pipeline import SMALL

PROJECT = Path(__file__).parents[1]
ROOMS = ("cache", "stages", "rcnn_cli", "rcnn")
MAY_IMPORT = {room: set(ROOMS[: level + 1]) for level, room in enumerate(ROOMS)}
FILES = sorted(path for room in ROOMS for path in (PROJECT / room).rglob("*.py"))
LOOKING = [f"rcnn_cli/looking/{name}.py" for name in ("explanation", "inspection", "photos")]
READ_PHOTOGRAPHS = {*LOOKING, "rcnn/pixels.py"}
READING = ("stages.images", "stages.images.reading")
STAGES = {path.parent.name for path in (PROJECT / "stages").glob("*/stage.py")}


def imported(path):
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_imports_point_one_way(path):
    room = path.relative_to(PROJECT).parts[0]
    for module in imported(path):
        first = module.split(".")[0]
        assert first not in ROOMS or first in MAY_IMPORT[room], f"{room} must not import {module}"
        if room == "cache":
            assert first in {*sys.stdlib_module_names, "cache", "numpy", "h5py", "hdf5plugin"}, module
        if room == "stages":
            assert first != "click", "a stage has never heard of a command line"


@pytest.mark.parametrize("path", [path for path in FILES if "stages" in path.parts], ids=lambda path: path.name)
def test_a_stage_never_imports_another(path):
    own = path.parent.name if path.parent.name in STAGES else None
    for module in imported(path):
        parts = module.split(".")
        if parts[0] == "stages" and len(parts) > 1 and parts[1] in STAGES:
            assert parts[1] == own, f"{path.relative_to(PROJECT)} imports {module}"


def test_images_of_datasets_are_read_by_their_datasets():
    """Which way up, and that the content is still the key's, only they know: `read_image` is for photographs."""
    for path in FILES:
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        froms = [node for node in tree if isinstance(node, ast.ImportFrom) and node.module in READING]
        if path != PROJECT / "stages/images/__init__.py" and {"read_image", "image_size"} & {
            one.name for node in froms for one in node.names
        }:
            assert path.relative_to(PROJECT).as_posix() in READ_PHOTOGRAPHS


def test_there_are_stages_to_hold_to_this():
    assert {f"stages.{name}" for name in STAGES} == set(FOLDERS)


def test_a_module_that_is_imported_is_there():
    """mypy takes no notice of one that is missing."""
    for path in FILES:
        for module in imported(path):
            assert module.split(".")[0] not in ROOMS or module in MODULES, f"{path.relative_to(PROJECT)}: {module}"


def test_help_loads_nothing_heavy():
    """`rcnn --help` answers in well under a second because none of these is imported."""
    code = "import sys, json, rcnn_cli.main; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=PROJECT, text=True))
    heavy = {"torch", "torchvision", "cv2", "sklearn", "scipy", "matplotlib", "h5py", "numpy", "joblib", "PIL"}
    assert heavy.isdisjoint(loaded)


def test_the_python_interface_loads_nothing_before_it_is_used():
    code = "import sys, json, rcnn; dir(rcnn), rcnn.Error; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=PROJECT, text=True))
    assert {"torch", "cv2", "h5py", "numpy", "PIL", "pandas", "matplotlib", "click"}.isdisjoint(loaded)


def test_the_keys_of_a_whole_recipe_need_no_torch(tmp_path):
    """So `rcnn status`, and a run with nothing to do, answer quickly."""
    (tmp_path / "r.toml").write_text(SMALL)
    code = (
        "import sys, json; from pathlib import Path;"
        "from rcnn_cli.recipes.graph import Graph; from rcnn_cli.running.status import describe;"
        "from rcnn_cli.recipes.recipe import load_recipe;"
        "describe(Graph(load_recipe(Path(sys.argv[1])), Path(sys.argv[2])));"
        "print(json.dumps(sorted(sys.modules)))"
    )
    line = [sys.executable, "-c", code, str(tmp_path / "r.toml"), str(tmp_path / "work")]
    loaded = json.loads(subprocess.check_output(line, cwd=PROJECT, text=True))
    assert {"torch", "sklearn", "matplotlib"}.isdisjoint(loaded)


OF_CACHES = re.compile(r"plan\.json|manifest\.json|items\.json|data\.h5|(?<!-)part-|claims(?=$|/)")


def literals(path):
    """The texts in a file's code, docstrings aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


def test_only_the_cache_knows_its_files():
    """What is in a cache's folder, and what that means, is asked of `CacheState`."""
    for path in FILES:
        if path.relative_to(PROJECT).parts[0] != "cache":
            named = [text for text in literals(path) if OF_CACHES.search(text)]
            assert not named, f"{path.relative_to(PROJECT)} names files of a cache: {named}"


def module_name(path):
    """ "stages.datasets" for stages/datasets/__init__.py."""
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


def imported_modules(path):
    """The project's modules that a file imports, wherever in it, for types alone aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    for_types = {id(inner) for node in guarded for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in for_types or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name if name in MODULES else name.rpartition(".")[0] for name in names)


def test_imports_form_no_circle():
    """Also not where a function imports."""
    others = {
        name: {one for one in imported_modules(path) if one in MODULES} - {name} for name, path in MODULES.items()
    }
    graphlib.TopologicalSorter(others).prepare()  # raises CycleError, which lists the circle


GROUPS = [
    "__main__", "main", "commands", "exporting", "report", "looking", "experiments", "clusters", "ending", "starting",
    "running",
    "tracking", "recipes", "outputs", "progress", "streams", "sentences",
]  # fmt: skip
"""Folders and files of rcnn_cli, from the top to the bottom."""


def test_groups_of_the_command_line_import_only_what_is_below():
    for name, path in MODULES.items():
        room, _, rest = name.partition(".")
        if room == "rcnn_cli" and rest:
            own = GROUPS.index(rest.split(".")[0])
            others = [module.split(".")[1] for module in imported_modules(path) if module.startswith("rcnn_cli.")]
            assert own <= min(map(GROUPS.index, others), default=own), f"{name} imports {others}"
