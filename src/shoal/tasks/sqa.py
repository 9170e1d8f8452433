"""Spoken questions and instructions, with reference answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal.data.clip import Row
from shoal.errors import ManifestError
from shoal.tasks.base import Task


class Sqa(Task):
    """A question or an instruction is spoken; the answer is compared with all that are accepted.

    A row has one answer, a list of answers, or both; with a list of choices it is multiple choice too.
    """

    def target(self, row: Row) -> str:
        """The answer, or the first of the answers.

        Raises:
            ManifestError: there is none, or it is not among the row's choices.
        """
        accepted = self._all(row.fields, row)
        if not accepted:
            self.field(row, "answer")
        choices = self._list(row.fields, "choices", row)
        if choices and accepted[0] not in choices:
            raise ManifestError(
                f"the answer {accepted[0]!r} is not among the {self.settings.fields['choices']}",
                where=row.place,
                fix="write it there as it stands in the answer",
            )
        return accepted[0]

    def accepted(self, text: str, fields: Mapping[str, Any]) -> list[str]:
        """The target and every other answer of the row."""
        return list(dict.fromkeys([text, *self._all(fields)]))

    def choices(self, row: Row) -> list[str]:
        """The row's choices, if it has any."""
        return self._list(row.fields, "choices", row)

    def _all(self, fields: Mapping[str, Any], row: Row | None = None) -> list[str]:
        one = fields.get(self.settings.fields["answer"])
        single = " ".join(one.split()) if isinstance(one, str) else ""
        if one is not None and not isinstance(one, str):
            raise ManifestError(
                f"{self.settings.fields['answer']} is not text",
                where=row.place if row else None,
                fix="write it in quotation marks",
            )
        return [*([single] if single else []), *self._list(fields, "answers", row)]

    def _list(self, fields: Mapping[str, Any], role: str, row: Row | None) -> list[str]:
        name = self.settings.fields[role]
        values = fields.get(name)
        values = [] if values is None else values
        if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
            raise ManifestError(
                f"{name} is not a list of texts", where=row.place if row else None, fix='write ["one", "two"]'
            )
        lines = list(dict.fromkeys(" ".join(value.split()) for value in values))
        if role == "choices" and len(lines) == 1:
            raise ManifestError(f"a single one in {name}", where=row.place if row else None, fix="give two or more")
        return lines
