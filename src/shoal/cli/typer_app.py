"""Commands that are still typer's."""

from __future__ import annotations

from typing import Annotated

import typer

from shoal._version import __version__
from shoal.cli.evaluate import evaluate

app = typer.Typer(
    name="shoal",
    help="Find out how shallow your SpeechLLM can be.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

for command in (evaluate,):
    app.command()(command)


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
