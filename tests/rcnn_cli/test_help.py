"""What --help says: every option and every setting what it does, its choices and its default."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import get_type_hints

import click
import pytest
from click.testing import CliRunner

from rcnn_cli.clusters import cluster_file as cluster
from rcnn_cli.commands.completion import complete_value
from rcnn_cli.commands.setting_help import bounds, setting_help, setting_metavar, shown, toml_value
from rcnn_cli.commands.stages import setting_changes
from rcnn_cli.experiments import grid
from rcnn_cli.main import cli
from rcnn_cli.recipes.recipe import load_recipe
from stages.contract.catalogue import catalogue
from stages.contract.settings import setting
from stages.datasets.shapes import ClassificationSettings, ShapesOptions, ShapesSettings
from stages.datasets.sources import VocOptions
from stages.networks import NetworkSettings
from tests.command_lines import PROJECT, every_command

OTHER_SETTINGS = (
    *(NetworkSettings, VocOptions, ShapesOptions, ShapesSettings, ClassificationSettings),
    *(grid.Settings, grid.CellSettings, cluster.Resources),
)


def options() -> Iterator[tuple[str, click.Option, str]]:
    """Every option of every command, with the two columns that --help shows for it."""
    for path, command, context in every_command():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                record = parameter.get_help_record(context)
                assert record is not None
                yield f"{path} {parameter.opts[-1]}", parameter, "  ".join(record)


OPTIONS = {name: (option, text) for name, option, text in options()}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_says_what_it_does_and_its_default(name: str) -> None:
    option, text = OPTIONS[name]
    what = re.split(r"\s*\[", option.help or "")[0]
    assert len(what.split()) >= 3, text
    assert what[0].isupper() or what.startswith("liblinear"), text
    known = option.is_flag or option.required or ("repeatable" in text if option.multiple else "[default: " in text)
    assert known, text


@pytest.mark.parametrize("name", catalogue())
def test_the_help_of_a_stage_has_every_setting_with_choices_default_and_source(name: str) -> None:
    settings = catalogue()[name].settings
    for field in dataclasses.fields(settings):
        _, text = OPTIONS[f"rcnn {name} --{field.name.replace('_', '-')}"]
        told = field.metadata
        assert told["what"] in text
        assert f"[default: {shown(field.default)} ({told['source']})" in text
        if told["choices"]:
            assert f"[{'|'.join(told['choices'])}]" in text
        if get_type_hints(settings)[field.name] is bool:
            assert "[true|false]" in text


@pytest.mark.parametrize("settings", [*(stage.settings for stage in catalogue().values()), *OTHER_SETTINGS])
def test_every_setting_says_what_it_does_in_a_sentence(settings: type) -> None:
    for field in dataclasses.fields(settings):
        what = field.metadata["what"]
        assert len(what.split()) >= 2, field.name
        assert what.endswith("."), field.name


def test_a_setting_as_an_option() -> None:
    @dataclasses.dataclass(frozen=True)
    class Example:
        layers: tuple[str, ...] = setting(("fc7", "pool5"), "Layers to keep.", source="R-CNN section 2.1")
        mode: str = setting("warp", "How.", choices=("warp", "square"))
        share: float = setting(0.5, "A share.", above=0, at_most=1, source="ours")
        limit: int | None = setting(None, "A limit.", at_least=1, source="ours")
        flip: bool = setting(False, "Whether.", identity=False)

    hints = get_type_hints(Example)
    told = {
        field.name: (setting_metavar(hints[field.name], field.metadata["choices"]), setting_help(field))
        for field in dataclasses.fields(Example)
    }
    assert told == {
        "layers": ("TEXT,...", "Layers to keep.  [default: fc7,pool5 (R-CNN section 2.1)]"),
        "mode": ("[warp|square]", "How.  [default: warp]"),
        "share": ("FLOAT", "A share.  [default: 0.5 (ours); 0<x<=1]"),
        "limit": ("INTEGER", "A limit.  [default: none (ours); x>=1]"),
        "flip": ("[true|false]", "Whether.  [default: false; not part of the cache's key]"),
    }


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({}, ""),
        ({"at_least": 0}, "x>=0"),
        ({"above": 0}, "x>0"),
        ({"at_most": 1}, "x<=1"),
        ({"at_least": 0, "at_most": 1}, "0<=x<=1"),
        ({"above": 0, "at_most": 1}, "0<x<=1"),
    ],
)
def test_bounds(told: dict[str, float], text: str) -> None:
    assert bounds({"at_least": None, "at_most": None, "above": None, **told}) == text


def test_a_list_may_be_given_with_commas_or_as_toml() -> None:
    assert toml_value(tuple[str, ...], "fc7, pool5") == '["fc7", "pool5"]'
    assert toml_value(tuple[str, ...], '["fc7"]') == '["fc7"]'
    assert toml_value(tuple[float, ...], "0.5,1") == "[0.5, 1]"
    assert toml_value(float | None, "0.5") == "0.5"
    path = PROJECT / "recipes/shapes.toml"
    use = load_recipe(path).uses["extract"]
    changed = load_recipe(path, setting_changes([use], {"layers": "pool4,fc5", "mode": None, "padding": "0"}))
    settings = changed.uses["extract"].settings
    assert (settings.layers, settings.mode, settings.padding) == (("pool4", "fc5"), "warp", 0)


def test_choices_of_a_setting_are_completed() -> None:
    found = complete_value(("warp", "square", "square-masked"))(click.Context(cli), click.Option(["--mode"]), "squ")
    assert [one.value for one in found] == ["square", "square-masked"]


@pytest.mark.parametrize("group", ["data", "weights", "cache"])
def test_no_line_of_a_list_of_commands_is_cut_short(group: str) -> None:
    printed = CliRunner().invoke(cli, [group, "--help"], terminal_width=80).output
    _, heading, commands = printed.partition("Commands:")
    assert heading
    assert "..." not in commands


def test_a_stages_settings_stand_before_the_options_of_every_stage() -> None:
    printed = CliRunner().invoke(cli, ["extract", "--help"], terminal_width=100).output
    settings, _, others = printed.partition("\nOptions:\n")
    assert "--padding INTEGER" in settings
    assert "--padding" not in others
    assert "--jobs N" in others
