"""NeMo-style manifests: one JSON object a line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shoal.data.sources.base import RawRow, Source
from shoal.errors import ManifestError
from shoal.schema import BadRow

_UTF16_OR_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


def read_jsonl(path: Path) -> Source:
    """Read a manifest; blank lines are ignored, lines that are no JSON object become bad rows.

    A byte order mark and Windows line ends are accepted.

    Raises:
        ManifestError: cannot be read, empty, binary, not UTF-8 or a JSON array.
    """
    source = Source(name=str(path), label=_label(path), rows=[])
    for number, text in _lines(path):
        try:
            fields = _parse(text)
        except ValueError as error:
            source.bad.append(BadRow(manifest=source.name, line=number, reason=str(error)))
        else:
            source.rows.append(RawRow(source.name, number, fields, folder=path.parent))
    if not source.rows and not source.bad:
        raise ManifestError("the manifest is empty", where=str(path), fix="write one JSON object a line")
    return source


def _label(path: Path) -> str:
    """`test` for `corpus/test.jsonl`, but `corpus` for `corpus/manifest.jsonl`, whose stem says nothing."""
    return path.resolve().parent.name or "manifest" if path.stem == "manifest" else path.stem


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their 1-based numbers."""
    try:
        with path.open("rb") as handle:
            for number, raw in enumerate(handle, 1):
                text = _decode(raw, path, number)
                if text:
                    yield number, text
    except OSError as error:
        raise ManifestError(f"cannot be read ({error.strerror})", where=str(path)) from None


def _decode(raw: bytes, path: Path, number: int) -> str:
    where = f"{path}:{number}"
    if number == 1 and raw.startswith(_UTF16_OR_32):
        raise ManifestError("the manifest is UTF-16 or UTF-32", where=str(path), fix="save it as UTF-8")
    if b"\0" in raw:
        raise ManifestError("this is a binary file, not a manifest", where=where, fix="give a JSONL manifest")
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"not UTF-8 text (byte {error.start + 1} of the line)",
            where=where,
            fix="save the manifest as UTF-8",
        ) from None
    if number == 1 and text.startswith("["):
        raise ManifestError(
            "the manifest is a JSON array", where=str(path), fix="write one JSON object a line (JSON lines)"
        )
    return text


def _parse(text: str) -> dict[str, Any]:
    """One JSON object.

    Raises:
        ValueError: why it is none, ready to be shown.
    """
    try:
        fields = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a UTF-16 surrogate pair, which is no character") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos + 1})") from None
    except (ValueError, RecursionError):
        raise ValueError("not JSON that can be read (a number too long or nested too deeply)") from None
    if not isinstance(fields, dict):
        raise ValueError(f"a JSON {type(fields).__name__}, not an object")
    return fields
