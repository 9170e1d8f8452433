"""How a card writes numbers and names: Markdown that no name in the data can break."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from shoal.schema import DataInfo, Delta, Estimate

LANGUAGE_FIELD = "lang"


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


def estimate(found: Estimate | None, *, fraction: bool, signed: bool = False, digits: int = 1) -> str:
    """`12.3 % [11.0, 13.9]`, or without the sign of per cent where a score is no fraction; empty for None."""
    if found is None:
        return ""
    form, scale, unit = f"{'+' if signed else ''}.{digits}f", 100 if fraction else 1, " %" if fraction else ""
    value = f"{scale * found.value:{form}}{unit}"
    if found.low is None or found.high is None:
        return value
    return f"{value} [{scale * found.low:{form}}, {scale * found.high:{form}}]"


def p_value(delta: Delta | None) -> str:
    """After Holm's correction where there was one; the plain one is marked."""
    if delta is None or (delta.p_holm is None and delta.p_value is None):
        return ""
    return f"{delta.p_holm:.3f}" if delta.p_holm is not None else f"{delta.p_value:.3f} (alone)"


def data_name(data: DataInfo) -> str:
    """What the clips are called: the manifests' names, in one line.

    Of an absolute path only folder and name: the rest says where this machine keeps it, which is nobody's business.
    """
    names = [
        "/".join(path.parts[-2:]) if (path := PurePath(name)).is_absolute() else name
        for name in data.manifests
    ]
    return " ".join(", ".join(names).split()) or "clips without a name"


def listing(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def plural(count: int, noun: str) -> str:
    """`1 clip`, `1,234 clips`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
