"""How many clips a second Shoal trains on, beside a plain Trainer loop with the encoder in it.

    python benchmarks/heal.py [--model pkg:reference] [--clips 8] [--steps 3] [--runs 3] [--device cpu]

Both train the same parameters of the same model on the same clips, in transformers' Trainer:

- shoal: `shoal.training.loop.train`; the frozen encoder's states lie on the disk, logits are made where the loss is;
- plain: the model's own forward pass with `labels=`, a collator that calls the processor; the encoder runs in every
  step and the logits are those of every position (`support/plain_training.py` says what is done in its favour).

Two heal targets: `joint-decoder` (LoRA on every linear layer of the decoder, and the projector), which gives
`train_speedup`, and `receiver` (LoRA on the MLP behind a cut, after `--cut` has been removed). Before anything is
timed, both take one step on the same batch; unless its loss and its gradients agree, there are no figures. A step is
all that lies between two ends of steps: batch, forward, backward, optimizer, Trainer. The first of a run is not
counted; runs are interleaved.

What Shoal pays for it is that every clip is encoded once before: `encode_seconds_per_clip` (decoding, features,
encoder, disk). `pays_after_passes` is how many times the clips must be trained on until that is saved: below 1 it
pays within the first pass, null means never. `train_speedup_with_encoding` counts it in a run of the default number
of steps over all clips of the manifest.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shoal import tasks
from shoal.data import Dataset, Row, read_manifests
from shoal.healing.cuts import cuts_between
from shoal.healing.settings import HealSettings
from shoal.healing.targets import TARGETS
from shoal.models.loading import load
from shoal.pruning.in_memory import prune_in_place
from shoal.training.batches import examples_of, make_batches
from shoal.training.loop import train
from shoal.training.sampling import SampledClips, sample_clips
from shoal.training.settings import Objective, Optimisation, RuntimeOptions
from shoal.training.step import ModelWithLoss
from support.interleave import Timings, interleaved, median_ratio, print_times, rounded
from support.one_step import Step, compare, our_step, plain_step
from support.plain_training import Item, items_of, train_plain
from support.step_clock import StepClock, device_name

ROOT = Path(__file__).resolve().parents[1]
STEPS = Optimisation().steps
CLIPS = ROOT.parent / "shared" / "speech" / "speechocean762" / "manifest.jsonl"
Figures = dict[str, Any]
RATE = 1e-4
SPREAD = 0.01
"""Of the low-rank layers' second factors, which start at zero: so that the first ones have gradients to compare."""
NEVER = 10**9
LIMITS = {torch.float32: (1e-3, 0.999)}
"""Largest relative difference of the losses, lowest cosine of the gradients."""
COARSE = (2e-2, 0.99)
"""The same in half precision."""


