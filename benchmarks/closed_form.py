"""What the closed form gives back, without a gradient step: the WER on clips that nothing was chosen or fitted on.

    python benchmarks/closed_form.py [--model pkg:reference] [--plans 2-9,2-13] [--targets chain]
    python benchmarks/closed_form.py --targets linear,chain,receiver,joint

The trained targets, if they are asked for, get the steps that `--seconds` allow.

- Fitted on clips of the split `train` (those that healing holds out choose the ridge), tested on the split `test`.
- The plans were chosen on training clips, see docs/lab-book.md; `first-last` removes both and all between.
- Figures: relative increase of the WER over the unpruned model, with its paired interval over speakers, of
  `chain`, named beforehand; `cpu_seconds` is the most that one healing took (user and system): loading, encoding, the
  fit, and the loss before and after.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import shoal
from shoal.data import Dataset
from shoal.models.loading import LoadedModel
from shoal.provenance import provenance
from shoal.schema import Plan
from support.interleave import rounded

ROOT = Path(__file__).resolve().parents[1]
SPEECH = ROOT.parent / "shared" / "speech" / "speechocean762" / "manifest.jsonl"
CLOSED = ("linear", "chain")
FIGURE = "chain"
"""The target that the figures are of; the better of two on the test clips would be too good."""
TIMED_STEPS = 4
"""Steps by which the seconds of a step are found."""


class Try(NamedTuple):
    """One plan, healed in one way."""

    plan: Plan
    target: str
    model: LoadedModel
    cpu: float
    """Seconds, user and system."""
    seconds: float
    """Of the fit, or of the training."""


def main() -> None:
    """Heal, evaluate, print the table, end with the figures."""
    options = parse()
    model = shoal.load(options.model)
    fit, test = (
        shoal.read_manifests([options.data], where={"split": split}, limit=limit)
        for split, limit in (("train", options.fit_clips), ("test", options.clips))
    )
    print(f"fitted on {len(fit.rows)} clips, tested on {len(test.rows)}", flush=True)
    tries = [
        Try(plan, target, *heal(options.model, plan, target, fit, options.seconds))
        for plan in plans(options, model)
        for target in options.targets.split(",")
    ]
    scores = shoal.evaluate(model, test, beside=[each.model for each in tries], replicates=1000)
    unpruned = scores.systems[0].measures["WER"].value
    print(f"unpruned WER {100 * unpruned.value:.1f} % [{100 * unpruned.low:.1f}, {100 * unpruned.high:.1f}]")
    print(f"{'removed':<10} {'healed by':<10} {'CPU s':>7} {'fit s':>7}  {'WER':>7}  relative increase of the WER")
    figures: dict[str, Any] = {"cpu_seconds": max((each.cpu for each in tries if each.target == FIGURE), default=0.0)}
    for each, system in zip(tries, scores.systems[1:], strict=True):
        score = system.measures["WER"]
        if score.delta is None or (increase := score.delta.relative) is None:
            raise SystemExit("the unpruned model makes no error on these clips, so there is no relative increase")
        print(
            f"{each.plan.layers[0]}-{each.plan.layers[-1]:<8} {each.target:<10} {each.cpu:>7.0f} {each.seconds:>7.0f}  "
            f"{100 * score.value.value:>5.1f} %  {100 * increase.value:+.1f} % "
            f"[{100 * increase.low:.1f}, {100 * increase.high:.1f}]"
        )
        name = f"wer_increase_{len(each.plan.layers)}"
        if each.target == FIGURE:
            figures[name] = rounded(increase.value)
            figures[f"{name}_interval"] = [rounded(increase.low), rounded(increase.high)]
    figures["cpu_seconds"] = rounded(figures["cpu_seconds"])
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="pkg:reference")
    add("--data", type=Path, default=SPEECH)
    add("--plans", default="2-9,2-13")
    add("--targets", default="chain")
    add("--fit-clips", type=int, default=160)
    add("--clips", type=int, default=200)
    add("--seconds", type=float, default=150, help="of training, for trained targets")
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
    """The healed model, CPU-seconds, seconds of the fit; a trained target takes the steps that `wall` seconds allow."""
    how: dict[str, Any] = {"target": target, "plan": plan, "teacher": ref, "force": True}
    if target in CLOSED:
        how["linear"] = {"clips": len(data.rows)}
    else:
        tried = shoal.heal(shoal.load(ref), data, **how, optimisation={"steps": TIMED_STEPS}).record.seconds
        how["optimisation"] = {"steps": max(1, round(TIMED_STEPS * wall / tried))}
    cpu = time.process_time()
    healed = shoal.heal(shoal.load(ref), data, **how)
    spent = time.process_time() - cpu
    print(f"  layers {plan.layers[0]}-{plan.layers[-1]} healed by {target} in {spent:.0f} CPU-seconds", flush=True)
    return healed.loaded, spent, healed.record.seconds


if __name__ == "__main__":
    main()
