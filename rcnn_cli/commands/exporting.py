"""The command that writes a trained detector for use elsewhere: export."""

from __future__ import annotations

from pathlib import Path

import click

from rcnn_cli.commands.options import OutputPath, load_graph, output_option, recipe_argument, table_option


@click.command(short_help="Write a trained detector as one .safetensors file, its networks as ONNX.")
@recipe_argument
@output_option("The file to write, NAME.safetensors  [default: none, with --onnx]")
@table_option("--detector", "detections", "The detect table to use  [default: detect, else the recipe's first]")
@click.option(
    "--thresholds",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file of `rcnn thresholds`: the scores from which `rcnn predict` draws detections  [default: none]",
)
@click.option("--note", default="", metavar="TEXT", help="A note for the card, such as a licence  [default: none]")
@click.option(
    "--onnx",
    "onnx_folder",
    type=OutputPath(path_type=Path),
    metavar="FOLDER",
    help="Write the networks as ONNX files into this folder, each checked by onnxruntime  [default: none]",
)
def export(
    recipe: Path,
    changes: tuple[str, ...],
    work: Path | None,
    output: Path | None,
    detector: str | None,
    thresholds: Path | None,
    note: str,
    onnx_folder: Path | None,
) -> None:
    """Write RECIPE's trained detector as one file: networks, SVMs, box regressors, settings, thresholds, class names.

    `rcnn predict FILE.safetensors photo.jpg` detects with it, without the recipe and its caches; `rcnn inspect` shows
    its card. With --onnx, the parts of its networks become files that onnxruntime computes as rcnn does.

    \b
    Examples: rcnn export recipes/shapes.toml -o shapes.safetensors
              rcnn export recipes/shapes.toml --detector detect-without-bbox -o plain.safetensors --note "CC BY 4.0"
              rcnn export recipes/shapes.toml --thresholds thresholds.toml -o shapes.safetensors
              rcnn export recipes/shapes-faster.toml --onnx onnx/
    """
    from rcnn_cli.exporting.export import card_of_recipe, check_output, export_networks, exported_line
    from rcnn_cli.exporting.model_file import write_model
    from rcnn_cli.exporting.onnx_files import check_installed
    from rcnn_cli.recipes.detectors import choice_told, detector_node

    if output is None and onnx_folder is None:
        raise click.UsageError("say what to write: -o NAME.safetensors, --onnx FOLDER, or both")
    if onnx_folder is not None:
        check_installed()
    graph = load_graph(recipe, changes, work)
    if output is not None:
        check_output(output, graph)
    node = detector_node(graph, detector)
    if detector is None and choice_told(graph, node):
        click.echo(choice_told(graph, node), err=True)
    card = card_of_recipe(graph, node, note, thresholds)
    if output is not None:
        write_model(output, card)
        click.echo(exported_line(card, output))
    if onnx_folder is not None:
        for line in export_networks(graph, node, card, onnx_folder):
            click.echo(line)


COMMANDS = (export,)
