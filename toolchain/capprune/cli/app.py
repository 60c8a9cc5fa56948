"""The `capprune` command: finds a subcommand, runs it, and turns what went wrong into a message and an exit code.

Subcommands are imported when they are called, so that `capprune --help` costs a fraction of a second and no torch.
"""

from __future__ import annotations

import errno
import importlib
import json
import keyword
import os
import sys
import traceback
from typing import NoReturn

import click

from capprune import __version__
from capprune_runtime import stopping
from capprune_runtime.errors import CapPruneError

# command: what `capprune --help` says of it; the module is capprune.cli.<command>, with a `_` behind a word of Python
COMMANDS = {
    "demo": "Draw scenes, train, prune, export, validate: the whole walk, with no data of your own.",
    "data": "Check a folder of photos and captions, or draw scenes.",
    "import": "Turn a checkpoint of the papers' own code into a run.",
    "train": "Train a captioning model, dense or pruned while it trains.",
    "prune": "Prune a trained model and train what is left.",
    "finetune": "Train a run further with its masks as they are: cross-entropy, a teacher, whole captions.",
    "sweep": "Train every run of a grid, score it, and put all of them into one table.",
    "export": "Turn a run into a bundle that a device can run.",
    "pack": "Pack a bundle into one small file, for download.",
    "unpack": "Expand a packed bundle into a folder.",
    "validate": "Caption a test split with a bundle; quality, parity, size and speed.",
    "bench": "Time a bundle, in turns with the same model dense, in int8 and sparse.",
    "report": "Put runs, bundles and results on one page.",
    "caption": "Say what is in photos.",
    "inspect": "Show what a run or a bundle consists of.",
    "verify": "Check every byte of a bundle before anything runs it.",
    "doctor": "Show what is installed and what this machine can do.",
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the walk."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        module = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command: click.Command = importlib.import_module(f"capprune.cli.{module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="capprune")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def cli(debug: bool) -> None:
    """From photos with captions to a captioning model of a few megabytes, proven on its device.

    \b
    Example:
      capprune train configs/flickr8k_sparse.yaml --out runs/sparse
      capprune export runs/sparse --target tflite --out bundles/sparse
      capprune validate bundles/sparse --data flickr8k --split test --reference runs/sparse
      capprune caption photo.jpg --bundle bundles/sparse
    """


def main() -> NoReturn:
    """Entry point of the console script."""
    stopping.listen()
    # Threads that spin at a barrier while another process has their core made training 20 times slower on a busy machine;
    # sleeping costs a few microseconds on an idle one. Read by OpenMP when torch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    try:
        cli.main(arguments, prog_name="capprune", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return stopping.INTERRUPTED
    except CapPruneError as error:
        return stopping.requested() or _told(error, arguments, debug)
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads any more; the interpreter's own complaint would be noise
        return 1
    except Exception as error:  # the edge: everything else is a defect of ours or of the machine
        return stopping.requested() or _told(_as_defect(error), arguments, debug)
    return 0


def _told(error: CapPruneError, arguments: list[str], debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    elif "--json" in arguments:
        click.echo(json.dumps({"schema_version": 1, **error.as_json()}, indent=2))
    else:
        click.echo(f"error: {error}", err=True)
    return error.exit_code


def _as_defect(error: Exception) -> CapPruneError:
    if isinstance(error, MemoryError):
        wrapped = CapPruneError("this machine has not enough memory", hint="lower training.photos_per_batch")
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        wrapped = CapPruneError("the disk is full", where=error.filename, hint="free some space and run this again")
    else:
        wrapped = CapPruneError(
            f"{type(error).__name__}: {error}",
            hint="this is a defect; run it again with --debug and report what it says",
        )
    wrapped.__cause__ = error
    return wrapped
