"""Transcripts as NIST's sclite reads them: `text (speaker-utterance)`, a line for each utterance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
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

    Clips whose reference is empty once normalised are in `raw/` only, because no error rate judges them.

    Where characters count as words, `normalised/` has a space between them, so that sclite counts them too. Braces
    mean alternatives to sclite: score what is in `normalised/`.

    Raises:
        FileFormatError: a file cannot be written.
    """
    ready = _normalised(stored.task)
    _write_kind(folder / "normalised", stored, ready, lambda output: bool(ready(output.text, output)))
    _write_kind(folder / "raw", stored, _one_line, lambda _: True)


Ready = Callable[[str, Output], str]
"""A text of an output as it is to be written."""


def _write_kind(folder: Path, stored: ScoredOutputs, ready: Ready, kept: Callable[[Output], bool]) -> None:
    def write_file(name: str, outputs: Mapping[str, Output], text: Callable[[Output], str]) -> None:
        with replaced(folder / name) as stream:
            for output in chain.from_iterable(stored.read(outputs)):
                if kept(output):
                    stream.write(f"{text(output)} ({identity(output)})\n".lstrip(" "))

    write_file("ref.trn", stored.outputs[0], lambda output: ready(output.text, output))
    for name, _, outputs in stored.systems():
        write_file(f"hyp.{name}.trn", outputs, lambda output: ready(output.pred_text, output))


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