@dataclass
class Case:
    """A model with what is trained in it, and the clips of every step for both sides."""

    student: ModelWithLoss
    sampled: SampledClips
    items: list[list[Item]]
    """Of every step."""
    optimisation: Optimisation
    start: dict[str, Tensor]
    """The trained parameters before the first step."""
    encode_seconds: float
    """To encode all clips of the feed; about nothing where their states were there."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.student.loaded.device


def main() -> None:
    """Measure both targets, print the tables, end with the figures."""
    options = parse()
    if not options.data.is_file():
        print(f"{options.data}: no such manifest; give one with --data", file=sys.stderr)
        raise SystemExit(2)
    data = read_manifests([options.data])
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="shoal-bench-heal-") as folder:
        for target, suffix in (("joint-decoder", ""), ("receiver", "_receiver")):
            found = measure(target, data, options, Path(folder))
            figures |= {f"{name}{suffix}": value for name, value in found.items()}
    for name, worst in (("loss_difference", max), ("gradient_cosine", min)):
        figures[name] = worst(figures[name], figures.pop(f"{name}_receiver"))
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="pkg:reference", help="a SpeechLLM of Shoal's own")
    add("--data", type=Path, default=CLIPS, help="a manifest")
    add("--clips", type=int, default=8, help="of a step")
    add("--steps", type=int, default=3, help="of a run that count")
    add("--runs", type=int, default=3, help="of each side")
    add("--cut", type=int, nargs=2, default=(12, 16), metavar=("FIRST", "END"), help="layers [FIRST, END)")
    add("--rank", type=int, default=16)
    add("--device", default="cpu")
    add("--dtype", default="float32")
    add("--workers", type=int, default=0, help="processes that put batches together, on both sides")
    return parser.parse_args()


def measure(target: str, data: Dataset, options: argparse.Namespace, folder: Path) -> Figures:
    """All figures of one target."""
    case = build(target, data, options, folder / "features")
    loaded = case.student.loaded
    trained = sum(each.numel() for each in case.student.trainable().values())
    print(
        f"\n{target}: {options.model} in {loaded.dtype_name}, {len(loaded.layers)} decoder layers, {trained:,} trained "
        f"parameters, {options.clips} clips a step, {device_name(case.device)}, torch {torch.__version__}",
        flush=True,
    )
    figures = agree(case)
    print_parts(case)
    timings, losses = timed(case, options, folder / target)
    print_times(timings, "shoal")
    for name, seconds in timings.items():
        print(f"{name:<36} {options.clips / statistics.median(seconds):>9.2f}  clips a second")
    print(f"losses of the steps: plain {losses['plain']}, shoal {losses['shoal']}")
    figures["train_speedup"] = rounded(median_ratio(timings, "plain", "shoal"))
    if target == "joint-decoder":
        figures |= encoding(case, timings, len(data.rows))
    return figures


def build(target: str, data: Dataset, options: argparse.Namespace, features: Path) -> Case:
    """The model, cut where the target needs it, marked for training; clips encoded and drawn."""
    loaded = load(options.model, device=options.device, dtype=options.dtype)
    cuts = []
    if TARGETS[target].needs_cuts:
        gone, depth = range(*options.cut), len(loaded.layers)
        cuts = cuts_between([layer for layer in range(depth) if layer not in gone], depth)
        prune_in_place(loaded.model, list(gone), family=loaded.family)
    settings = HealSettings(target=target, rank=options.rank, alpha=options.rank, dropout=0.0)
    choice = TARGETS[target].choose(loaded, cuts)
    choice.mark(loaded, settings, settings.seed)
    # One more than are timed for the warm-up.
    count, steps = options.clips, options.steps + 1
    rows = spread(data, count * steps)
    begun = time.perf_counter()
    batches = make_batches(
        loaded,
        examples_of(data.only(rows), tasks.get("asr")),
        through_projector=choice.has_projector(loaded),
        features=features,
    )
    seconds = time.perf_counter() - begun
    student = ModelWithLoss(loaded, batches, Objective())
    disturb(student)
    sampled = sample_clips(
        np.zeros(len(batches.examples), np.int64), batches.lengths, weights=[None], steps=steps, clips=count
    )
    items = items_of(loaded, batches.examples)
    optimisation = Optimisation(
        steps=steps, clips=count, projector_lr=RATE, lora_lr=RATE, warmup=0, schedule="constant"
    )
    start = {name: each.detach().clone() for name, each in student.trainable().items()}
    chosen = [[items[each] for each in step] for step in sampled.examples.tolist()]
    return Case(student, sampled, chosen, optimisation, start, seconds)


def spread(data: Dataset, count: int) -> list[Row]:
    """`count` rows, evenly over the data."""
    if len(data.rows) < count:
        print(f"{len(data.rows)} clips are too few: {count} are needed", file=sys.stderr)
        raise SystemExit(2)
    return data.rows[:: len(data.rows) // count][:count]


@torch.no_grad()
def disturb(student: ModelWithLoss) -> None:
    """Let the low-rank layers do something."""
    torch.manual_seed(0)
    for name, parameter in student.trainable().items():
        if ".lora_B." in name:
            parameter.normal_(std=SPREAD)


@torch.no_grad()
def restore(case: Case) -> None:
    """Begin anew."""
    for name, parameter in case.student.trainable().items():
        parameter.copy_(case.start[name])


# --- The same step? ---


def both_steps(case: Case) -> dict[str, Step]:
    """The first batch, both ways."""
    return {
        "plain": plain_step(case.student.loaded, case.items[0]),
        "shoal": our_step(case.student, case.sampled.examples[0].tolist()),
    }


def agree(case: Case) -> Figures:
    """Loss and gradients of one batch.

    Raises:
        SystemExit: they are not the same.
    """
    steps = both_steps(case)
    found = compare(steps["shoal"], steps["plain"])
    print(
        f"one batch: loss {steps['shoal'].loss:.6f}, plain {steps['plain'].loss:.6f} (relative difference "
        f"{found.loss:.1e}); cosine of all gradients {found.cosine:.7f}, lowest of a tensor {found.lowest:.5f}"
    )
    furthest, lowest = LIMITS.get(case.student.loaded.dtype, COARSE)
    if not (found.loss <= furthest and found.cosine >= lowest):
        raise SystemExit(f"not the same step: at most {furthest} and at least {lowest} were expected")
    return {"loss_difference": found.loss, "gradient_cosine": round(found.cosine, 7)}


def print_parts(case: Case) -> None:
    """Where the time of one step goes, without optimizer and Trainer."""
    print(f"{'one step by hand, seconds':<36} {'collate':>9} {'encode':>9} {'forward':>9} {'backward':>9}")
    for name, step in both_steps(case).items():
        parts = [step.seconds.get(part, 0.0) for part in ("collate", "encode", "forward", "backward")]
        print(f"{name:<36} {' '.join(f'{each:>9.3f}' for each in parts)}", flush=True)


# --- Timing ---


def timed(case: Case, options: argparse.Namespace, folder: Path) -> tuple[Timings, dict[str, list[float]]]:
    """Seconds a step of either side in every run, and the losses of the steps."""
    losses: dict[str, list[float]] = {}

    def run(name: str) -> float:
        restore(case)
        clock = StepClock(case.device, case.optimisation.steps)
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as place:
            found = SIDES[name](case, clock, Path(place), options.workers)
        losses[name] = [round(each, 4) for each in found]
        return statistics.fmean(clock.seconds)

    jobs = {name: lambda name=name: run(name) for name in SIDES}
    return interleaved(jobs, options.runs, warm_up=False), losses


def run_plain(case: Case, clock: StepClock, folder: Path, workers: int) -> Sequence[float]:
    """One run of the plain loop; it has a batch more, for the loader that fetches ahead."""
    items = [item for step in [*case.items, case.items[0]] for item in step]
    train_plain(case.student.loaded, items, case.optimisation, clock, folder, workers)
    return clock.losses


def run_ours(case: Case, clock: StepClock, folder: Path, workers: int) -> Sequence[float]:
    """One run of Shoal's loop; its checkpoint is written behind the last step."""
    how = RuntimeOptions(save_every=NEVER, workers=workers)
    tick = clock.tick
    result = train(case.student, case.sampled, case.optimisation, folder, how=how, progress=lambda *_: tick())
    return result.losses


SIDES = {"plain": run_plain, "shoal": run_ours}


def encoding(case: Case, timings: Timings, rows: int) -> Figures:
    """What encoding costs beforehand, and when it has paid."""
    clips = case.optimisation.clips
    each = case.encode_seconds / len(case.student.batches.examples)
    plain, ours = (statistics.median(timings[name]) for name in ("plain", "shoal"))
    passes = each * clips / (plain - ours) if plain > ours else None
    steps = None if passes is None else math.ceil(passes * rows / clips)
    whole = STEPS * plain / (STEPS * ours + rows * each)
    print(
        f"encoding: {each:.3f} s a clip, once; for the {rows} clips of the manifest it has paid "
        f"{'never' if passes is None else f'after {passes:.2f} passes over them, {steps} steps of {clips}'}; "
        f"{STEPS} steps over them, encoding included: {whole:.2f}x faster"
    )
    return {
        "encode_seconds_per_clip": rounded(each),
        "pays_after_passes": None if passes is None else rounded(passes),
        "pays_after_steps": steps,
        "train_speedup_with_encoding": rounded(whole),
    }


if __name__ == "__main__":
    main()
