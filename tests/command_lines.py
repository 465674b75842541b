"""Command lines of `rcnn` as help and documents print them: found, parsed by the real commands, never run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from rcnn_cli.experiments.grid import is_grid, load_grid
from rcnn_cli.main import cli
from rcnn_cli.recipes.recipe import load_recipe

PROJECT = Path(__file__).parents[1]
FOLDERS = tuple(f"{name}/" for name in ("recipes", "docs", "benchmarks", "tests"))
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=\S*")
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*(\.toml)?|\.\.\.")


def every_command(
    command: click.Command = cli, context: click.Context | None = None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """All commands that are not hidden, groups and their commands too, with the words that call them."""
    name = "rcnn" if context is None else str(command.name)
    own = click.Context(command, info_name=name, parent=context, max_content_width=1000, terminal_width=1000)
    yield own.command_path, command, own
    if isinstance(command, click.Group):
        for one in command.commands.values():
            if not one.hidden:
                yield from every_command(one, own)


def examples_in_help(text: str) -> list[str]:
    """The command lines after "Example:" or "Examples:" in the text of a --help."""
    _, found, rest = re.split(r"(Examples?:)", text, maxsplit=1) if "Example" in text else ("", "", "")
    lines = [line.strip() for line in rest.split("\n\nOptions:")[0].splitlines()] if found else []
    return [re.split(r"\s{2,}", line)[0] for line in lines if line.startswith("rcnn ")]


def arguments_of(line: str) -> list[str]:
    """The words after `rcnn` in a line of shell: comments, assignments before and what is piped on are left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words = list(lexer)
    while words and ASSIGNMENT.fullmatch(words[0]):
        del words[0]
    end = next((place for place, word in enumerate(words) if set(word) <= set("|&;<>")), len(words))
    assert words
    assert words[0].rpartition("/")[2] == "rcnn", line
    return words[1:end]


def parse(words: list[str]) -> click.Context:
    """The context of the command that the words call. Raises click.UsageError where they cannot be parsed."""
    command: click.Command = cli
    context, name = None, "rcnn"
    while True:
        context = command.make_context(name, list(words), parent=context)
        if not isinstance(command, click.Group):
            return context
        rest = [*getattr(context, "_protected_args", ()), *context.args]  # click < 9 keeps the first word apart
        if not rest and command.invoke_without_command:
            return context
        found, resolved, words = command.resolve_command(context, rest)
        assert resolved is not None
        name, command = str(found), resolved


def check(line: str) -> None:
    """Raises an error if the line cannot be parsed, names a file of the project that is not there, or changes a
    setting that the project's recipe does not have."""
    words = arguments_of(line)
    try:
        parsed = parse(words).params
    except click.exceptions.Exit:  # --help and --version end the parsing
        return
    for word in words:
        stem, suffix, dataset = word.partition(".toml:")  # RECIPE.toml:NAME
        if dataset:
            assert dataset in load_recipe(PROJECT / f"{stem}.toml").datasets, line
        if word.startswith(FOLDERS) and not (PROJECT / f"{stem}{suffix.rstrip(':')}").exists():
            raise FileNotFoundError(f"{line}: {word} is not in the project")
    recipe, grid = parsed.get("recipe"), parsed.get("grid")
    changes = [change for change in parsed.get("changes", ()) if not PLACEHOLDER.search(change)]
    path = PROJECT / (grid or recipe or "none")
    if path.is_file():
        if is_grid(path):
            assert load_grid(path).cells
        else:
            load_recipe(path, changes)
