"""The help: every command and option says what it is, in words that stand alone, and quickly."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from cyclopts import App

from shoal.cli import COMMANDS, app, main

STARTS = re.compile(r"[A-Z]|cpu|pkg:|hf:")


def commands(of: App = app, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    for name in of:
        if not name.startswith("-"):
            command = of[name]
            yield (*path, name), command
            yield from commands(command, (*path, name))


@pytest.mark.parametrize(("path", "command"), list(commands()), ids=lambda each: " ".join(each))
def test_every_option_says_what_it_is(path: tuple[str, ...], command: App, capsys) -> None:
    assert len(command.help.split()) >= 3
    if command.default_command is None:
        return
    for argument in command.assemble_argument_collection(parse_docstring=True):
        if not argument.children and argument.parameter.parse:
            text = argument.parameter.help or ""
            about = (*path, argument.name, text)
            assert len(text.split()) >= 3, about
            assert STARTS.match(text), about
            assert not text.startswith(("Of ", "See ")), about
            assert "\n" not in text, about
    assert main([*path, "--help"]) == 0
    assert "--help" not in capsys.readouterr().err


def test_help_is_light() -> None:
    lines = [[], *(path for path, _ in commands())]
    heavy = ("torch", "transformers", "numpy", "scipy", "plotly", "yaml", "psutil", "shoal.schema")
    code = (
        "import sys; from shoal.cli import main\n"
        f"for line in {lines!r}: assert main([*line, '--help']) == 0\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    for listed in COMMANDS.values():
        for name, line in listed.items():
            assert app[name].help.splitlines()[0] == line


def test_help_keeps_all_of_a_docstring_and_begins_with_what_matters(capsys) -> None:
    main(["train", "--help"])
    assert "goes on where it was interrupted" in capsys.readouterr().out
    main(["heal", "--help"])
    text = capsys.readouterr().out
    assert text.index("--target") < text.index("--rank")


def test_an_option_that_is_given_again_replaces_the_first(tmp_path, capsys) -> None:
    """A command line that is built up may end with what it wants otherwise; a list goes on."""
    missing = str(tmp_path / "recipe.yaml")
    line = ["train", missing, "--workers", "-1", "--out", str(tmp_path / "a"), "--workers", "2"]
    assert main(line) == 2
    assert missing in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("select a.json --layers 2 --strategy contigous", "did you mean contiguous? use contiguous, deepest"),
        ("evaluate m --data d --task asrr", "did you mean asr? use asr, ast"),
        ("prune pkg:referense --layers-list 3 --out o", "did you mean pkg:reference? known are reference"),
        ("heal m --data d --target jont --out o", "did you mean joint? use receiver"),
        ("heal-grid m --data d --test t --target jont --out o", "did you mean joint? use receiver"),
        ("validate m --require-task asrr", "did you mean asr? use asr, ast"),
    ],
)
def test_an_unknown_value_is_answered_with_the_nearest(line: str, told: str, capsys) -> None:
    assert main(line.split()) == 2
    assert told in capsys.readouterr().err


def test_completion_knows_commands_and_options(capsys) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("heal-grid", "--block-sizes", "contiguous"))


def test_shoal_alone_shows_the_commands(capsys) -> None:
    assert main([]) == 0
    assert "Measure and choose" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["heal", "heal-grid", "search"])
def test_help_wraps_in_a_narrow_terminal_and_cuts_no_name(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 60
    words = text.split()
    for argument in app[command].assemble_argument_collection():
        if not argument.children and argument.parameter.parse:
            assert argument.name in words


def test_an_unknown_command_is_answered_with_the_nearest(capsys) -> None:
    assert main(["slect"]) == 2
    assert capsys.readouterr().err == 'shoal: Unknown command "slect". Did you mean "select"?; see shoal --help\n'
