"""What an audit costs, whether its memory grows, and how it stands beside the tools people use today.

    python benchmarks/audit.py [--data MANIFEST] [--clips N] [--runs 5] [--no-peers] [--pruneme DIR]

- Time: a complete audit (every block, every scope, both metrics: prepared batches in, numbers out) over one
  plain `model(input_ids, attention_mask)` with logits on the same padded batches.
- Memory: peak of an audit of 400 clips over that of 10, each in a fresh process. The 10 hold the largest
  batch of the 400, so that what is compared is the number of clips and not their length.
- Peers: each in an environment of its own, made on first use under `--cache`; the same tokens, interleaved.
  PruneMe is not a package: give its checkout with `--pruneme` (or `$SHOAL_PRUNEME`).

The model hears nothing: the transcripts are its text input, so any text LLM will do.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from shoal.data import Row, read_manifests
from shoal.demo import clips_manifest
from shoal.measurement.settings import AuditSettings
from shoal.measurement.summary import summarise
from shoal.measurement.sums import Sums
from shoal.models.loading import LoadedModel, load
from support.audit_memory import measure_memory
from support.audit_peers import measure_peers
from support.audit_work import audit_sums, forward, numbers, prepared_rows
from support.interleave import Figures, interleaved, median_ratio, print_times, rounded, seconds_of

ROOT = Path(__file__).resolve().parents[1]
MORE_CLIPS = ROOT.parent / "shared" / "speech" / "speechocean762" / "manifest.jsonl"
MANY = 400
REPLICATES = 1000


def main() -> None:
    """Measure, print the tables, end with the figures."""
    options = parse()
    model = load(options.model, dtype="float32")
    rows = read_manifests([options.data], limit=MANY).rows
    figures = measure_time(model, rows[: options.clips], options.batch_size, options.runs)
    if options.memory:
        figures |= measure_memory(model, rows, options.batch_size)
    if options.peers:
        timed = rows[: options.clips]
        figures |= measure_peers(
            model,
            timed,
            options.batch_size,
            runs=options.runs,
            cache=options.cache,
            pruneme=options.pruneme and Path(options.pruneme),
        )
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="pkg:smollm2-135m-instruct")
    add("--data", type=Path, default=MORE_CLIPS if MORE_CLIPS.is_file() else clips_manifest())
    add("--clips", type=int, default=64, help="how many are timed")
    add("--batch-size", type=int, default=8)
    add("--runs", type=int, default=5)
    add("--memory", action=argparse.BooleanOptionalAction, default=True)
    add("--peers", action=argparse.BooleanOptionalAction, default=True)
    add("--pruneme", metavar="DIR", default=os.environ.get("SHOAL_PRUNEME"), help="a checkout of PruneMe")
    add("--cache", type=Path, default=ROOT / ".cache" / "benchmarks", help="for the peers' environments")
    return parser.parse_args()


def measure_time(model: LoadedModel, rows: Sequence[Row], batch_size: int, runs: int) -> Figures:
    """The audit against a plain forward pass, interleaved."""
    prepared = prepared_rows(model, rows, batch_size, response=True)
    sums = audit_sums(model, prepared)
    timings = interleaved(
        {
            "forward": lambda: seconds_of(lambda: forward(model, prepared)),
            "audit": lambda: seconds_of(lambda: numbers(audit_sums(model, prepared))),
            "intervals": lambda: seconds_of(lambda: with_intervals(sums)),
        },
        runs,
    )
    timings["both"] = [a + b for a, b in zip(timings["audit"], timings["intervals"], strict=True)]
    positions = int(sum(batch.attention_mask.sum() for batch in prepared))
    padded = sum(batch.attention_mask.numel() for batch in prepared)
    print(f"{model.ref}, {model.dtype_name}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{len(rows)} clips, {len(prepared)} batches, {positions} positions ({padded} with padding)\n")
    print_times(timings, "forward")
    return {
        "audit_over_forward": rounded(median_ratio(timings, "audit", "forward")),
        "audit_with_intervals_over_forward": rounded(median_ratio(timings, "both", "forward")),
    }


def with_intervals(sums: Sums) -> object:
    """Bootstrap intervals of every number, the best blocks and how sure they are: what a report needs."""
    return summarise(sums, "text", AuditSettings(replicates=REPLICATES))


if __name__ == "__main__":
    main()
