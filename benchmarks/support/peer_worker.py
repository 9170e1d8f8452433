"""Runs one peer's job in the peer's environment, told what to do line by line; imports nothing of Shoal.

    python peer_worker.py JOB MODEL_FOLDER BATCHES.npz OPTIONS_JSON

Answers one JSON line to each line of standard input: `start`, `run` (does the job once and gives its seconds)
and `result`. A job that fails answers with `error`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peer_jobs import JOBS, Batch, Job, told

FIRST_LOGITS = 64


def main() -> None:
    """Serve until standard input ends."""
    name, folder, batches_file, options = sys.argv[1:5]
    answers = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr
    server = Server(name, Path(folder), Path(batches_file), json.loads(options))
    for line in sys.stdin:
        try:
            answer = getattr(server, line.strip())()
        except Exception as error:
            answer = {"error": told(error)}
        print(json.dumps(answer), file=answers, flush=True)


class Server:
    """The commands; `start` comes first."""

    def __init__(self, name: str, folder: Path, batches_file: Path, options: dict[str, Any]) -> None:
        self.name, self.folder, self.batches_file, self.options = name, folder, batches_file, options
        self.job: Job

    def start(self) -> dict[str, Any]:
        """Load the model and say what it says, so that it is known to be the same model."""
        batches, model = read_batches(self.batches_file), load(self.folder)
        first = {key: value[:1, : int(batches[0]["attention_mask"][0].sum())] for key, value in batches[0].items()}
        with torch.no_grad():
            logits = model(**first).logits[0, -1, :FIRST_LOGITS].tolist()
        self.job = JOBS[self.name](model, batches, self.options)
        return {"logits": logits, "transformers": transformers.__version__, "version": _version(self.name)}

    def run(self) -> dict[str, Any]:
        """Time the job once."""
        start = time.perf_counter()
        self.job.run()
        return {"seconds": time.perf_counter() - start}

    def result(self) -> dict[str, Any]:
        """What the job found."""
        return self.job.result()


def read_batches(path: Path) -> list[Batch]:
    """Batches as `save_batches` wrote them."""
    with np.load(path) as data:
        return [
            {
                "input_ids": torch.from_numpy(data[f"ids_{i}"]),
                "attention_mask": torch.from_numpy(data[f"mask_{i}"]),
            }
            for i in range(len(data.files) // 2)
        ]


def load(folder: Path) -> Any:
    """The model in float32. transformers 4 does not know where version 5 writes the rotary base."""
    config = transformers.AutoConfig.from_pretrained(folder)
    if int(transformers.__version__.partition(".")[0]) < 5:
        raw = json.loads((folder / "config.json").read_text())
        config.rope_theta = raw.get("rope_parameters", raw).get("rope_theta", config.rope_theta)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, config=config)
    return model.to(torch.float32).eval()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "checkout"


if __name__ == "__main__":
    main()
