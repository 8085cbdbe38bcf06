"""The command line: parse, call, print. It decides nothing."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from autoquant import __version__
from autoquant.commands.doctor import doctor
from autoquant.commands.emit import emit
from autoquant.commands.estimate import estimate
from autoquant.commands.exit_status import ExitStatus
from autoquant.commands.quantize import quantize
from autoquant.commands.report import report
from autoquant.commands.run import run
from autoquant.commands.suggest import suggest
from autoquant.commands.worker import worker
from autoquant.errors import (
    InfeasibleBudget,
    InputError,
    SearchInterrupted,
    SpaceFileError,
    WorkerFailed,
)

app = typer.Typer(
    name="autoquant",
    help="What settings for my card? Measures quantization choices and proves a plan.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


# What typer returns for Ctrl-C outside the search.
_SIGINT_STATUS = 130


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"autoquant {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


app.command()(suggest)
app.command()(estimate)
app.command()(emit)
app.command()(quantize)
app.command()(run)
app.command()(report)
app.command()(doctor)
app.command()(worker)


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    sys.exit(_status(sys.argv[1:] or ["--help"]))


def _status(arguments: list[str]) -> int:
    """Run one command; every error that is not a fault of ours is one line."""
    try:
        status = app(arguments, standalone_mode=False)
    except TyperException as error:
        return _fail(error.format_message(), ExitStatus.WRONG_INPUT)
    except SpaceFileError as error:
        for fault in str(error).splitlines():
            _fail(fault, ExitStatus.WRONG_INPUT)
        return ExitStatus.WRONG_INPUT
    except InputError as error:
        return _fail(str(error), ExitStatus.WRONG_INPUT)
    except InfeasibleBudget as error:
        return _fail(str(error), ExitStatus.INFEASIBLE)
    except SearchInterrupted as error:
        return _fail(str(error), ExitStatus.INTERRUPTED)
    except WorkerFailed as error:
        return _fail(str(error), ExitStatus.FAULT)
    if status == _SIGINT_STATUS:
        return _fail("Interrupted. Nothing was written.", ExitStatus.INTERRUPTED)
    return status if isinstance(status, int) else ExitStatus.DONE


def _fail(message: str, status: ExitStatus) -> ExitStatus:
    typer.echo(f"autoquant: {' '.join(message.split())}", err=True)
    return status
