"""Every command's --help has an example, and each is one that the real command takes."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from rcnn_cli.commands.group import OTHERS, Commands
from rcnn_cli.main import cli
from tests.command_lines import arguments_of, check, every_command, examples_in_help, parse

COMMANDS = {path: (command, context) for path, command, context in every_command()}


def test_there_are_commands_groups_and_their_commands() -> None:
    assert {"rcnn", "rcnn run", "rcnn train-svm", "rcnn cache", "rcnn cache gc", "rcnn data fetch"} < set(COMMANDS)
    assert "rcnn task" not in COMMANDS


@pytest.mark.parametrize("path", COMMANDS)
def test_the_examples_of_a_command_parse(path: str) -> None:
    command, context = COMMANDS[path]
    examples = examples_in_help(command.get_help(context))
    assert examples, f"`{path} --help` has no example"
    for example in examples:
        assert f"{example} ".startswith(f"{path} "), example
        check(example)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("rcnn run", click.MissingParameter),
        ("rcnn run recipes/shapes.toml --onyl eval", click.NoSuchOption),
        ("rcnn run recipes/shapes.toml one-more", click.UsageError),
        ("rcnn run recipes/shapes.toml --jobs many", click.BadParameter),
        ("rcnn cache gcc", click.UsageError),
        ("rcnn weights import x.caffemodel -o x.safetensors", click.MissingParameter),
        ("rcnn run recipes/no-such.toml", FileNotFoundError),
        ("rcnn run recipes/shapes.toml --set extract.paddin=0", Exception),
    ],
)
def test_a_wrong_example_is_noticed(line: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        check(line)


def test_lines_of_a_shell() -> None:
    line = "RCNN_VOC=a/b .venv/bin/rcnn plan recipes/shapes.toml --set 'extract.layers=[\"fc5\"]' > x  # why"
    assert arguments_of(line) == ["plan", "recipes/shapes.toml", "--set", 'extract.layers=["fc5"]']
    assert parse(arguments_of(line)).params["changes"] == ('extract.layers=["fc5"]',)
    check("rcnn plan recipes/shapes.toml --help  # ends the parsing")


def test_every_command_stands_under_a_heading() -> None:
    assert isinstance(cli, Commands)
    found = cli.headings(click.Context(cli))
    listed = [str(command.name) for commands in found.values() for command in commands]
    assert sorted(listed) == sorted(name for name, command in cli.commands.items() if not command.hidden)
    assert OTHERS not in found, f"give {[one.name for one in found[OTHERS]]} a heading in rcnn_cli/commands/group.py"


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_the_help_lists_all_commands(arguments: list[str]) -> None:
    printed = CliRunner().invoke(cli, arguments, terminal_width=80).output
    headings = [line for line in printed.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings[:3] == ["Options:", "Whole recipes:", "Stages, in the order of the pipeline:"]
    assert "..." not in printed.partition("Whole recipes:")[2]  # no summary is cut short
    assert all(f"  {path.split()[1]} " in printed for path in COMMANDS if path.count(" ") == 1)
