"""Raw outputs on disk, one JSON line a clip, so that scoring can be repeated and decoding resumed.

`shoal.evaluation.output` has what a line is. Beside `NAME.jsonl` lies `NAME.json`, the header: model, layers removed,
task and decoding settings. Lines are only ever appended under the same header. A later line for the same clip replaces
an earlier one. What is in memory is the position of each line, not the lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shoal.data.clip import Row
from shoal.errors import FileFormatError
from shoal.evaluation.indexed_outputs import IndexedOutputs
from shoal.evaluation.output import Output, question_of
from shoal.schema import read_json, write_text
from shoal.schema.files import first_difference

__all__ = ["Output", "SystemOutputs", "header_path", "read_outputs"]
OUTPUTS_VERSION = 1


class SystemOutputs:
    """The outputs of one system: on disk with a path, else in memory.

    Attributes:
        path: `NAME.jsonl`, or None.
        header: what decides the outputs; see `open`.
        outputs: by clip id; with a path they are read from the disk whenever one is asked for, and only where their
            lines stand is in memory.
        beside: files of the same header that others write, whose clips need no decoding either.
        added: how many outputs `append` was given.
    """

    def __init__(self, path: Path | None, header: Mapping[str, Any]) -> None:
        self.path = path
        self.header = dict(header)
        self.beside: Sequence[IndexedOutputs] = ()
        self.added = 0
        self.outputs: dict[str, Output] | IndexedOutputs = {}

    @classmethod
    def open(cls, path: Path | None, header: Mapping[str, Any]) -> SystemOutputs:
        """Start a file, or go on with the one that is there.

        Args:
            path: `NAME.jsonl`; None keeps everything in memory.
            header: nested settings that decide the outputs. All but those under `note` must be the same as
                in the file that is there.

        Raises:
            FileFormatError: the outputs there were made otherwise, or cannot be read or written.
        """
        opened = cls(path, {"shoal_outputs": OUTPUTS_VERSION, **header})
        if path is None:
            return opened
        if path.exists() or header_path(path).exists():
            check_header(path, opened.header)
        opened.outputs = IndexedOutputs(path, repair=True)
        write_text(header_path(path), json.dumps(opened.header, indent=1, ensure_ascii=False) + "\n")
        return opened

    def knows(self, clip: str) -> bool:
        """Whether there is an output of the clip, whatever it was asked."""
        return any(clip in stored for stored in (self.outputs, *self.beside))

    def has(self, row: Row, reference: str) -> bool:
        """Whether the clip needs no decoding any more."""
        question = question_of(row, reference)
        if not isinstance(self.outputs, IndexedOutputs):
            return row.id in self.outputs and self.outputs[row.id].question == question
        return any(stored.answers(row.id, question) for stored in (self.outputs, *self.beside))

    def append(self, outputs: Sequence[Output]) -> None:
        """Add outputs; with a path they are in the file when this returns.

        Raises:
            FileFormatError: the file cannot be written.
        """
        if isinstance(self.outputs, IndexedOutputs):
            self.outputs.append(outputs)
        else:
            self.outputs |= {output.id: output for output in outputs}
        self.added += len(outputs)


def header_path(path: Path) -> Path:
    """Where the header of `NAME.jsonl` lies: `NAME.json`."""
    return path.with_suffix(".json")


def read_outputs(path: Path) -> Mapping[str, Output]:
    """All outputs by clip id, read from the disk whenever one is asked for.

    A last line that was cut while being written is left out.

    Raises:
        FileFormatError: cannot be read, or a line is not an output.
    """
    return IndexedOutputs(path)


def check_header(path: Path, header: Mapping[str, Any]) -> None:
    """Make sure that the outputs in `path` were made with the settings in `header`.

    Raises:
        FileFormatError: the header is not there, or another one; the first difference is named.
    """
    before = _without_note(read_json(header_path(path)))
    if difference := first_difference(before if isinstance(before, dict) else {}, _without_note(dict(header))):
        raise FileFormatError(
            f"these outputs were made with {difference}",
            where=str(path),
            fix="give another --out, or delete this folder to decode again",
        )


def _without_note(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_note(inner) for key, inner in value.items() if key != "note"}
