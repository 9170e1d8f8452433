"""What is exported, and how files are written: streamed, and under their name only when whole."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from shoal.evaluation.utterance_counts import blocks
from shoal.schema import files
from shoal.wording import unused

if TYPE_CHECKING:
    from shoal.evaluation.system_outputs import Output
    from shoal.schema import Scores, SystemScores
    from shoal.tasks import Task


@dataclass(frozen=True, slots=True)
class ScoredOutputs:
    """Scores and the outputs that they were made from."""

    scores: Scores
    outputs: Sequence[Mapping[str, Output]]
    """For each system clip id → output."""
    ids: Sequence[str]
    """The clips that were scored."""
    task: Task

    def systems(self) -> list[tuple[str, SystemScores, Mapping[str, Output]]]:
        """A name that can be a file's, the scores and the outputs of each system."""
        names = file_names([system.name for system in self.scores.systems])
        return list(zip(names, self.scores.systems, self.outputs, strict=True))

    def read(self, outputs: Mapping[str, Output]) -> Iterator[list[Output]]:
        """The outputs of one system, a block at a time, in the order of their ids."""
        for block in blocks(sorted(self.ids)):
            yield [outputs[clip] for clip in block]


def file_names(names: Sequence[str]) -> list[str]:
    """Names without what some file system or tool trips over, all different."""
    unique: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", name).lstrip(".") or "system"
        unique.append(unused(plain, unique, "_"))
    return unique


@contextmanager
def replaced(path: Path) -> Iterator[TextIO]:
    """A text file to write, which takes its name when everything is in it.

    Raises:
        FileFormatError: it cannot be written.
    """
    with files.replaced(path) as binary:
        stream = io.TextIOWrapper(binary, encoding="utf-8", errors="backslashreplace", newline="\n")
        yield stream
        stream.detach()
