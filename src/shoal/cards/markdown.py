"""Markdown that no name in the data can break."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.schema import Delta


def bullets(items: Sequence[str]) -> str:
    """A list, one item a line."""
    return "\n".join(f"- {item}" for item in items)


def section(title: str, text: str) -> str:
    """A heading and what stands below it."""
    return f"## {title}\n\n{text}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns that are empty in every row are left out."""
    filled = [place for place in range(len(headings)) if any(row[place] for row in rows)]
    lines = [[headings[place] for place in filled], ["---"] * len(filled)]
    lines += [[cell(row[place]) for place in filled] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """`text` in one line, with nothing in it that ends a cell or opens a tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def code(text: str) -> str:
    """`text` as code, in one line; a backtick in it cannot end the code."""
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"


def p_value(delta: Delta | None) -> str:
    """After Holm's correction where there was one; the plain one is marked."""
    if delta is None or (delta.p_holm is None and delta.p_value is None):
        return ""
    return f"{delta.p_holm:.3f}" if delta.p_holm is not None else f"{delta.p_value:.3f} (alone)"
