"""The whole way in one go: audit, compare, select, evaluate, prune, bench, card, report.

Every step leaves its file in the output folder; running it again picks up what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import shoal
from shoal.data.settings import DataSettings
from shoal.data.subset import evenly_spaced
from shoal.demo import clips_manifest
from shoal.demo.settings import DemoSettings
from shoal.errors import InputError, UsageError
from shoal.models.settings import ModelSettings
from shoal.progress import Progress, stage
from shoal.schema import Audit, Bench, Document, Plan, Scores, SystemScores

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.loading import LoadedModel

SHIPPED_CLIPS = 44
"""Of the clips that ship, evenly spaced: what two slow cores transcribe with all plans in a few minutes."""
SHIPPED_SECONDS = 6.0
"""Longer ones (2 of 55) are left out: all others would be padded to them."""
SHIPPED_TOKENS = 40
"""Twice what the longest of these clips needs: a plan that breaks the model loops until the limit."""

TIMED_CLIPS = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class DemoResult:
    """Where the results lie."""

    report: Path
    checkpoint: Path
    plan: Plan


@dataclass(frozen=True)
class Demo:
    """The whole way for one model; without `sources` on the clips that ship with Shoal."""

    out: Path
    model: str
    sources: Sequence[str]
    rows: DataSettings
    loading: ModelSettings
    settings: DemoSettings
    progress: Progress
    say: Say

    def run(self) -> DemoResult:
        """Run every step.

        Raises:
            UsageError: the model is a text LLM: it cannot be evaluated on speech.
        """
        data = self._data()
        self.say(f"Loading {self.model} (the first time, its weights are fetched and converted)")
        model = shoal.load(self.model, self.loading)
        if "speech" not in model.inputs:
            raise UsageError(f"{self.model} takes no speech and cannot hear", fix="audit it with `shoal audit` instead")
        audit = self._audit(model, data)
        comparison = shoal.compare(self.out / "audit.json", self.out / "audit.json")
        comparison.save(self.out / "comparison.json")
        plans = self._plans(audit)
        self.say(f"Transcribing with the unpruned model and {len(plans)} plans")
        scores = self._scores(model, data, plans)
        plan = pick(scores, self.settings.max_increase)
        self.say(f"Writing and verifying the checkpoint without layers {plan.layers}")
        with stage(self.progress, "write and verify"):
            checkpoint = _prune(model, plan, self.out / "checkpoint")
        self.say("Timing the unpruned and the pruned model, interleaved")
        bench = self._bench(model, data, [plan, _largest(plans)])
        self.say("Writing its card: what was measured, and what was not validated")
        shoal.card(checkpoint, [audit, scores, bench], attach=True, device=self.loading.device)
        documents: list[Document] = [audit, comparison, scores, bench, plan]
        report = shoal.render(documents, self.out / "report.html")
        return DemoResult(report, checkpoint, plan)

    def _data(self) -> Dataset:
        seed = self.settings.seed
        if self.sources:
            return shoal.read_manifests(self.sources, self.rows, seed=seed)
        data = shoal.read_manifests(str(clips_manifest()), self.rows, limit=None)
        short = [row for row in data.rows if row.duration <= SHIPPED_SECONDS]
        data.rows = evenly_spaced(short, self.rows.limit or SHIPPED_CLIPS, seed)
        return data

    def _audit(self, model: LoadedModel, data: Dataset) -> Audit:
        self.say(f"Measuring {len(data.rows)} clips: all blocks, all scopes, speech and text")
        if self.settings.ablation:
            self.say("… and what the loss says: its gradients, and every single layer left out")
        return shoal.audit(
            model,
            data,
            metrics=("gradient", "ablation") if self.settings.ablation else (),
            out=self.out,
            batch_size=8,
            seed=self.settings.seed,
            progress=self.progress,
        )

    def _plans(self, audit: Audit) -> list[Plan]:
        """One for each strategy and size, written to `plans/NAME.json`; sizes that leave no layer are skipped."""
        sizes = [size for size in self.settings.sizes if size < audit.depth - 1]
        source, seed = str(self.out / "audit.json"), self.settings.seed
        plans = [
            shoal.select(audit, size, strategy=strategy, seed=seed, source_path=source)
            for strategy in self.settings.strategies
            for size in sizes
        ]
        for plan in plans:
            plan.save(self.out / "plans" / f"{plan.name}.json")
        if not plans:
            raise UsageError(
                f"no size in {list(self.settings.sizes)} fits a decoder of {audit.depth} layers",
                where="--layers",
                fix="give smaller numbers",
            )
        return plans

    def _scores(self, model: LoadedModel, data: Dataset, plans: list[Plan]) -> Scores:
        return shoal.evaluate(
            model,
            data,
            plans=plans,
            out=self.out,
            batch_size=self.settings.batch_size,
            max_new_tokens=self.settings.max_new_tokens or (None if self.sources else SHIPPED_TOKENS),
            seed=self.settings.seed,
            progress=self.progress,
        )

    def _bench(self, model: LoadedModel, data: Dataset, plans: list[Plan]) -> Bench:
        """As it is stored, if it is of the same measurement; else measured anew."""
        measure = partial(
            shoal.bench,
            model,
            data,
            plans=list({plan.name: plan for plan in plans}.values()),
            clips=TIMED_CLIPS,
            repeats=3,
            new_tokens=12,
            memory=True,
            out=self.out / "bench.json",
            progress=self.progress,
        )
        try:
            return measure()
        except InputError:
            return measure(force=True)


def pick(scores: Scores, max_increase: float) -> Plan:
    """The largest plan whose increase is within `max_increase` to its upper bound, else the mildest there is.

    The best of those if several are as large.
    """
    tried = [system for system in scores.systems if system.plan is not None and system.plan.layers]
    within = [system for system in tried if _increase(system) <= max_increase]
    chosen = max(within, key=lambda system: (len(system.removed), -_wer(system))) if within else min(tried, key=_wer)
    if chosen.plan is None:
        raise UsageError("there is no plan to choose from")
    return chosen.plan


def _wer(system: SystemScores) -> float:
    return system.measures["WER"].value.value


def _increase(system: SystemScores) -> float:
    """The upper bound; infinite where there is none."""
    delta = system.measures["WER"].delta
    bound = delta.relative.high if delta and delta.relative else None
    return float("inf") if bound is None else bound


def _prune(model: LoadedModel, plan: Plan, target: Path) -> Path:
    """Write the checkpoint, or keep the one that is there if it was made by the same plan from the same model."""
    try:
        if Plan.load(target / "shoal-plan.json").layers == plan.layers:
            return target
    except shoal.InputError:
        pass
    plan.save(target.parent / "plan.json")
    return shoal.prune(model, plan, out=target, force=True)


def _largest(plans: list[Plan]) -> Plan:
    return max((plan for plan in plans if plan.block), key=lambda plan: len(plan.layers), default=plans[-1])
