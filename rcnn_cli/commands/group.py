"""The group of all commands, whose help lists them by purpose."""

from __future__ import annotations

import click

from stages.contract.catalogue import catalogue

OTHERS = "Others"
SETTING = "setting_"
"""The prefix of parameters that carry a stage's settings."""


def sections() -> dict[str, tuple[str, ...]]:
    """The commands under each heading of `rcnn --help`; any others are listed under OTHERS."""
    return {
        "Whole recipes": ("init", "run", "status", "plan", "predict", "export", "recipes"),
        "Stages, in the order of the pipeline": tuple(catalogue()),
        "Looking at the results": ("report", "figures", "recall", "units", "compare", "explain", "inspect"),
        "Choosing settings": ("ablate", "tune", "thresholds"),
        "Data, weights and caches": ("data", "duplicates", "weights", "cache"),
        "Many machines": ("submit", "cancel", "wait"),
    }


class StageCommand(click.Command):
    """A stage's command, whose help lists the stage's settings before the options common to all stages."""

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
        """The commands in the order of their headings, then any others in the order in which they were added."""
        listed = [name for names in sections().values() for name in names if name in self.commands]
        return [*listed, *(name for name in self.commands if name not in listed)]

    def headings(self, ctx: click.Context) -> dict[str, list[click.Command]]:
        """The visible commands, by heading."""
        heading_of = {name: heading for heading, names in sections().items() for name in names}
        by_heading: dict[str, list[click.Command]] = {}
        for name in self.list_commands(ctx):
            if not self.commands[name].hidden:
                by_heading.setdefault(heading_of.get(name, OTHERS), []).append(self.commands[name])
        return by_heading

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes a section per heading, with aligned columns of names."""
        by_heading = self.headings(ctx)
        width = max(len(command.name or "") for commands in by_heading.values() for command in commands)
        for heading, commands in by_heading.items():
            rows = [(f"{command.name:<{width}}", command.get_short_help_str(limit=1000)) for command in commands]
            with formatter.section(heading):
                formatter.write_dl(rows)
