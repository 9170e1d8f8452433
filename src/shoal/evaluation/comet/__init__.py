"""COMET (Rei et al. 2020, 2022): a learnt score of translations.

The package `unbabel-comet` needs transformers below 5 and NumPy below 2, so it cannot be installed beside Shoal. It
runs in a process of its own, with the Python of another environment: the one that `SHOAL_COMET_PYTHON` names.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from shoal.errors import ManifestError, UsageError
from shoal.evaluation.scores.answers import Answers
from shoal.evaluation.scores.base import MeanScore
from shoal.statistics import Floats

if TYPE_CHECKING:
    from shoal.tasks import Task

_log = logging.getLogger("shoal.evaluation")
VARIABLE = "SHOAL_COMET_PYTHON"
FIX = (
    "make an environment with it (python -m venv comet; comet/bin/pip install unbabel-comet) and set "
    f"{VARIABLE}=comet/bin/python"
)
WORKER = Path(__file__).with_name("worker.py")
"""In a folder without another `comet`: a script's own folder is the first that its imports look in."""
_LOOK = "from importlib.metadata import version; print(version('unbabel-comet'))"


class Comet(MeanScore):
    """The mean of COMET's scores of the segments: its score of a corpus, so that the bootstrap draws segments.

    Args:
        model: the path of a checkpoint (`.ckpt`), or the name of a model that `comet.download_model` knows.
        version: of the package.
    """

    name = "COMET"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, model: str, version: str) -> None:
        self.model, self.version = model, version
        self._process: subprocess.Popen[str] | None = None

    @classmethod
    def of(cls, model: str, task: Task) -> Comet:
        """Check that `task` can be scored so; the model is loaded when the first segments are.

        Raises:
            UsageError: it is no translation, COMET is not installed, or the checkpoint is not there.
        """
        if not {"BLEU", "chrF"} & set(task.scored_by):
            raise UsageError(
                f"COMET scores translations, and the task {task.name} is none", where="--comet", fix="leave it out"
            )
        if model.endswith(".ckpt") and not Path(model).is_file():
            raise UsageError(f"no such checkpoint: {model}", where="--comet", fix="check the path")
        return cls(model, _installed())

    @classmethod
    def again(cls, signature: str, task: Task) -> Comet | None:
        """What scored before, its model loaded; None where that cannot be done here, and a line in the log says so.

        Args:
            signature: of the earlier scores.
            task: what is scored.
        """
        model = signature.partition(", ")[2]
        try:
            comet = cls.of(model, task)
            comet._ask([])
        except UsageError as error:
            _log.warning("COMET is left out: %s; with it in place, --rescore --comet %s scores it again", error, model)
            return None
        return comet

    def statistics(self, answers: Answers) -> Floats:
        """(U, 2): the score of each segment, 1.

        Raises:
            ManifestError: COMET reads the transcripts too, and a clip has none.
            UsageError: the model cannot be loaded.
        """
        values = np.array(self._ask(_segments(answers)), dtype=np.float64)
        return np.stack([values, np.ones(len(answers))], axis=1)

    @property
    def signature(self) -> str:
        """The package with its version, and the model."""
        return f"unbabel-comet {self.version}, {self.model}"

    def _ask(self, segments: Sequence[dict[str, str]]) -> list[float]:
        if self._process is None:
            self._process = _start(self.model)
            weakref.finalize(self, _stop, self._process)
        answer = _answer(self._process, segments)
        if "error" in answer:
            raise UsageError(
                f"COMET cannot score with {self.model} ({str(answer['error']).partition(chr(10))[0]})",
                where="--comet",
                fix="give the path of a .ckpt file, or a name such as Unbabel/wmt22-comet-da",
            )
        scores: list[float] = answer["scores"]
        return scores


def _segments(answers: Answers) -> list[dict[str, str]]:
    sources: Sequence[str | None] = answers.sources or [None] * len(answers)
    if lacking := sum(source is None for source in sources):
        raise ManifestError(
            f"{lacking} of {len(sources)} clips have no transcript, which COMET reads beside the translation",
            where="--comet",
            fix="add the field text to the manifest and evaluate again in another --out, or leave --comet out",
        )
    texts = zip(sources, answers.hypotheses, answers.references, strict=True)
    return [{"src": source or "", "mt": answer, "ref": reference} for source, answer, reference in texts]


def _python() -> str:
    return os.environ.get(VARIABLE) or sys.executable


def _installed() -> str:
    """The version of COMET.

    Raises:
        UsageError: it is not there.
    """
    try:
        process = subprocess.run([_python(), "-c", _LOOK], capture_output=True, text=True, check=False)
    except OSError as error:
        raise UsageError(
            f"{_python()} cannot be run ({error.strerror})", where=VARIABLE, fix="check the path"
        ) from None
    if process.returncode:
        raise UsageError("COMET is not installed", where="--comet", fix=FIX)
    return process.stdout.strip()


def _start(model: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [_python(), str(WORKER), model],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    )


def _answer(process: subprocess.Popen[str], segments: Sequence[dict[str, str]]) -> dict[str, Any]:
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process was started without pipes")
    try:
        process.stdin.write(json.dumps(segments) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return {"error": "its process ended"}
    line = process.stdout.readline()
    answer: dict[str, Any] = json.loads(line) if line else {"error": "its process ended"}
    return answer


def _stop(process: subprocess.Popen[str]) -> None:
    """It ends when its input does."""
    process.communicate()
