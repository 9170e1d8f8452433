"""Transcripts as NIST's sclite reads them: `text (speaker-utterance)`, a line for each utterance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from shoal.evaluation.export.scored_outputs import ScoredOutputs, replaced
from shoal.evaluation.system_outputs import Output

if TYPE_CHECKING:
    from shoal.tasks import Task

KEPT = "".join(chr(code) for code in range(33, 127) if chr(code) not in "()%;")
"""Characters that stand in an id as they are; others are written as in an address, `%20`: ids differ still."""


def write(folder: Path, stored: ScoredOutputs) -> None:
    """`ref.trn` and `hyp.SYSTEM.trn`, in `normalised/` as they are scored and in `raw/` as they stand.

    Where characters count as words, `normalised/` has a space between them, so that sclite counts them too. Braces
    mean alternatives to sclite: score what is in `normalised/`.

    Raises:
        FileFormatError: a file cannot be written.
    """
    _write_kind(folder / "normalised", stored, _normalised(stored.task))
    _write_kind(folder / "raw", stored, _one_line)


Ready = Callable[[str, Output], str]
"""A text of an output as it is to be written."""


def _write_kind(folder: Path, stored: ScoredOutputs, ready: Ready) -> None:
    _write(folder / "ref.trn", stored, stored.outputs[0], lambda output: ready(output.text, output))
    for name, _, outputs in stored.systems():
        _write(folder / f"hyp.{name}.trn", stored, outputs, lambda output: ready(output.pred_text, output))


def _write(path: Path, stored: ScoredOutputs, outputs: Mapping[str, Output], text: Callable[[Output], str]) -> None:
    with replaced(path) as stream:
        for block in stored.read(outputs):
            stream.writelines(f"{text(output)} ({identity(output)})\n".lstrip(" ") for output in block)


def _normalised(task: Task) -> Ready:
    def ready(text: str, output: Output) -> str:
        return task.words(task.normaliser(output.lang)(text), output.lang)

    return ready


def _one_line(text: str, output: Output) -> str:
    del output
    return " ".join(text.split())


def identity(output: Output) -> str:
    """`SPEAKER-CLIP`; a clip without a speaker is a speaker of its own."""
    return f"{_plain(output.speaker or output.id)}-{_plain(output.id)}"


def _plain(text: str) -> str:
    return quote(text, safe=KEPT, errors="backslashreplace")
