"""How many clips an audit needs that stops by itself, and whether its choice is that of 400 clips.

    python benchmarks/audit_until.py [--models pkg:reference:speech …] [--clips 400] [--until 0.99] [--orders 40]

- Each model is measured once on all clips. What is stored of every clip is then taken in in many random orders, by the
  rule of `shoal audit --until`, which sees no more than an audit of those clips would.
- `clips_share`: clips needed over all clips, the median over orders, and of that the mean over models.
- `same_choice`: of all orders and numbers of layers (1 … half of the depth), the share in which the block chosen early
  is, on all clips, the best one or at most 2 % farther than it, which is what the rule promises. `same_block`: in which
  it is the very same block. `worst_model`: the smallest `same_choice` of a model.
- One real run of each model, in a folder of its own, must stop at the same clip as its replay.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

import shoal
from shoal.data import Row
from shoal.demo import clips_manifest
from shoal.measurement.best_blocks import TOLERANCE
from shoal.measurement.blocks import block_slice
from shoal.measurement.metrics import cosine_metrics
from shoal.measurement.stopping import in_random_order, looks_at, stable
from shoal.measurement.sums import Sums, load_sums, units_of
from shoal.measurement.trust import cost_rows
from shoal.schema import Look
from shoal.statistics import make_resampler
from shoal.terms import DEFAULT_SCOPE
from support.interleave import rounded

ROOT = Path(__file__).resolve().parents[1]
SPEECH = ROOT.parent / "shared" / "speech" / "speechocean762" / "manifest.jsonl"
MODELS = ("pkg:reference:speech", "pkg:smollm2-135m-instruct:text", "pkg:gemma-3-270m:text")
REPLICATES = 200
ANGULAR = next(metric for metric in cosine_metrics() if metric.name == "angular")


class Stopped(NamedTuple):
    """Where one order stopped, and what it chose for 1 … L/2 layers."""

    clips: int
    layers: list[int]


def main() -> None:
    """Measure, replay, print the table, end with the figures."""
    options = parse()
    data = shoal.read_manifests([options.data], limit=options.clips)
    shares, right, same = [], [], []
    print(f"{'model':<34} {'clips':>12} {'of':>5}  {'as good':>8} {'same':>6}  real run")
    for name in options.models:
        ref, _, kind = name.rpartition(":")
        model = shoal.load(ref)
        with tempfile.TemporaryDirectory() as folder:
            shoal.audit(model, data, inputs=(kind,), out=folder, replicates=REPLICATES)
            sums = load_sums(Path(folder) / "audit.npz").inputs[kind]
        rows = [row for row in data.rows if row.id in set(sums.utterances)]
        stops = [replayed(sums, rows, seed, options.until) for seed in range(options.orders)]
        good, equal = compared(sums, stops)
        clips = [stop.clips for stop in stops]
        real = shoal.audit(model, data, inputs=(kind,), until=options.until, replicates=REPLICATES).data.clips
        print(
            f"{name:<34} {statistics.median(clips):>5.0f} ({min(clips)}-{max(clips)}) {len(rows):>5}  {good:>8.4f} "
            f"{equal:>6.3f}  {real} clips, replay {clips[0]}",
            flush=True,
        )
        shares.append(statistics.median(clips) / len(rows))
        right.append(good)
        same.append(equal)
    figures = {
        "clips_share": rounded(statistics.mean(shares)),
        "same_choice": rounded(statistics.mean(right)),
        "same_block": rounded(statistics.mean(same)),
        "worst_model": rounded(min(right)),
    }
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", nargs="+", default=list(MODELS), help="REF:INPUT")
    add("--data", type=Path, default=SPEECH if SPEECH.is_file() else clips_manifest())
    add("--clips", type=int, default=400)
    add("--until", type=float, default=0.99)
    add("--orders", type=int, default=40)
    return parser.parse_args()


def replayed(sums: Sums, rows: Sequence[Row], seed: int, target: float) -> Stopped:
    """Where an audit with this seed would stop."""
    place = {clip: index for index, clip in enumerate(sums.utterances)}
    order = in_random_order(rows, seed)
    looks: list[Look] = []
    for clips in looks_at(order):
        part = taken(sums, sorted(place[row.id] for row in order[:clips]))
        resampler = make_resampler(units_of(part, "speaker").clusters, replicates=REPLICATES, seed=0)
        costs = cost_rows(part, DEFAULT_SCOPE, ANGULAR, resampler)
        found = [chosen(costs, sums.depth, n) for n in range(1, sums.depth // 2 + 1)]
        least, n = min((share, n) for n, (_, share) in enumerate(found, 1))
        looks.append(Look(clips=clips, least=least, n=n))
        if stable(looks, target):
            break
    return Stopped(clips, [layer for layer, _ in found])


def taken(sums: Sums, places: Sequence[int]) -> Sums:
    """The sums of some clips."""
    return replace(
        sums,
        utterances=[sums.utterances[place] for place in places],
        speakers=[sums.speakers[place] for place in places],
        values=np.asarray(sums.values[places]),
        counts=sums.counts[places],
    )


def chosen(costs: np.ndarray, depth: int, n: int) -> tuple[int, float]:
    """The best block of n layers that keeps the last, and the share of replicates in which it is nearly the best."""
    blocks = block_slice(depth, n)
    part = costs[:, blocks.start : blocks.stop - 1]
    layer = int(part[0].argmin())
    best = part[1:].min(axis=1)
    return layer, float((part[1:, layer] <= best + TOLERANCE * np.abs(best)).mean())


def compared(sums: Sums, stops: Sequence[Stopped]) -> tuple[float, float]:
    """Shares of the choices that are as good as the best on all clips, and that are the best."""
    means = sums.mean(DEFAULT_SCOPE, "angular")
    good, same = [], []
    for stop in stops:
        for n, layer in enumerate(stop.layers, 1):
            blocks = block_slice(sums.depth, n)
            part = means[blocks.start : blocks.stop - 1]
            good.append(part[layer] <= part.min() * (1 + TOLERANCE))
            same.append(layer == int(part.argmin()))
    return float(np.mean(good)), float(np.mean(same))


if __name__ == "__main__":
    main()
