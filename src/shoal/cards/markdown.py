"""Markdown that no name in the data can break."""

from __future__ import annotations

from collections.abc import Sequence


def bullets(items: Sequence[str]) -> str:
    """A list, one item a line."""
    return "\n".join(f"- {item}" for item in items)


def section(title: str, text: str) -> str:
    """A heading and what stands below it."""
    return f"## {title}\n\n{text}"


def code(text: str) -> str:
    """`text` as code, in one line; a backtick in it cannot end the code."""
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"
