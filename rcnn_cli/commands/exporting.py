"""The command that writes a trained detector for use elsewhere: export."""

from __future__ import annotations

from pathlib import Path

import click

from rcnn_cli.commands.options import load_graph, output_option, recipe_argument, table_option


@click.command(short_help="Write a trained detector as one .safetensors file.")
@recipe_argument
@output_option("The file to write, NAME.safetensors.", required=True)
@table_option("--detector", "detections", "The detect table to use  [default: detect, else the recipe's first]")
@click.option(
    "--note", default="", metavar="TEXT", help="A note for the file's card, such as a licence  [default: none]"
)
def export(
    recipe: Path, changes: tuple[str, ...], work: Path | None, output: Path, detector: str | None, note: str
) -> None:
    """Write RECIPE's trained detector as one file: networks, SVMs, box regressors, settings, thresholds, class names.

    `rcnn predict FILE.safetensors photo.jpg` detects with it, without the recipe and its caches; `rcnn inspect` shows
    its card.

    \b
    Examples: rcnn export recipes/shapes.toml -o shapes.safetensors
              rcnn export recipes/shapes.toml --detector detect-without-bbox -o plain.safetensors --note "CC BY 4.0"
    """
    from rcnn_cli.exporting.export import check_output, export_detector, exported_line
    from rcnn_cli.recipes.detectors import choice_told, detector_node

    graph = load_graph(recipe, changes, work)
    check_output(output, graph)
    node = detector_node(graph, detector)
    if detector is None and choice_told(graph, node):
        click.echo(choice_told(graph, node), err=True)
    click.echo(exported_line(export_detector(graph, node, output, note), output))


COMMANDS = (export,)
