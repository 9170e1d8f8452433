"""The whole way in one go: audit, compare, select, evaluate, prune, bench, card, report.

Every step leaves its file in the output folder; running it again picks up what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import shoal
from shoal.errors import FileFormatError, UsageError
from shoal.progress import Progress
from shoal.schema import Audit, Bench, Comparison, Document, Plan, Scores, SystemScores

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.loading import LoadedModel

SHIPPED_CLIPS = 44
"""Of the clips that ship, evenly spaced: what two slow cores transcribe with all plans in a few minutes."""
SHIPPED_SECONDS = 6.0
"""Longer ones (2 of 55) are left out: all others would be padded to them."""
SHIPPED_TOKENS = 40
"""Twice what the longest of these clips needs: a plan that breaks the model loops until the limit."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class DemoSettings:
    """What to run.

    `sizes` × `strategies` are the plans that are scored. The checkpoint is written for the largest plan whose relative
    WER increase stays within `max_increase`.
    """

    out: Path
    model: str = "pkg:reference"
    data: Sequence[str] = ()
    sizes: Sequence[int] = (1, 2, 4, 8)
    strategies: Sequence[str] = ("contiguous", "deepest", "random")
    limit: int | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    lang: str | None = None
    max_bad: float = 0.01
    max_increase: float = 0.25
    batch_size: int = 24
    max_new_tokens: int | None = None
    """None: by the length of the clip; on the clips that ship, `SHIPPED_TOKENS`."""
    bench_clips: int = 3
    ablation: bool = True
    """Leave out every single layer too: which metric to trust is only known then."""
    seed: int = 0
    device: str = "cpu"
    dtype: str = "auto"


@dataclass(frozen=True)
class DemoResult:
    """Where the results lie."""

    report: Path
    checkpoint: Path
    plan: Plan


def run_demo(settings: DemoSettings, progress: Progress, say: Say) -> DemoResult:
    """Run every step on `settings.model` and `settings.data` (by default the clips that ship with Shoal).

    Raises:
        UsageError: the model is a text LLM: it cannot be evaluated on speech.
    """
    dataset = _read(settings)
    say(f"Loading {settings.model} (the first time, its weights are fetched and converted)")
    model = shoal.load(settings.model, device=settings.device, dtype=settings.dtype)
    if "speech" not in model.inputs:
        raise UsageError(
            f"{settings.model} takes no speech and cannot hear", fix="audit it with `shoal audit` instead"
        )
    say(f"Measuring {len(dataset.rows)} clips: all blocks, all scopes, speech and text")
    if settings.ablation:
        say("… and what the loss says: its gradients, and every single layer left out")
    metrics = ("gradient", "ablation") if settings.ablation else ()
    audit = shoal.audit(
        model, dataset, metrics=metrics, out=settings.out, batch_size=8, seed=settings.seed, progress=progress
    )
    comparison = _compare(settings.out)
    plans = choose_plans(audit, settings)
    say(f"Transcribing with the unpruned model and {len(plans)} plans")
    scores = _evaluate(model, dataset, plans, settings, progress)
    plan = pick(scores, settings.max_increase)
    say(f"Writing and verifying the checkpoint without layers {plan.layers}")
    checkpoint = _prune(model, plan, settings.out / "checkpoint")
    say("Timing the unpruned and the pruned model, interleaved")
    bench = _bench(model, dataset, [plan, _largest(plans)], settings, progress)
    say("Writing its card: what was measured, and what was not validated")
    shoal.card(checkpoint, [audit, scores, bench], attach=True, device=settings.device)
    documents: list[Document] = [audit, comparison, scores, bench, plan]
    report = shoal.render(documents, settings.out / "report.html")
    return DemoResult(report, checkpoint, plan)


