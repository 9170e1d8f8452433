"""Reading and writing JSON: whole files or none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import yaml

from shoal.errors import FileFormatError, UsageError
from shoal.machine import writing


def read_json(path: str | os.PathLike[str]) -> Any:
    """Parse a JSON file.

    Raises:
        FileFormatError: not there, not readable or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileFormatError("no such file", where=str(path), fix="check the path") from None
    except OSError as error:
        raise FileFormatError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FileFormatError(
            f"not valid JSON ({error.__class__.__name__}: {error})", where=str(path), fix="make the file again"
        ) from None


class Difference(NamedTuple):
    """A setting that is not as it was."""

    key: str
    """Such as `optimisation.steps`."""
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} {_short(self.before)}, not {_short(self.now)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:79] + "…"


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> Difference | None:
    """The first setting that differs, by name, inside nested settings too; None if all are equal.

    Args:
        before: as JSON gives them.
        now: what JSON can hold, or has a text for.
    """
    now = json.loads(json.dumps(dict(now), default=str))
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            if nested := first_difference(old, new):
                return nested._replace(key=f"{key}.{nested.key}")
        elif old != new:
            return Difference(key, old, new)
    return None


REPLACE = "choose another with --out, or replace it with --force"


def holds_another(path: Path | None, what: str, *, fix: str = REPLACE) -> UsageError:
    """The refusal of a folder or a file that holds something else than is asked for, which `what` says."""
    return UsageError(f"it holds {what}", where=str(path), fix=fix)


def check_same(
    path: Path | None,
    what: str,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    force: bool = False,
    fix: str = REPLACE,
) -> bool:
    """Whether what a folder or a file holds was made with the settings of now; where it must not be replaced, it was.

    Args:
        path: of the folder or the file.
        what: it holds, such as `a bench`.
        before: the settings that it was made with, as JSON gives them.
        now: what JSON can hold, or has a text for.
        force: it may be replaced.
        fix: what to do where the settings differ.

    Raises:
        UsageError: a setting differs; the line names the first.
    """
    difference = first_difference(before, now)
    if difference and not force:
        raise holds_another(path, f"{what} with {difference}", fix=fix)
    return difference is None


def claim(path: Path, what: str, settings: Mapping[str, Any], *, fix: str) -> None:
    """Write down the settings that a folder's work is done with, or make sure that it was begun with them.

    Args:
        path: of the file in that folder; made if it is not there.
        what: the folder holds, such as `an unfinished run`.
        settings: what JSON can hold, or has a text for.
        fix: what to do where they differ.

    Raises:
        UsageError: a setting differs.
        FileFormatError: the file cannot be read or written.
    """
    if path.is_file():
        check_same(path.parent, what, read_json(path), settings, fix=fix)
    else:
        write_text(path, json.dumps(dict(settings), indent=1, default=str) + "\n")


def read_yaml(path: str | os.PathLike[str], *, what: str, fix: str) -> dict[str, Any]:
    """Parse a YAML file that holds one mapping.

    Args:
        path: of the file.
        what: it should be, such as `a recipe`.
        fix: what to do where it is something else.

    Raises:
        FileFormatError: not there, not readable, not YAML or no mapping.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileFormatError("no such file", where=str(path), fix="check the path") from None
    except yaml.MarkedYAMLError as error:
        mark = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise FileFormatError(
            f"not YAML that can be read ({mark}{error.problem})",
            where=str(path),
            fix="indent with spaces, and write text with a colon, a bracket or a # in quotes",
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FileFormatError(f"cannot be read as text ({error})", where=str(path)) from None
    if not isinstance(content, dict):
        raise FileFormatError(f"not {what}", where=str(path), fix=fix)
    return content


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` under `path` through a temporary name in the same folder; returns the path.

    Raises:
        FileFormatError: the folder cannot be made or written.
    """
    target = Path(path)
    with replaced(target) as stream:
        stream.write(text.encode())
    return target


@contextmanager
def replaced(path: Path, *, fix: str = "choose another place with --out") -> Iterator[BinaryIO]:
    """A file to write, which takes its name when everything is in it.

    Args:
        path: its name.
        fix: what to do where it cannot be written, besides making room.

    Raises:
        FileFormatError: the folder cannot be made or written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path, fix=fix):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                yield stream
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()
