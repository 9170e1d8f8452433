"""Emotion recognition: name the emotion that the speaker expresses; as well any other label of a clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Self

from shoal.data.clip import Row
from shoal.errors import ManifestError
from shoal.tasks.base import Task


class Ser(Task):
    """One label of a closed set, written freely and chosen by likelihood.

    Speech only: how something is said does not stand in its transcript.
    """

    def target(self, row: Row) -> str:
        """The label.

        Raises:
            ManifestError: there is none, or it is not among the task's labels.
        """
        label, labels = self.field(row, "label"), self.settings.labels
        if labels is not None and self._bare(label) not in map(self._bare, labels):
            raise ManifestError(
                f"{self.settings.fields['label']} is {label!r}, which is no label of the task {self.name}",
                where=row.place,
                fix=f"use one of {', '.join(labels)}",
            )
        return label

    def choices(self, row: Row) -> list[str]:
        """All labels; none as long as neither the YAML nor data have said which they are."""
        del row
        return list(self.settings.labels or ())

    def on(self, rows: Iterable[Row]) -> Self:
        """With the labels of the rows, each as it is written most often, where the YAML names none.

        A single label leaves nothing to choose from, and the labels open.
        """
        if self.settings.labels is not None:
            return self
        counted = Counter(self.target(row) for row in rows)
        spelled: dict[str, str] = {}
        # By the letter where spellings are equally frequent, so that the order of the manifest decides nothing.
        for label, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0])):
            spelled.setdefault(self._bare(label), label)
        if len(spelled) < 2:
            return self
        labels = tuple(spelled[bare] for bare in sorted(spelled))
        return type(self)(self.settings.model_copy(update={"labels": labels}))

    def _bare(self, label: str) -> str:
        return self.normaliser(None)(label)
