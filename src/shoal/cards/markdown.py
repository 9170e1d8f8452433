"""Markdown that no name in the data can break."""

from __future__ import annotations

from collections.abc import Sequence

from shoal import wording


def bullets(items: Sequence[str]) -> str:
    """A list, one item a line."""
    return "\n".join(f"- {item}" for item in items)


def section(title: str, text: str) -> str:
    """A heading and what stands below it, last what the marks at intervals mean."""
    return "\n\n".join([f"## {title}", text, *wording.footnotes(text)])


def code(text: str) -> str:
    """`text` as code, in one line; a backtick in it cannot end the code."""
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"
