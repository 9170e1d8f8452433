"""Tables of formatted cells, written once and shown as terminal text, Markdown, CSV or (by the report) HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

T = TypeVar("T")

NONE = "–"
"""Stands in a cell that has no value."""
_ASCII = str.maketrans({"\u202f": " ", "−": "-", "–": "-", "×": "x", "’": "'", "“": '"', "”": '"'})


@dataclass(frozen=True)
class Table:
    """Cells that are text already; the first column says what a row is about."""

    columns: Sequence[str]
    """Their headings."""
    rows: Sequence[Sequence[str]]
    caption: str = ""
    highlight: frozenset[int] = frozenset()
    """Rows to set apart."""
    text_columns: frozenset[int] = frozenset()
    """Columns that hold words, set flush left."""

    @classmethod
    def of(
        cls,
        caption: str,
        columns: Mapping[str, Callable[[T], str]],
        items: Iterable[T],
        text: Sequence[str] = (),
        *,
        highlight: Iterable[int] = (),
    ) -> Table:
        """A row for each item.

        Args:
            caption: above the table.
            columns: heading → what stands below it of an item.
            items: one for each row.
            text: headings of columns that hold words.
            highlight: rows to set apart.
        """
        rows = [[cell(item) for cell in columns.values()] for item in items]
        words = frozenset(index for index, heading in enumerate(columns) if heading in text)
        return cls(list(columns), rows, caption, frozenset(highlight), words)

    @property
    def filled(self) -> Table:
        """Without the columns that are empty in every row; the first stays, and all do where there is no row."""

        def shown(index: int) -> bool:
            return index == 0 or not self.rows or any(row[index] not in ("", NONE) for row in self.rows)

        kept = [index for index in range(len(self.columns)) if shown(index)]
        return replace(
            self,
            columns=[self.columns[index] for index in kept],
            rows=[[row[index] for index in kept] for row in self.rows],
            text_columns=frozenset(new for new, old in enumerate(kept) if old in self.text_columns),
        )

    def __str__(self) -> str:
        """Aligned for a terminal, in ASCII, but never cut to its width, so that it can be piped."""
        first, *others = zip(*self.filled._plain_lines(), strict=True)
        columns = [_padded(first, str.ljust), *(_padded(column, str.rjust) for column in others)]
        return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))

    def as_markdown(self) -> str:
        """A Markdown table in which no name from the data can end a cell or open a tag."""
        table = self.filled
        rule = ["---" if index in {0, *table.text_columns} else "---:" for index in range(len(table.columns))]
        headings, *rows = ([_markdown_cell(cell) for cell in line] for line in table._plain_lines())
        return "\n".join(f"| {' | '.join(line)} |" for line in (headings, rule, *rows))

    def as_csv(self) -> str:
        """All columns, as CSV."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self._plain_lines())
        return text.getvalue().rstrip("\n")

    def _plain_lines(self) -> list[list[str]]:
        return [[plain(cell) for cell in line] for line in (self.columns, *self.rows)]


def plain(text: str) -> str:
    """`text` with ASCII signs, which every terminal can show; nothing for a cell without a value."""
    return "" if text == NONE else text.translate(_ASCII)


def _padded(cells: Sequence[str], pad: Callable[[str, int], str]) -> list[str]:
    width = max(map(len, cells))
    return [pad(cell, width) for cell in cells]


def _markdown_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
