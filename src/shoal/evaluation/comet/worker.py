"""Runs COMET in a Python that has it, for `shoal.evaluation.comet`. Needs nothing but the standard library and COMET.

::

    python worker.py MODEL

A line on stdin is a JSON list of segments (`src`, `mt`, `ref`), the line that answers it on stdout a JSON object: its
`scores`, one for each segment, or an `error`. It ends when stdin does.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

BATCH_SIZE = 16
"""Segments that COMET's model reads at a time."""


def load(name: str) -> Any:
    """A checkpoint by its path, or a model by the name that COMET knows it by."""
    from comet import download_model, load_from_checkpoint

    return load_from_checkpoint(name if os.path.isfile(name) else download_model(name))  # noqa: PTH113


def scores(model: Any, segments: list[dict[str, str]]) -> list[float]:
    """The score of each segment."""
    if not segments:
        return []
    import torch

    gpus = int(torch.cuda.is_available())
    prediction = model.predict(segments, batch_size=BATCH_SIZE, gpus=gpus, progress_bar=False)
    return [float(score) for score in prediction.scores]


def main() -> None:
    """Answer until there is no more to answer."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # Whatever COMET and Lightning print must not stand among the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    model = None
    for line in sys.stdin:
        try:
            model = load(sys.argv[1]) if model is None else model
            answer: dict[str, Any] = {"scores": scores(model, json.loads(line))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
