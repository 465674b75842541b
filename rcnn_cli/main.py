"""`rcnn`, the command line: the only place where an exception becomes a sentence and an exit code (sentences.py)."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Sequence

import click

from rcnn_cli.commands import (
    choosing,
    data_weights_caches,
    exporting,
    looking,
    many_machines,
    recipes,
    stages,
    starting,
    whole_recipes,
)
from rcnn_cli.commands.group import Commands
from rcnn_cli.ending import set_up_logging, stop, told_to_end
from rcnn_cli.sentences import BAD_INPUT, BROKEN_PIPE, OK, TERMINATED, command_called, kept, sentence, verbose
from rcnn_cli.streams import OutputLost, give_up_output, prepare
from stages.contract.threads import refuse_dead_threads

EPILOG = """Examples:

\b
  rcnn plan recipes/shapes.toml                    estimate images, boxes, disk and time
  rcnn run recipes/shapes.toml                     run every stage of the demo; resumes if interrupted
  rcnn extract recipes/shapes.toml --padding 0     run one stage with one setting changed: a new cache
  rcnn status recipes/shapes.toml                  show what is complete, what is not, and why
"""


@click.group(
    cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="rcnn")
@click.option("-v", "--verbose", is_flag=True, help="Print more messages, and the traceback of any bug.")
def cli(verbose: bool) -> None:
    """R-CNN as a pipeline of cached stages: every stage reads and writes HDF5 and resumes on its own.

    A recipe, a TOML file, names the data, the network and the stages to run, with their settings. `rcnn recipes` lists
    those that come with rcnn, which are also found by name: shapes is the demo.
    """
    set_up_logging(verbose)


MODULES = (
    starting,
    whole_recipes,
    exporting,
    recipes,
    stages,
    looking,
    choosing,
    data_weights_caches,
    many_machines,
)
for module in MODULES:
    for command in module.COMMANDS:
        cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script `rcnn`: runs the command and exits the process with its exit code."""
    prepare()
    refuse_dead_threads()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
    try:
        code = exit_code(arguments)
        sys.stdout.flush()
    except OutputLost as lost:
        give_up_output()
        if not lost.pipe_closed:
            click.echo(f"rcnn: {lost}", err=True)
        code = BROKEN_PIPE if lost.pipe_closed else BAD_INPUT
    sys.exit(code)


def exit_code(arguments: Sequence[str] | None) -> int:
    """Runs the command, prints any error as a sentence and returns the exit code. Raises OutputLost."""
    try:
        returned = cli.main(
            args=list(arguments) if arguments is not None else None, prog_name="rcnn", standalone_mode=False
        )
        return returned if isinstance(returned, int) else OK
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        return code_of(told_to_end(error), arguments)


def code_of(error: BaseException, arguments: Sequence[str] | None) -> int:
    """Prints the error as a sentence and returns its exit code."""
    if isinstance(error, SystemExit):
        if error.code == TERMINATED:
            click.echo(f"rcnn: terminated{kept()}", err=True)
        return error.code if isinstance(error.code, int) else OK
    words = sys.argv[1:] if arguments is None else arguments
    text, code = sentence(error, cli.commands.get(command_called(words)), words)
    if verbose():
        traceback.print_exception(error)
    click.echo(f"rcnn: {text}", err=True)
    return code


if __name__ == "__main__":
    main()
