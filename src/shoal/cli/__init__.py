"""The command line: parse, call, print.

Data goes to stdout, progress and logs to stderr. Exit codes: 0 done; 1 our failure; 2 usage or bad input (one line
that says what is wrong, where, and what to do); 4 a check that was asked for did not hold; 130 stopped with Ctrl-C.

A command is a module that is imported when it is called for. Its options are the fields of settings models.
"""

from __future__ import annotations

import os
import signal
import sys

from cyclopts import CycloptsError, Group, Parameter
from pydantic import ValidationError

from shoal._version import __version__
from shoal.cli.options import Command, shown_default
from shoal.errors import ShoalError, UsageError
from shoal.settings import METHOD, usage_error

app = Command(
    "shoal",
    version=f"shoal {__version__}",
    help="Measure how redundant a speech LLM's decoder layers are, remove what a task does not need, prove the cost.",
    version_flags="--version",
    suppress_keyboard_interrupt=False,
    help_format="plaintext",
    default_parameter=Parameter(negative=(), show_default=shown_default, allow_repeating=True),
    group_parameters=METHOD,
)

COMMANDS = {
    "Start": {
        "demo": "Run the whole way on real speech: audit, compare, select, evaluate, prune, verify, time and report.",
        "completion": 'Print what completes commands and options in a shell: eval "$(shoal completion bash)".',
        "families": "List the model classes that Shoal supports, and what its tests have shown of each.",
        "weights": "List, fetch and check the pretrained weights that pkg:NAME can name.",
    },
    "Measure and choose": {
        "audit": "Measure how much each decoder layer does: by similarity, by gradients, by leaving it out.",
        "compare": "Compare audits, speech with text or task with task: do they find the same layers redundant?",
        "select": "Choose the layers to remove, from an audit or from several of one model.",
        "search": "Find the shallowest plan within a budget, and test it on clips that the search has not seen.",
    },
    "Change the model": {
        "prune": "Write the model without the layers of a plan, verified in a fresh process.",
        "heal": "Train a pruned model a little, or compute weights for it, and write it, verified.",
        "heal-grid": "Heal every plan by every target, and test all of them on the same clips.",
        "train": "Build a SpeechLLM from an encoder and an LLM, as a recipe says, and train it.",
    },
    "Prove and report": {
        "evaluate": "Score the unpruned model and every plan at a task, on the same clips, with confidence intervals.",
        "bench": "Time the unpruned model and every plan in turn on the same clips, and compare their sizes.",
        "card": "Write the model card of a checkpoint: what was done, what was measured, and what was not validated.",
        "report": "Make one HTML page, which needs no network, from any of Shoal's files.",
        "validate": "Check what you require of a checkpoint; exit with 4 unless all of it was measured and holds.",
    },
}

for number, (title, commands) in enumerate(COMMANDS.items()):
    group = Group(title, sort_key=number)
    for name, line in commands.items():
        module = name.replace("-", "_")
        app.command(f"shoal.cli.{module}:{module}", name=name, help=line, group=group)


def run(arguments: list[str] | None = None) -> int:
    """Carry out a command line; returns the exit code.

    Raises:
        ShoalError: what was asked for cannot be done.
    """
    try:
        result = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        raise _usage_error(error) from None
    return result if isinstance(result, int) else 0


def main(arguments: list[str] | None = None) -> int:
    """The same, with errors as one line; `SHOAL_DEBUG=1` keeps their traceback."""
    try:
        return run(arguments)
    except ShoalError as error:
        if os.environ.get("SHOAL_DEBUG"):
            raise
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("Interrupted; run the same command to go on", 130)
    except BrokenPipeError:
        # The reader (head, less) has left; Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _usage_error(error: CycloptsError) -> UsageError:
    """In Shoal's words where a settings model refused a value, else in those of cyclopts."""
    if isinstance(error.__cause__, ValidationError) and error.argument is not None:
        return usage_error(error.__cause__, error.argument.hint)
    command = " ".join(["shoal", *(error.command_chain or ())])
    problem = str(error).partition(" Available commands:")[0]  # an incomplete list, and help has all of them
    return UsageError(problem.strip().rstrip("."), fix=f"see {command} --help")


def _fail(message: str, code: int) -> int:
    print(f"shoal: {message}", file=sys.stderr)
    return code


def entry() -> None:
    """The console script. Being told to stop unwinds like an error, so that temporary files go."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
