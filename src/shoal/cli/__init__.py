"""The command line: parse, call, print.

Data goes to stdout, progress and logs to stderr. Exit codes: 0 done; 1 our failure; 2 usage or bad input (one line
that says what is wrong, where, and what to do); 3 a study with failed cells; 4 a check that was asked for did not hold.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from shoal._version import __version__
from shoal.cli.audit import audit
from shoal.cli.bench import bench
from shoal.cli.card import card
from shoal.cli.compare import compare
from shoal.cli.demo import demo
from shoal.cli.evaluate import evaluate
from shoal.cli.families import families
from shoal.cli.heal import heal
from shoal.cli.healing import healing
from shoal.cli.prune import prune
from shoal.cli.report import report
from shoal.cli.search import search
from shoal.cli.select import select
from shoal.cli.train import train
from shoal.cli.validate import validate
from shoal.cli.weights import app as weights
from shoal.errors import ShoalError

app = typer.Typer(
    name="shoal",
    help="Find out how shallow your SpeechLLM can be.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

for command in (
    demo,
    audit,
    compare,
    select,
    search,
    prune,
    heal,
    healing,
    train,
    evaluate,
    bench,
    report,
    card,
    validate,
    families,
):
    app.command()(command)
app.add_typer(weights, name="weights", help="List, fetch and check the weights Shoal knows.")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"shoal {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Measure how redundant a speech LLM's decoder layers are, remove what a task does not need, prove the cost."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    `SHOAL_DEBUG=1` keeps the traceback of errors that are otherwise one line.
    """
    try:
        result = app(arguments, prog_name="shoal", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except ShoalError as error:
        if os.environ.get("SHOAL_DEBUG"):
            raise
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted; run the same command again to go on", 130)
    except BrokenPipeError:
        # The reader (head, less) has left; Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        # typer's own usage errors have a message and an exit code, and no public base class in every version.
        message, code = getattr(error, "format_message", None), getattr(error, "exit_code", None)
        if message is None or code is None:
            raise
        return _fail(" ".join(str(message()).split()) + "; see --help", 2)


def _fail(message: str, code: int) -> int:
    print(f"shoal: {message}", file=sys.stderr)
    return code


def entry() -> None:
    """The console script. Being told to stop unwinds like an error, so that temporary files go."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
