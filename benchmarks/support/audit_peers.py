"""The peers beside the audit, on the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from shoal.data import Row
from shoal.models.batch import PreparedBatch
from shoal.models.loading import LoadedModel
from support.agreement import COMPARE, Agreement, Ours
from support.audit_work import audit_sums, numbers, prepared_rows
from support.environments import InstallError
from support.interleave import Figures, Timings, interleaved, median_ratio, print_times, rounded, seconds_of
from support.peers import Peer, PeerError, Process, known_peers, save_batches

PEER_BLOCK = 4


@dataclass
class Beside:
    """A peer, and what became of it."""

    peer: Peer
    process: Process | None = None
    problem: str | None = None

    def attempt(self, step: Callable[[], object]) -> None:
        """Do `step` unless the peer has failed before; remember how it fails."""
        if self.problem is None:
            try:
                step()
            except (PeerError, InstallError, OSError) as error:
                self.problem = str(error)


def measure_peers(
    model: LoadedModel, rows: Sequence[Row], batch_size: int, *, runs: int, cache: Path, pruneme: Path | None
) -> Figures:
    """Each peer's own measurement against the audit.

    The peers take whole texts and look at the last token, so all get prompts without a response: there the
    audit's scope `last` is the last token.
    """
    prepared = prepared_rows(model, rows, batch_size, response=False)
    batch_of = np.repeat(np.arange(len(prepared)), [len(batch.ids) for batch in prepared])
    ours = Ours(audit_sums(model, prepared), batch_of)
    cache.mkdir(parents=True, exist_ok=True)
    tokens, logits = save_batches(cache / "batches.npz", prepared), first_logits(model, prepared[0])
    beside = [start_peer(peer, cache, model.path, tokens, logits) for peer in known_peers(pruneme, PEER_BLOCK)]
    timings = interleaved(
        {"audit": lambda: seconds_of(lambda: numbers(audit_sums(model, prepared)))}
        | {item.peer.name: item.process.run for item in beside if item.process and item.problem is None},
        runs,
    )
    print(f"\npeers, on {len(rows)} prompts without a response\n")
    print_times(timings, "audit")
    figures: Figures = {}
    for item in beside:
        figures |= conclude(item, ours, timings)
    if pruneme is None:
        print("\nPruneMe\n  not measured: give --pruneme DIR, a checkout of it")
    return figures


def start_peer(peer: Peer, cache: Path, model: Path, tokens: Path, logits: torch.Tensor) -> Beside:
    """Install it, start it, see that it runs the same model and that its job works."""
    beside = Beside(peer)

    def start() -> None:
        beside.process = Process(peer, cache, model, tokens)
        beside.process.start(logits)
        beside.process.run()

    beside.attempt(start)
    return beside


@torch.inference_mode()
def first_logits(model: LoadedModel, batch: PreparedBatch) -> torch.Tensor:
    """(vocabulary,) at the last position of the first clip, run alone."""
    ids = batch.token_ids[:1, : int(batch.attention_mask[0].sum())]
    logits: torch.Tensor = model.model(input_ids=ids).logits[0, -1]
    return logits


def conclude(item: Beside, ours: Ours, timings: Timings) -> Figures:
    """Print how a peer compares; its figures."""
    found: list[Agreement] = []
    if item.process is not None:
        process = item.process
        item.attempt(lambda: found.append(COMPARE[item.peer.job](ours, process.result())))
        process.close()
    versions = f" {item.process.versions}" if item.process else ""
    print(f"\n{item.peer.name}{versions}")
    if item.problem is not None:
        print(f"  does not run: {item.problem}")
        return {}
    agreement = found[0]
    print("\n".join(f"  {line}" for line in agreement.lines))
    key = item.peer.name.lower().replace("-", "_")
    return {
        f"{key}_over_audit": rounded(median_ratio(timings, item.peer.name, "audit")),
        f"{key}_difference": float(f"{agreement.difference:.2g}"),
        f"{key}_same_choice": rounded(agreement.same / agreement.sizes),
    }
