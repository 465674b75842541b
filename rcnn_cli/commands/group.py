"""The group of all commands, and its help, which lists them by purpose."""

from __future__ import annotations

import click

from stages.contract.catalogue import catalogue

OTHERS = "Others"
SETTING = "setting_"
"""The prefix of parameters that carry a stage's settings."""


def sections() -> dict[str, tuple[str, ...]]:
    """The commands under each heading of `rcnn --help`; any other command is shown under OTHERS."""
    return {
        "Whole recipes": ("run", "status", "plan", "predict"),
        "Stages, in the order of the pipeline": tuple(catalogue()),
        "Looking at the results": ("report", "figures", "recall", "units", "compare", "explain", "inspect"),
        "Choosing settings": ("ablate", "tune"),
        "Data, weights and caches": ("data", "weights", "cache"),
        "Many machines": ("submit", "cancel", "wait"),
    }


class StageCommand(click.Command):
    """A stage's command: its help shows the stage's settings before the options that all stages have."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one section for the settings and another for the rest."""
        settings: list[tuple[str, str]] = []
        others: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                (settings if str(parameter.name).startswith(SETTING) else others).append(record)
        with formatter.section('Settings (defaults apply where RECIPE sets no value; "ours": chosen by this project)'):
            formatter.write_dl(settings)
        with formatter.section("Options"):
            formatter.write_dl(others)


class Commands(click.Group):
    """A command group whose help lists its commands under headings."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of their headings, then the others in the order in which they were added."""
        listed = [name for names in sections().values() for name in names if name in self.commands]
        return [*listed, *(name for name in self.commands if name not in listed)]

    def headings(self, ctx: click.Context) -> dict[str, list[click.Command]]:
        """The commands that are not hidden, by heading."""
        heading_of = {name: heading for heading, names in sections().items() for name in names}
        found: dict[str, list[click.Command]] = {}
        for name in self.list_commands(ctx):
            if not self.commands[name].hidden:
                found.setdefault(heading_of.get(name, OTHERS), []).append(self.commands[name])
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes a section for each heading, all with the same column of names."""
        found = self.headings(ctx)
        width = max(len(command.name or "") for commands in found.values() for command in commands)
        for heading, commands in found.items():
            rows = [(f"{command.name:<{width}}", command.get_short_help_str(limit=1000)) for command in commands]
            with formatter.section(heading):
                formatter.write_dl(rows)
