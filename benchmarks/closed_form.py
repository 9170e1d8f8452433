"""What the closed form gives back, without a gradient step: the WER on clips that nothing was chosen or fitted on.

    python benchmarks/closed_form.py [--model pkg:reference] [--plans 2-9,2-13] [--targets linear,chain]
    python benchmarks/closed_form.py --targets chain,receiver,joint

The trained targets, if they are asked for, get the seconds that the first target took.

- Fitted on clips of the split `train` (those that healing holds out choose the ridge), tested on the split `test`.
- The plans were chosen on training clips, see docs/lab-book.md; `first-last` removes both and all between.
- Figures: relative increase of the WER over the unpruned model, with its paired interval over speakers, of the best
  closed form; `cpu_seconds` is the most that one healing took (user and system): loading, encoding, the fit, and the
  loss before and after.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import shoal
from shoal.data import Dataset
from shoal.models.loading import LoadedModel
from shoal.provenance import provenance
from shoal.schema import Estimate, Plan
from support.interleave import rounded

ROOT = Path(__file__).resolve().parents[1]
SPEECH = ROOT.parent / "shared" / "speech" / "speechocean762" / "manifest.jsonl"
CLOSED = ("linear", "chain")
TIMED_STEPS = 4
"""Steps by which the seconds of a step are found."""


def main() -> None:
    """Heal, evaluate, print the table, end with the figures."""
    options = parse()
    model = shoal.load(options.model)
    fit, test = (
        shoal.read_manifests([options.data], where={"split": split}, limit=limit)
        for split, limit in (("train", options.fit_clips), ("test", options.clips))
    )
    figures: dict[str, Any] = {}
    print(f"fitted on {len(fit.rows)} clips, tested on {len(test.rows)}")
    print(f"{'removed':<10} {'healed by':<10} {'CPU s':>7} {'wall s':>7}  relative increase of the WER")
    for plan in plans(options, model):
        increases, wall = {}, 0.0
        for target in options.targets.split(","):
            healed, cpu, wall_now = heal(options.model, plan, target, fit, wall)
            wall = wall or wall_now
            increase = compared(healed, test, model)
            print(
                f"{plan.layers[0]}-{plan.layers[-1]:<8} {target:<10} {cpu:>7.0f} {wall_now:>7.0f}  "
                f"{100 * increase.value:+.1f} % [{100 * increase.low:.1f}, {100 * increase.high:.1f}]",
                flush=True,
            )
            if target in CLOSED:
                increases[target] = increase
                figures["cpu_seconds"] = max(figures.get("cpu_seconds", 0.0), cpu)
        best = min(increases.values(), key=lambda found: found.value)
        figures[f"wer_increase_{len(plan.layers)}"] = rounded(best.value)
        figures[f"wer_increase_{len(plan.layers)}_interval"] = [rounded(best.low), rounded(best.high)]
    figures["cpu_seconds"] = rounded(figures["cpu_seconds"])
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="pkg:reference")
    add("--data", type=Path, default=SPEECH)
    add("--plans", default="2-9,2-13")
    add("--targets", default="linear,chain")
    add("--fit-clips", type=int, default=400)
    add("--clips", type=int, default=200)
    return parser.parse_args()


def plans(options: argparse.Namespace, model: LoadedModel) -> list[Plan]:
    """The plans of the command line."""
    found = []
    for part in options.plans.split(","):
        first, last = map(int, part.split("-"))
        layers = list(range(first, last + 1))
        found.append(Plan(provenance=provenance(), model_ref=options.model, depth=len(model.layers), layers=layers))
    return found


def heal(ref: str, plan: Plan, target: str, data: Dataset, wall: float) -> tuple[LoadedModel, float, float]:
    """The healed model, CPU-seconds and seconds; a trained target takes as many steps as `wall` seconds allow."""
    how: dict[str, Any] = {"target": target, "plan": plan, "teacher": ref}
    if target in CLOSED:
        how["linear"] = {"clips": len(data.rows)}
    else:
        tried = shoal.heal(shoal.load(ref), data, **how, optimisation={"steps": TIMED_STEPS}).record.seconds
        how["optimisation"] = {"steps": max(1, round(TIMED_STEPS * wall / tried))}
    cpu = time.process_time()
    healed = shoal.heal(shoal.load(ref), data, force=True, **how)
    return healed.loaded, time.process_time() - cpu, healed.record.seconds


def compared(healed: LoadedModel, test: Dataset, model: LoadedModel) -> Estimate:
    """Relative increase of the WER over the unpruned model."""
    delta = shoal.evaluate(healed, test, against=model, replicates=1000).systems[1].measures["WER"].delta
    if delta is None or delta.relative is None:
        raise SystemExit("the unpruned model makes no error on these clips, so there is no relative increase")
    return delta.relative


if __name__ == "__main__":
    main()
