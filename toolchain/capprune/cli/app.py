"""The `capprune` command: finds a subcommand, runs it, and turns errors into a message and an exit code.

Subcommands are imported when they are called, so that `capprune --help` takes a fraction of a second and no torch.
"""

from __future__ import annotations

import copy
import errno
import functools
import importlib
import json
import keyword
import os
import shlex
import sys
import traceback
import warnings
from typing import Any, NoReturn

import click

from capprune import __version__
from capprune.cli.repeated import refuse_repeated
from capprune.extras import COMMANDS as COMMAND_EXTRAS
from capprune.extras import (
    extra_of_module,
    install_command,
    installed_extras,
    keys_of,
    keys_starting_with,
    require_extras,
)
from capprune_runtime import stopping, streams
from capprune_runtime.errors import CapPruneError, MissingExtra, NotEnoughMemory, PhotoWarning, UsageError
from capprune_runtime.memory import check_address_space, is_short, names_memory
from capprune_runtime.streams import printable

# command: its line in `capprune --help`; the module is capprune.cli.<command>, with a `_` appended to keywords of Python
COMMANDS = {
    "demo": "Draw scenes, train, prune, export and validate, without data of your own.",
    "data": "Check a folder of photos and captions, or draw scenes.",
    "label": "Caption a folder of photos with a large model, to train a small one on them.",
    "import": "Convert a checkpoint of the published code to a run.",
    "train": "Train a captioning model, dense or pruned during training.",
    "prune": "Prune a trained model and train the kept weights.",
    "finetune": "Train a run further with fixed masks: cross-entropy, a teacher, whole captions.",
    "length": "Choose how long the captions of a run are, by their scores on val.",
    "ensemble": "Caption photos with several runs at once, to train a small one on the captions.",
    "sweep": "Train and score every run of a grid, and write one table.",
    "export": "Export a run as a bundle that a device can run.",
    "pack": "Pack a bundle into one small file, for download.",
    "unpack": "Expand a packed bundle into a folder.",
    "validate": "Caption a test split with a bundle, and measure quality, parity, size and speed.",
    "bench": "Time a bundle, interleaved with the same model dense, in int8 and sparse.",
    "report": "Write one page from runs, bundles and results.",
    "caption": "Caption photos.",
    "serve": "Serve a page that captions photos, or write it as files that run in the browser.",
    "inspect": "Show the contents of a run or a bundle.",
    "verify": "Verify every byte of a bundle before it is run.",
    "doctor": "Show what is installed and what this machine can do.",
}


class NobodyReads(Exception):
    """Raised when the pipe at stdout is closed; click would end the process with an error."""


class LazyGroup(click.Group):
    """A group that lists its commands by name and imports a command when it is called."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise NobodyReads from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and refuse options that are given twice."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            refuse_repeated(command, rest)
        return name, command, rest

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of a typical workflow."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module, and check that the packages it needs are installed."""
        if cmd_name not in COMMANDS:
            return None
        module = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command: click.Command = copy.copy(importlib.import_module(f"capprune.cli.{module}").command)
        stopping.listen()  # before this line no work has begun, and `capprune.__main__` ends the process at once
        work = command.callback
        if work is not None:

            @functools.wraps(work)
            def checked(*arguments: Any, **options: Any) -> Any:
                require_extras(*keys_of(cmd_name, options))
                try:
                    return work(*arguments, **options)
                except BaseException as stop:
                    _print_notes(stop)
                    raise

            command.callback = checked
        command.epilog = _needs(cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_notes(stop: BaseException) -> None:
    """Print the notes of an interrupted command, and the command that resumes it."""
    for note in getattr(stop, "__notes__", ()):
        click.echo(f"{printable(note)}; resume with: {printable(shlex.join(['capprune', *sys.argv[1:]]))}", err=True)


def _needs(command: str) -> str:
    """Return the last lines of a command's help: how to install the packages that it needs."""
    lines = [f"  capprune {key}: {install_command(COMMAND_EXTRAS[key])}" for key in keys_starting_with(command)]
    return "\n".join(["\b", "Install:", *lines])


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"capprune, version {__version__}")
        click.echo(f"extras: {', '.join(installed_extras()) or 'none'}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version and the installed extras, and exit.",
)
@click.option("--debug", is_flag=True, help="Show a traceback after an error.")
def cli(debug: bool) -> None:
    """Train captioning models of a few megabytes on photos with captions, and verify them on the device.

    \b
    Example:
      capprune train configs/flickr8k_sparse.yaml --out runs/sparse
      capprune export runs/sparse --target tflite --out bundles/sparse
      capprune validate bundles/sparse --data flickr8k --split test --reference runs/sparse
      capprune caption photo.jpg --bundle bundles/sparse
    """


