"""The command for the recipes that come with rcnn."""

from __future__ import annotations

from pathlib import Path

import click

from rcnn_cli.commands.completion import complete_packaged
from rcnn_cli.commands.options import GRIDS, output_option

WIDTH = 110


@click.group(invoke_without_command=True, short_help="List the recipes that come with rcnn, or copy one to edit it.")
@click.pass_context
def recipes(context: click.Context) -> None:
    """List the recipes and grids that come with rcnn.

    Every command takes such a name in the place of a file: `rcnn run shapes` runs the demo.

    \b
    Examples: rcnn recipes
              rcnn recipes copy shapes
    """
    if context.invoked_subcommand is None:
        click.echo(listing(), nl=False)


@recipes.command(name="copy", short_help="Copy a recipe that comes with rcnn, to edit it.")
@click.argument("name", shell_complete=complete_packaged)
@output_option("The folder to copy into.", default=Path("recipes"), show_default=True)
def recipes_copy(name: str, output: Path) -> None:
    """Copy the recipe NAME, with the lists of images that it names and, for a grid, its base recipes.

    Files that exist are left as they are.

    \b
    Examples: rcnn recipes copy shapes
              rcnn recipes copy grids/table2 -o experiments/
    """
    from rcnn_cli.recipes.copying import copy_recipe

    for path in copy_recipe(name, output):
        click.echo(path)


def listing() -> str:
    """The names of all recipes, then of all grids, each with the first sentence of its comment."""
    from rcnn_cli.recipes.packaged import packaged, packaged_folder

    rows = [(found.name, found.about) for found in packaged().values()]
    text = click.HelpFormatter(width=WIDTH)
    for heading, of_grids in (("Recipes (rcnn run NAME)", False), ("Grids (rcnn ablate NAME)", True)):
        with text.section(heading):
            text.write_dl([row for row in rows if row[0].startswith(GRIDS) == of_grids], col_max=44)
    text.write(f"\nThey are in {packaged_folder()}\n")
    return text.getvalue()


COMMANDS = (recipes,)
