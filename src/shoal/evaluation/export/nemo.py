"""NeMo manifests with `pred_text`, as its `transcribe_speech.py` writes and its `speech_to_text_eval.py` reads them."""

from __future__ import annotations

import json
from pathlib import Path

from shoal.evaluation.export.scored_outputs import ScoredOutputs, replaced
from shoal.evaluation.system_outputs import Output


def write(folder: Path, stored: ScoredOutputs) -> None:
    """One manifest for each system, `SYSTEM.json`: the manifest's fields, `text` (the reference) and `pred_text`.

    Raises:
        FileFormatError: a file cannot be written.
    """
    for name, _, outputs in stored.systems():
        with replaced(folder / f"{name}.json") as stream:
            for block in stored.read(outputs):
                stream.writelines(json.dumps(row(output), ensure_ascii=False, default=str) + "\n" for output in block)


def row(output: Output) -> dict[str, object]:
    """One line of the manifest; texts as they are, for NeMo normalises them itself."""
    return {
        **output.fields,
        "id": output.id,
        "audio_filepath": output.audio_filepath,
        "offset": output.offset,
        "duration": output.duration,
        "text": output.text,
        "pred_text": output.pred_text,
    }