def main() -> NoReturn:
    """Entry point of the console script."""
    streams.prepare()
    warnings.showwarning = _show_warning
    # Threads that spin at a barrier while another process uses their core made training 20x slower on a busy machine.
    # Sleeping costs a few microseconds on an idle one. OpenMP reads this when torch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    streams.leave(streams.finish(_run(sys.argv[1:])))


def _run(arguments: list[str]) -> int:
    try:
        _check_process(arguments)
        cli.main(arguments, prog_name="capprune", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except click.ClickException as error:
        return _wrong_usage(error, arguments)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return stopping.INTERRUPTED
    except CapPruneError as error:
        return stopping.requested() or _report_error(error, arguments)
    except NobodyReads:
        return streams.failed_output(BrokenPipeError())
    except Exception as error:  # the outermost handler: all other errors are our defects or faults of the machine
        return stopping.requested() or _report_error(_as_message(error, arguments), arguments)
    return 0


def _check_process(arguments: list[str]) -> None:
    """Refuse to start in conditions under which libraries end or hang without a usable message.

    Raises:
        UsageError: The current folder no longer exists.
        NotEnoughMemory: The address space limit is too low.
    """
    if not arguments or {"-h", "--help", "--version"} & set(arguments):
        return
    try:
        os.getcwd()  # noqa: PTH109 - pathlib's says no more
    except OSError:
        raise UsageError("the current folder no longer exists", hint="cd to an existing folder") from None
    check_address_space()


def _wrong_usage(error: click.ClickException, arguments: list[str]) -> int:
    if "--json" not in arguments:
        error.show()
        return error.exit_code
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "capprune"
    wrong = UsageError(error.format_message(), hint=f"{path} --help")
    return _report_error(wrong, arguments)


def _report_error(error: CapPruneError, arguments: list[str]) -> int:
    if "--debug" in arguments:
        traceback.print_exception(error)
    elif "--json" in arguments and not streams.is_dropped():
        click.echo(json.dumps({"schema_version": 1, **error.as_json()}, indent=2))
    else:
        click.echo(f"error: {printable(error)}", err=True)
    return error.exit_code


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    text = str(message) if issubclass(category, PhotoWarning) else f"{category.__name__}: {message}"
    click.echo(f"warning: {printable(text)}", err=True)


_TRAINING = ("train", "prune", "finetune", "sweep", "demo")
_OF_THE_USER = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EBUSY,
)


def _as_message(error: Exception, arguments: list[str]) -> CapPruneError:
    """Return the message for an error that no command handles."""
    wrapped = _known(error, arguments) or CapPruneError(
        f"{type(error).__name__}: {error}",
        hint="this is a defect; run the command again with --debug and report the output",
    )
    wrapped.__cause__ = error
    return wrapped


def _known(error: Exception, arguments: list[str]) -> CapPruneError | None:
    if names_memory(error) or (isinstance(error, ImportError) and is_short()):
        training = any(command in arguments for command in _TRAINING)
        hint = (
            "lower training.photos_per_batch" if training else "close other programs, or use a machine with more memory"
        )
        return NotEnoughMemory("not enough memory on this machine", hint=hint)
    if isinstance(error, ModuleNotFoundError) and (extra := extra_of_module(error.name or "")) is not None:
        return MissingExtra(f"{error.name} is not installed", hint=install_command([extra]))
    if not isinstance(error, OSError):
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or "standard output"
        if error.filename is None:
            streams.drop_output()
        return CapPruneError("the disk is full", where=where, hint="free some space and run the command again")
    if error.errno == errno.EFBIG:
        return CapPruneError(
            "a file exceeds the size limit of this process", where=error.filename, hint="ulimit -f unlimited"
        )
    if error.errno in _OF_THE_USER and error.filename is not None:
        return UsageError("a file or folder cannot be used", where=error.filename, found=error.strerror)
    return None
