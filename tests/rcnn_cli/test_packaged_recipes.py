"""Recipes that come with rcnn: found by name, listed, copied; and what a wheel has of them."""

from __future__ import annotations

import configparser
import fnmatch
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rcnn_cli.commands.options import load_graph
from rcnn_cli.experiments.grid import load_grid
from rcnn_cli.recipes.copying import copy_recipe
from rcnn_cli.recipes.packaged import find_recipe, packaged, packaged_folder, place_of_derived
from rcnn_cli.recipes.recipe import RecipeError, load_recipe
from stages.contract.errors import StageError
from tests.in_process import caller
from tests.pipeline import PROJECT, SMALL

Call = Callable[..., tuple[int, str, str]]
SHAPES = PROJECT / "recipes" / "shapes.toml"


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and messages that reach the log of the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("rcnn"), "propagate", True)
    return tmp_path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """`rcnn` in this process."""
    return caller(capsys)


@pytest.mark.parametrize("name", ["shapes", "shapes.toml", "recipes/shapes.toml", "recipes/shapes"])
def test_a_recipe_is_found_by_its_name_and_the_choice_is_said(name: str, empty: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    assert find_recipe(Path(name)) == SHAPES
    assert caplog.messages == [f"{name} is not a file here: taking the recipe that comes with rcnn, {SHAPES}"]


def test_a_file_comes_before_a_name_but_a_folder_does_not(empty: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    Path("shapes.toml").write_text(SMALL)
    Path("shapes").mkdir()
    assert find_recipe(Path("shapes.toml")) == Path("shapes.toml")
    assert not caplog.messages
    assert find_recipe(Path("shapes")) == SHAPES


@pytest.mark.parametrize("name", ["unknown", "elsewhere/shapes.toml", "../shapes", "/shapes.toml", "", "."])
def test_anything_else_stays_as_it_is(name: str, empty: Path) -> None:
    assert find_recipe(Path(name)) == Path(name)


def test_grids_may_leave_out_their_folder_and_come_first(empty: Path) -> None:
    grids = packaged_folder() / "grids"
    assert find_recipe(Path("table2"), "grids/") == grids / "table2.toml"
    assert find_recipe(Path("grids/table2"), "grids/") == find_recipe(Path("grids/table2")) == grids / "table2.toml"
    assert find_recipe(Path("voc2007-squeezenet"), "grids/") == grids / "voc2007-squeezenet.toml"
    assert find_recipe(Path("voc2007-squeezenet")) == packaged_folder() / "voc2007-squeezenet.toml"
    assert find_recipe(Path("table2")) == Path("table2")


def test_an_unknown_name_gets_the_nearest(empty: Path) -> None:
    with pytest.raises(RecipeError, match=r"^shapse: no such recipe; did you mean 'shapes'\?"):
        load_recipe(Path("shapse"))
    with pytest.raises(RecipeError, match=r"^tabel3: no such grid; did you mean 'table3'\?"):
        load_grid(Path("tabel3"))
    with pytest.raises(RecipeError, match=r"^photographs: no such recipe; `rcnn recipes` lists"):
        load_recipe(Path("photographs"))


def test_a_command_takes_a_name_outside_a_checkout(empty: Path, call: Call) -> None:
    code, printed, said = call("inspect", "shapes")
    assert (code, '"name": "shapes"' in printed) == (0, True)
    assert f"taking the recipe that comes with rcnn, {SHAPES}" in said


def test_python_takes_a_name_too(empty: Path) -> None:
    assert load_graph(Path("shapes"), (), empty / "work").recipe.path == SHAPES


def test_what_is_made_from_a_packaged_recipe_goes_into_the_current_folder(empty: Path) -> None:
    assert place_of_derived(SHAPES, "shapes-tuned.toml") == Path("shapes-tuned.toml")
    assert place_of_derived(Path("mine/r.toml"), "r-tuned.toml") == Path("mine/r-tuned.toml")


def test_in_the_project_it_stays_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    assert place_of_derived(Path("recipes/shapes.toml"), "t.toml") == Path("recipes/t.toml")


def test_all_are_listed_with_a_sentence_and_grids_last(empty: Path, call: Call) -> None:
    listed = packaged()
    files = {path.relative_to(packaged_folder()).as_posix() for path in packaged_folder().rglob("*.toml")}
    assert {f"{name}.toml" for name in listed} == files
    names = list(listed)
    first = next(place for place, name in enumerate(names) if "/" in name)
    assert all(name.startswith("grids/") for name in names[first:])
    assert all(len(one.about.split()) > 2 for one in listed.values())
    assert listed["voc2007-tnet"].about.startswith("Table 2 of R-CNN with the paper's own network, T-Net: PASCAL")
    code, printed, _ = call("recipes")
    assert code == 0
    assert all(f"\n  {name} " in printed for name in names)


# Copies


def test_a_copy_is_the_same_recipe_and_may_be_edited(empty: Path, call: Call) -> None:
    code, printed, _ = call("recipes", "copy", "shapes")
    assert (code, printed.split()) == (0, ["recipes/shapes.toml"])
    assert Path("recipes/shapes.toml").read_bytes() == SHAPES.read_bytes()
    assert find_recipe(Path("recipes/shapes.toml")) == Path("recipes/shapes.toml")


def test_a_copy_brings_what_it_names(empty: Path, call: Call) -> None:
    code, printed, _ = call("recipes", "copy", "grids/voc2007-squeezenet", "-o", "mine")
    assert code == 0
    assert printed.split()[0] == "mine/grids/voc2007-squeezenet.toml"
    assert set(printed.split()[1:]) == {
        "mine/voc2007-squeezenet-finetuned.toml",
        *(f"mine/voc2007-subset/{name}.txt" for name in ("train", "val", "trainval", "test", "testmini")),
    }
    grid = load_grid(Path("mine/grids/voc2007-squeezenet.toml"))
    assert grid.recipe == Path("mine/voc2007-squeezenet-finetuned.toml")


@pytest.mark.parametrize("name", packaged())
def test_a_copy_of_any_recipe_names_no_file_that_is_missing(name: str, tmp_path: Path) -> None:
    copied = {path.relative_to(tmp_path) for path in copy_recipe(name, tmp_path)}
    for path in copied:
        assert (tmp_path / path).read_bytes() == (packaged_folder() / path).read_bytes()
        if path.suffix == ".toml" and path.parent.name == "grids":
            grid = load_grid(tmp_path / path)
            for recipe in (grid.recipe, *(cell.recipe for cell in grid.cells)):
                assert recipe is None or recipe.relative_to(tmp_path) in copied
        elif path.suffix == ".toml":
            for dataset in load_recipe(tmp_path / path).datasets.values():
                lists = [part for part in str(dataset["source"]).split(":") if part.startswith("{recipe}/")]
                assert {Path(part.strip("']").removeprefix("{recipe}/")) for part in lists} <= copied


def test_a_copy_leaves_files_alone(empty: Path) -> None:
    copy_recipe("voc2007-proposals", Path("recipes"))
    Path("recipes/voc2007-subset/testmini.txt").write_text("000001\n")
    Path("recipes/voc2007-proposals.toml").unlink()
    with pytest.raises(StageError, match=r"^recipes/voc2007-subset/testmini\.txt: is there already and differs"):
        copy_recipe("voc2007-proposals", Path("recipes"))
    assert not Path("recipes/voc2007-proposals.toml").exists()
    assert Path("recipes/voc2007-subset/testmini.txt").read_text() == "000001\n"
    with pytest.raises(StageError, match="did you mean 'shapes'"):
        copy_recipe("shapse", Path("recipes"))


def test_a_copy_made_twice_writes_nothing_the_second_time(empty: Path) -> None:
    first = copy_recipe("shapes", Path("recipes"))
    times = [path.stat().st_mtime_ns for path in first]
    assert copy_recipe("shapes", Path("recipes")) == first
    assert [path.stat().st_mtime_ns for path in first] == times


# What a wheel has


def test_a_wheel_has_every_file_of_its_packages_that_is_no_python(tmp_path: Path) -> None:
    """setup.cfg's package_data names each file in git that a package needs, and no pattern in it is idle."""
    config = configparser.ConfigParser()
    config.read(PROJECT / "setup.cfg", encoding="utf-8")
    data = {name: text.replace(",", " ").split() for name, text in config["options.package_data"].items()}
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    idle = {(name, pattern) for name, patterns in data.items() for pattern in patterns}
    for path in map(Path, tracked.stdout.splitlines()):
        if path.parts[0] not in ("cache", "stages", "rcnn", "rcnn_cli", "recipes") or path.suffix == ".py":
            continue
        shipped = shipping(path, data)
        assert shipped, f"{path} is in no pattern of package_data"
        idle -= shipped
    assert not idle


def shipping(path: Path, data: dict[str, list[str]]) -> set[tuple[str, str]]:
    """The (package, pattern) that puts a file of the project into the wheel."""
    folder, package = Path("recipes"), "rcnn_recipes"
    if folder not in path.parents:
        folder = next(place for place in path.parents if (PROJECT / place / "__init__.py").exists())
        package = ".".join(folder.parts)
    name = path.relative_to(folder).as_posix()
    patterns = [(of, pattern) for of in ("*", package) for pattern in data.get(of, ())]
    return {(of, pattern) for of, pattern in patterns if fnmatch.fnmatch(name, pattern)}
