"""What ablation by replay saves over one full evaluation for each candidate, and what a race saves on top.

    python benchmarks/ablation.py [--models …] [--clips 8] [--triangle-clips 2] [--race-clips 200] [--runs 3]

- Single layers and the whole (l, n) triangle: Shoal's replay against removing each candidate and running the whole
  decoder, both with the head at the response's positions only (`lean`, the fair one), and against the stock forward
  pass with logits at every position (`stock`, what tools do that score candidates by perplexity). Embedded batches are
  shared, so the encoder runs for nobody. Largest difference of the losses: printed, and checked against 1e-5.
- Race: losses of all single layers on `--race-clips` clips, measured once; then 50 races for data sets of several
  sizes, resampled from these clips with replacement. Saved: layer evaluations against one full evaluation a
  candidate, and against replaying every candidate on every clip. Agreement: how often the race names the layer that
  has the lowest loss over all of the resampled clips. A race only reads losses of clips, which do not depend on each
  other, so nothing is run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from shoal import tasks
from shoal.data import read_manifests
from shoal.decoder.batches import prepared_batches
from shoal.demo import clips_manifest
from shoal.measurement.ablation_losses import Ablation
from shoal.measurement.blocks import block_candidates
from shoal.measurement.racing import Race, rounds_of
from shoal.models.batch import PreparedBatch
from shoal.models.loading import LoadedModel, load
from shoal.pruning.in_memory import pruned
from shoal.schema import InputKind
from shoal.statistics import Floats, Ints
from shoal.terms import Candidate
from support.interleave import Figures, interleaved, median_ratio, print_times, rounded, seconds_of

ROOT = Path(__file__).resolve().parents[1]
MORE_CLIPS = ROOT.parent / "shared" / "speech" / "speechocean762" / "manifest.jsonl"
MODELS = ("pkg:reference", "pkg:smollm2-135m-instruct", "pkg:gemma-3-270m")
RACES = 50
SIZES = (200, 1000, 2000)
STATED = 1000
"""Clips for which the saving is stated: a development set of the usual size."""


def main() -> None:
    """Measure, print the tables, end with the figures: those of the first model under the plain names."""
    options = parse()
    figures: Figures = {}
    for place, ref in enumerate(options.models):
        found = measure_model(ref, options, first=place == 0)
        name = ref.removeprefix("pkg:")
        figures |= found if place == 0 else {f"{name}_{key}": value for key, value in found.items()}
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--models",
        nargs="+",
        default=list(MODELS),
        help="a SpeechLLM hears, a text LLM reads the transcripts",
    )
    add("--data", type=Path, default=MORE_CLIPS if MORE_CLIPS.is_file() else clips_manifest())
    add("--clips", type=int, default=8, help="for single layers; 0: none")
    add("--triangle-clips", type=int, default=2, help="0: no triangle")
    add("--race-clips", type=int, default=200, help="of the first model; 0: no race")
    add("--race-losses", type=Path, help="an .npz that keeps what the races are drawn from")
    add("--runs", type=int, default=3)
    return parser.parse_args()


def measure_model(ref: str, options: argparse.Namespace, *, first: bool) -> Figures:
    """All figures of one model."""
    model = load(ref, dtype="float32")
    kind: InputKind = "speech" if "speech" in model.inputs else "text"
    print(f"\n{ref}, {kind} input, {model.dtype_name}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    depth = len(model.layers)
    figures: Figures = {}
    if options.clips:
        singles = block_candidates(depth, [1])
        figures |= compare(model, kind, options.data, options.clips, singles, options.runs, "single_layer")
    if options.triangle_clips:
        triangle = block_candidates(depth)
        figures |= compare(model, kind, options.data, options.triangle_clips, triangle, 1, "triangle")
    if first and options.race_clips:
        figures |= race(model, kind, options.data, options.race_clips, options.race_losses)
    return figures


def batches_of(model: LoadedModel, kind: InputKind, data: Path, clips: int, size: int) -> list[PreparedBatch]:
    """Embedded batches with responses."""
    found = read_manifests([data], limit=clips)
    return list(prepared_batches(model, found, tasks.get("asr"), kind, size))


def compare(
    model: LoadedModel,
    kind: InputKind,
    data: Path,
    clips: int,
    candidates: Sequence[Candidate],
    runs: int,
    name: str,
) -> Figures:
    """Replaying against removing, on the same batch."""
    batch, *_ = batches_of(model, kind, data, clips, clips)
    replay, removal = Ablation(model), Ablation(model, replay=False)
    quick, slow = replay.measure(batch, candidates[:1]), removal.measure(batch, candidates[:1])
    assert replay.method == "replay", replay.why_not
    before = {"replay": replay.evaluations, "lean": removal.evaluations}
    results = {}

    def run(ablation: Ablation, key: str) -> float:
        return seconds_of(lambda: results.update({key: ablation.measure(batch, candidates)}))

    jobs = {"replay": lambda: run(replay, "replay"), "lean": lambda: run(removal, "lean")}
    if name == "single_layer":
        jobs["stock"] = lambda: seconds_of(lambda: stock(model, batch, candidates))
    timings = interleaved(jobs, runs) if name == "single_layer" else {key: [job()] for key, job in jobs.items()}
    quick, slow = results["replay"], results["lean"]
    off = float((np.abs(quick.loss - slow.loss) / quick.counts[:, None]).max())
    times = runs + 1 if name == "single_layer" else 1
    layers = {key: (each.evaluations - before[key]) / times for key, each in (("replay", replay), ("lean", removal))}
    print(
        f"\n{name}: {len(candidates)} candidates, {len(batch.ids)} clips, {int(batch.attention_mask.sum())} positions, "
        f"{int(quick.counts.sum())} targets"
    )
    print_times(timings, "replay")
    print(
        f"layers run (times clips): {layers['lean']:.0f} → {layers['replay']:.0f}, "
        f"{layers['lean'] / layers['replay']:.2f}x fewer; largest difference {off:.1e} nats a token"
    )
    assert off <= 1e-5, "not exact"
    figures = {f"{name}_speedup": rounded(median_ratio(timings, "lean", "replay")), f"{name}_difference": off}
    if "stock" in timings:
        figures[f"{name}_speedup_over_stock"] = rounded(median_ratio(timings, "stock", "replay"))
    return figures


@torch.inference_mode()
def stock(model: LoadedModel, batch: PreparedBatch, candidates: Sequence[Candidate]) -> None:
    """Each candidate removed and the whole model run, logits at every position, as `labels=` would have it."""
    for candidate in candidates:
        with pruned(model.model, candidate, family=model.family):
            logits = model.lm(
                inputs_embeds=batch.embeds,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                use_cache=False,
            ).logits
            torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), batch.token_ids[:, 1:].flatten(), ignore_index=-1
            )


def race(model: LoadedModel, kind: InputKind, data: Path, clips: int, kept: Path | None) -> Figures:
    """Races over clips resampled from measured ones, for data sets of several sizes."""
    candidates = block_candidates(len(model.layers), [1])
    losses, counts = measured(model, kind, data, clips, candidates, kept)
    print(f"\nrace: {RACES} for each size, {len(candidates)} layers, resampled from {len(losses)} measured clips")
    print(f"{'clips':>6}  {'saving over full evaluation':>28} {'over replay':>12} {'same winner':>12} {'left':>5}")
    figures: Figures = {}
    for size in SIZES:
        saving, agreement = races(losses, counts, size)
        figures[f"race_saving_over_replay_{size}"] = rounded(saving)
        figures[f"race_agreement_{size}"] = rounded(agreement)
        if size == STATED:
            whole = evaluation(len(candidates)) / cost(range(len(candidates)), len(candidates))
            figures |= {"race_saving": rounded(saving * whole), "race_agreement": rounded(agreement)}
    return figures


def measured(
    model: LoadedModel,
    kind: InputKind,
    data: Path,
    clips: int,
    candidates: Sequence[Candidate],
    kept: Path | None,
) -> tuple[Floats, Ints]:
    """What each clip loses without each layer, and its targets: from the file `kept` if it is there, else into it."""
    if kept is not None and kept.is_file():
        with np.load(kept) as arrays:
            return arrays["loss"], arrays["counts"]
    ablation = Ablation(model)
    parts = [ablation.measure(batch, candidates) for batch in batches_of(model, kind, data, clips, 8)]
    losses = np.concatenate([part.loss - part.full[:, None] for part in parts])
    counts = np.concatenate([part.counts for part in parts])
    if kept is not None:
        np.savez(kept, loss=losses, counts=counts)
    return losses, counts


def races(losses: Floats, counts: Ints, size: int) -> tuple[float, float]:
    """Median saving over replaying everything, and how often the winner is that of all clips."""
    generator, depth = np.random.default_rng(0), losses.shape[1]
    found = []
    for _ in range(RACES):
        rows = generator.integers(len(losses), size=size)
        found.append(one_race(losses[rows], counts[rows]))
    saving, agreement, left = (
        float(each) for each in (np.median([f[0] for f in found]), *np.mean([f[1:] for f in found], 0))
    )
    whole = evaluation(depth) / cost(range(depth), depth)
    print(f"{size:>6}  {saving * whole:>28.1f} {saving:>12.1f} {agreement:>12.0%} {left:>5.1f}")
    return saving, agreement


def one_race(losses: Floats, counts: Ints) -> tuple[float, bool, int]:
    """How many times fewer layers are run than by replaying all, whether the best of all clips wins, who is left."""
    clips, depth = losses.shape
    runner = Race(depth, len(rounds_of(clips)))
    seen, spent = 0, 0
    for size in rounds_of(clips):
        if len(runner.alive) == 1:
            break
        part = slice(seen, seen + size)
        spent += size * cost(runner.alive, depth)
        runner.add(losses[part][:, runner.alive], counts[part])
        seen += size
    winner = min(runner.alive, key=lambda layer: losses[:seen, layer].sum())
    saving = clips * cost(range(depth), depth) / spent
    return saving, winner == int(losses.sum(0).argmin()), len(runner.alive)


def evaluation(depth: int) -> int:
    """Layers run for one clip by a full evaluation of each candidate, and one of the whole model."""
    return depth + depth * (depth - 1)


def cost(layers: Sequence[int], depth: int) -> int:
    """Layers run for one clip: the whole decoder once, and what comes after each layer that is left out."""
    return depth + sum(depth - 1 - layer for layer in layers)


if __name__ == "__main__":
    main()