def _read(settings: DemoSettings) -> Dataset:
    from shoal.data.subset import evenly_spaced
    from shoal.demo import clips_manifest

    dataset = shoal.read_manifests(
        list(settings.data) or [str(clips_manifest())],
        max_bad=settings.max_bad,
        limit=settings.limit if settings.data else None,
        where=settings.where,
        lang=settings.lang,
        seed=settings.seed,
    )
    if not settings.data:
        short = [row for row in dataset.rows if row.duration <= SHIPPED_SECONDS]
        dataset.rows = evenly_spaced(short, settings.limit or SHIPPED_CLIPS, settings.seed)
    return dataset


def choose_plans(audit: Audit, settings: DemoSettings) -> list[Plan]:
    """One plan for each strategy and size, written to `plans/NAME.json`; sizes that leave no layer are skipped."""
    plans = []
    for strategy in settings.strategies:
        for size in (size for size in settings.sizes if size < audit.depth - 1):
            plan = shoal.select(
                audit,
                size,
                strategy=strategy,
                seed=settings.seed,
                source_path=str(settings.out / "audit.json"),
            )
            plan.save(settings.out / "plans" / f"{plan.name}.json")
            plans.append(plan)
    if not plans:
        raise UsageError(
            f"no size in {list(settings.sizes)} fits a decoder of {audit.depth} layers",
            where="--layers",
            fix="give smaller numbers",
        )
    return plans


def pick(scores: Scores, max_increase: float) -> Plan:
    """The largest plan within `max_increase`, the best of those if several are as large; else the mildest there is."""
    tried = [system for system in scores.systems if system.plan is not None and system.plan.layers]
    within = [system for system in tried if _increase(system) <= max_increase]
    chosen = (
        max(within, key=lambda system: (len(system.removed), -_wer(system)))
        if within
        else min(tried, key=_wer)
    )
    if chosen.plan is None:
        raise UsageError("there is no plan to choose from")
    return chosen.plan


def _wer(system: SystemScores) -> float:
    return system.measures["WER"].value.value


def _increase(system: SystemScores) -> float:
    delta = system.measures["WER"].delta
    return delta.relative.value if delta and delta.relative else float("inf")


def _compare(out: Path) -> Comparison:
    found = shoal.compare(out / "audit.json", out / "audit.json")
    found.save(out / "comparison.json")
    return found


def _evaluate(
    model: LoadedModel, dataset: Dataset, plans: list[Plan], settings: DemoSettings, progress: Progress
) -> Scores:
    return shoal.evaluate(
        model,
        dataset,
        plans=plans,
        out=settings.out,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens or (None if settings.data else SHIPPED_TOKENS),
        seed=settings.seed,
        progress=progress,
    )


def _prune(model: LoadedModel, plan: Plan, target: Path) -> Path:
    """Write the checkpoint, or keep the one that is there if it was made by the same plan from the same model."""
    try:
        if Plan.load(target / "shoal-plan.json").layers == plan.layers:
            return target
    except shoal.InputError:
        pass
    plan.save(target.parent / "plan.json")
    return shoal.prune(model, plan, out=target, force=True)


def _bench(
    model: LoadedModel, dataset: Dataset, plans: list[Plan], settings: DemoSettings, progress: Progress
) -> Bench:
    path = settings.out / "bench.json"
    plans = list({plan.name: plan for plan in plans}.values())
    wanted = [[], *(plan.layers for plan in plans)]
    try:
        found = Bench.load(path)
        if (
            found.model.fingerprint == model.info().fingerprint
            and [system.removed for system in found.systems] == wanted
        ):
            return found
    except FileFormatError:
        pass
    return shoal.bench(
        model,
        dataset,
        plans=plans,
        clips=settings.bench_clips,
        repeats=3,
        new_tokens=12,
        memory=True,
        out=path,
        progress=progress,
    )


def _largest(plans: list[Plan]) -> Plan:
    return max((plan for plan in plans if plan.block), key=lambda plan: len(plan.layers), default=plans[-1])
