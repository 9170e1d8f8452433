"""What the documents say exists: the files that they link to, the commands, their options."""

from __future__ import annotations

import io
import re
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest

import shoal
from shoal import errors
from shoal.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "recipes" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
)
HISTORY = {"lab-book.md"}
"""Its commands are those of the day."""
OTHER_PROGRAMS = HISTORY | {"peers.md", "CONTRIBUTING.md", "recipes/README.md"}
"""Pages that name options of other programs in the text."""

FENCE = re.compile(r"^```.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
OPTION = re.compile(r"--[a-z][a-z-]*")
COMMAND = re.compile(r"[a-z][a-z-]*")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT)) if page.parent != ROOT / "docs" else page.name


def without_code(text: str) -> str:
    return CODE.sub("", FENCE.sub("", text))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page):
    targets = [link.partition("#")[0] for link in LINK.findall(without_code(page.read_text(encoding="utf-8")))]
    missing = [target for target in targets if target and "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f": {page}\n" not in navigation] == []


def test_the_reference_has_every_public_name():
    reference = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    named = set(re.findall(r"^::: shoal\.(?:schema\.)?(\w+)$", reference, re.MULTILINE)) | set(vars(errors))
    assert set(shoal.__all__) - named == {"__version__"}


@pytest.mark.parametrize("page", [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "design.md"], ids=name)
def test_files_and_rooms_exist(page):
    rooms = ROOT / "src" / "shoal"
    codes = CODE.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    named = {code for code in codes if re.fullmatch(r"[a-z][a-z0-9_/]*(?:\.py|\.md|/)", code)}
    homes = [rooms, ROOT, *(room for room in rooms.iterdir() if room.is_dir())]
    assert [code for code in named if not any((home / code).exists() for home in homes)] == []


def test_every_room_is_in_the_design():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    rooms = {room.strip() for layer in layers for room in layer.split("|")} - {"_version"}
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert [room for room in rooms if f"`{room}/`" not in design and f"`{room}.py`" not in design] == []


def commands(text: str) -> Iterator[list[str]]:
    """The words behind `shoal` of every command in `text`: a line of a code block, or code within a line."""
    blocks = FENCE.findall(text)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines() + CODE.findall(FENCE.sub("", text))
    for line in lines:
        match = re.search(r"(?:^|/|-m |\s)shoal +(\S.*)$", line)
        if match and not line.lstrip().startswith(("pip ", "import ", "from ", "git ")):
            yield shlex.split(match[1], comments=True)


@cache
def usage(*command: str) -> str:
    """What `shoal COMMAND --help` prints."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setenv("COLUMNS", "300")
        try:
            code = main([*command, "--help"])
        except SystemExit as stopped:
            code = stopped.code
    assert code in (0, None), f"shoal {' '.join(command)} --help ends with {code}"
    return printed.getvalue()


def known(command: tuple[str, ...]) -> set[str]:
    return set(OPTION.findall(usage(*command)))


def subcommands(text: str) -> set[str]:
    """The first words of the lines of a help text."""
    return set(re.findall(r"^[│|\s]*([a-z][a-z0-9-]*)\s", text, re.MULTILINE))


@pytest.mark.parametrize("page", [page for page in PAGES if name(page) not in HISTORY], ids=name)
def test_commands_and_their_options_exist(page):
    assert [problem for words in commands(page.read_text(encoding="utf-8")) for problem in problems(words)] == []


def problems(words: list[str]) -> list[str]:
    """The first command in `words` that does not exist, or else the options that it does not have."""
    command: tuple[str, ...] = ()
    depth = 2 if words[0] == "weights" else 1
    for word in words[:depth]:
        if COMMAND.fullmatch(word):
            if word not in subcommands(usage(*command)):
                return [f"shoal {' '.join([*command, word])}"]
            command = (*command, word)
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    return [f"shoal {' '.join(command)} {option}" for option in sorted(used - known(command))]


@pytest.mark.parametrize("page", [page for page in PAGES if name(page) not in OTHER_PROGRAMS], ids=name)
def test_options_named_alone_are_options_of_some_command(page):
    every = known(()).union(*(known((command,)) for command in all_commands()))
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    named = {match[0] for code in CODE.findall(text) if (match := OPTION.match(code))}
    assert not named - every


@cache
def all_commands() -> tuple[str, ...]:
    """Every command that any page names and that exists."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES if name(page) not in HISTORY]
    named = {words[0] for text in texts for words in commands(text)}
    return tuple(sorted(named & subcommands(usage())))


GOES_ON = {"--memory", "--workers", "--shard", "--rescore"}
"""Options of a command that adds to the folder or file of another."""


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in HISTORY], ids=name)
def test_no_example_writes_over_the_result_of_another(page):
    made: dict[str, list[str]] = {}
    for words in commands("\n".join(f"```\n{block}```" for block in FENCE.findall(page.read_text(encoding="utf-8")))):
        if "--out" in words and not GOES_ON & set(words):
            out = words[words.index("--out") + 1]
            assert made.setdefault(out, words) == words
