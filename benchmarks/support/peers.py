"""The peers: which there are, and a handle on each one's process."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from shoal.models.batch import PreparedBatch
from support.environments import Environment

WORKER = Path(__file__).with_name("peer_worker.py")
LOGIT_TOLERANCE = 1e-3
"""float32 in two transformers versions differs by far less; another model or rotary base by far more."""


class PeerError(Exception):
    """A peer could not be installed, started or run; the message is its own."""


@dataclass(frozen=True)
class Peer:
    """A tool to stand beside: what it runs in and what it is told."""

    name: str
    job: str
    environment: Environment
    options: dict[str, Any] = field(default_factory=dict)


def known_peers(pruneme: Path | None, block: int) -> tuple[Peer, ...]:
    """Those that can be measured here; short-transformers twice: transformers 4.53 is the last it runs with.

    Args:
        pruneme: a checkout; without one PruneMe is not among them.
        block: the block size that one run of PruneMe measures.
    """
    newest = ("transformers==5.23.0",)
    short = "short-transformers"
    found = [Peer("optipfair", "optipfair", Environment("optipfair", (*newest, "optipfair==0.4.2")))]
    if pruneme is not None:
        options = {"checkout": str(pruneme.absolute()), "block": block}
        found.append(Peer("PruneMe", "pruneme", Environment("pruneme", newest), options))
    found.append(Peer(short, short, Environment(short, ("transformers==4.53.3", f"{short}==1.0.0"))))
    found.append(Peer(f"{short} on transformers 5", short, Environment(f"{short}-5", (*newest, f"{short}==1.0.0"))))
    return tuple(found)


def save_batches(path: Path, batches: list[PreparedBatch]) -> Path:
    """Token ids and masks of `batches` (right-padded) as `.npz`."""
    arrays: dict[str, Any] = {}
    for number, batch in enumerate(batches):
        arrays[f"ids_{number}"] = batch.token_ids.clamp(min=0).numpy()
        arrays[f"mask_{number}"] = batch.attention_mask.numpy()
    np.savez(path, **arrays)
    return path


class Process:
    """A running peer. Close it when done.

    Args:
        peer: which.
        cache: holds the environments, and a log for each peer.
        model: folder of the model.
        batches: what `save_batches` wrote.

    Raises:
        PeerError: it does not start.
        InstallError: it does not install.
    """

    def __init__(self, peer: Peer, cache: Path, model: Path, batches: Path) -> None:
        self.peer, self._log = peer, cache / f"{peer.environment.name}.log"
        interpreter = peer.environment.python(cache)
        command = [
            str(interpreter),
            str(WORKER),
            peer.job,
            str(model),
            str(batches),
            json.dumps(peer.options),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "HF_HUB_OFFLINE": "1"}
        environment.pop("PYTHONPATH", None)
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        self.started: dict[str, Any] = {}

    def start(self, logits: torch.Tensor) -> None:
        """Load the model there, and see that it is the same one: `logits` (n,) are its first at one position.

        Raises:
            PeerError: it cannot be loaded, or says something else.
        """
        self.started = self._ask("start")
        theirs = torch.tensor(self.started["logits"])
        difference = float((theirs - logits[: len(theirs)]).abs().max())
        if difference > LOGIT_TOLERANCE:
            raise PeerError(f"its logits are off by {difference:.3g}, so it does not run the same model")

    def run(self) -> float:
        """Do its job once; seconds.

        Raises:
            PeerError: the job failed.
        """
        return float(self._ask("run")["seconds"])

    def result(self) -> dict[str, Any]:
        """What the job found.

        Raises:
            PeerError: there is nothing.
        """
        return self._ask("result")

    def close(self) -> None:
        """End the process."""
        _stream(self._process.stdin).close()
        self._process.wait()

    @property
    def versions(self) -> str:
        """Its own version and that of transformers."""
        return f"{self.started.get('version', '?')}, transformers {self.started.get('transformers', '?')}"

    def _ask(self, command: str) -> dict[str, Any]:
        try:
            _stream(self._process.stdin).write(command + "\n")
            _stream(self._process.stdin).flush()
        except BrokenPipeError:
            pass
        line = _stream(self._process.stdout).readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it ended without a word'} (see {self._log})"


def _stream(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise PeerError("its pipes are closed")
    return stream
