"""Reading and writing JSON: whole files or none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import yaml

from shoal.errors import FileFormatError
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
        return f"{self.key} ({_short(self.before)}, now {_short(self.now)})"


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


def claim(path: Path, settings: Mapping[str, Any]) -> Difference | None:
    """Write down the settings that a folder's work is done with; where some are there, compare.

    Args:
        path: of the file; made if it is not there.
        settings: what JSON can hold, or has a text for.

    Returns:
        The first setting that differs, by name; None if the folder is free or was claimed by the same settings.

    Raises:
        FileFormatError: the file cannot be read or written.
    """
    if path.is_file():
        return first_difference(read_json(path), settings)
    write_text(path, json.dumps(dict(settings), indent=1, default=str) + "\n")
    return None


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
