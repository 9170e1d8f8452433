"""The whole way in one go: audit, compare, select, heal, evaluate, prune, bench, card, report.

Layers are chosen and healed on one half of the clips, and everything is scored on the other. The halves share no
speaker where there is more than one.

Every step leaves its file in the output folder; running it again picks up what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import shoal
from shoal.data.settings import DataSettings
from shoal.data.splits import Split, split
from shoal.data.subset import evenly_spaced
from shoal.demo import clips_manifest
from shoal.demo.settings import DemoSettings
from shoal.errors import InputError, ShoalError, UsageError
from shoal.models.lineage import HEAL_FILE
from shoal.models.settings import ModelSettings
from shoal.progress import Progress, stage
from shoal.schema import Audit, Bench, Document, HealRecord, Plan, Scores, SystemScores

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.loading import LoadedModel

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
        halves = split(self._data(), self.settings.seed)
        self.say(f"Loading {self.model} (the first time, its weights are fetched and converted)")
        model = shoal.load(self.model, self.loading)
        if "speech" not in model.inputs:
            raise UsageError(f"{self.model} takes no speech and cannot hear", fix="audit it with `shoal audit` instead")
        audit = self._audit(model, halves.validation)
        comparison = shoal.compare(self.out / "audit.json", self.out / "audit.json")
        comparison.save(self.out / "comparison.json")
        plans = self._plans(audit)
        healed = self._healed(plans, halves.validation)
        audio = ", also with the wrong audio and with silence" if self.settings.controls else ""
        self.say(
            f"Transcribing {len(halves.confirmation.rows)} other clips: unpruned, pruned {len(plans)} times, and "
            f"healed {len(healed)} times{audio}"
        )
        scores = self._scores(model, halves.confirmation, plans, list(healed.values()))
        best = pick(scores, self.settings.max_increase)
        plan = _plan_of(best, plans)
        plan.save(self.out / "plan.json")
        self.say("Timing the unpruned and the pruned model, interleaved")
        bench = self._bench(model, halves.confirmation, [plan, _largest(plans)])
        evidence: list[Audit | Scores | Bench] = [scores]
        if best.healed:
            checkpoint = healed[plan.name]
        else:
            self.say(f"Writing and verifying the checkpoint without layers {plan.layers}")
            with stage(self.progress, "write and verify"):
                checkpoint = _prune(model, plan, self.out / "checkpoint")
            evidence += [audit, bench]
        self.say("Writing its card: what was measured, and what was not validated")
        shoal.card(checkpoint, evidence, attach=True, device=self.loading.device)
        heals = [HealRecord.load(folder / HEAL_FILE) for folder in healed.values()]
        documents: list[Document] = [audit, comparison, scores, bench, plan, *heals]
        report = shoal.render(documents, self.out / "report.html", notes=list(_honest(halves, healed=bool(healed))))
        return DemoResult(report, checkpoint, plan)

    def _data(self) -> Dataset:
        seed = self.settings.seed
        if self.sources:
            return shoal.read_manifests(self.sources, self.rows, seed=seed)
        data = shoal.read_manifests(str(clips_manifest()), self.rows, limit=None)
        short = [row for row in data.rows if row.duration <= SHIPPED_SECONDS]
        data.rows = evenly_spaced(short, self.rows.limit, seed)
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

    def _healed(self, plans: list[Plan], data: Dataset) -> dict[str, Path]:
        """The folders of healed checkpoints by the names of plans; without those that cannot be healed so."""
        target, folders = self.settings.heal, {}
        for plan in plans if target else ():
            if plan.block is None:
                continue
            self.say(f"Healing {plan.name} by {target}, on {len(data.rows)} clips")
            try:
                folders[plan.name] = self._heal(plan, data, target)
            except ShoalError as error:
                self.say(f"It stays as it is: {error}")
        return folders

    def _heal(self, plan: Plan, data: Dataset, target: str | None) -> Path:
        """The folder of a plan's healed checkpoint, verified; made, unless it is there."""
        folder = self.out / "healed" / f"{plan.name}+{target}"
        shoal.heal(
            shoal.load(self.model, self.loading),
            data,
            target=target,
            plan=plan,
            validation=data.only(()),
            out=folder,
            force=True,
            progress=self.progress,
        )
        return folder

    def _scores(self, model: LoadedModel, data: Dataset, plans: list[Plan], healed: list[Path]) -> Scores:
        return shoal.evaluate(
            model,
            data,
            plans=plans,
            beside=[shoal.load(str(folder), self.loading) for folder in healed],
            controls=self.settings.controls,
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


def pick(scores: Scores, max_increase: float) -> SystemScores:
    """The system that lacks the most layers while its increase is within `max_increase` to its upper bound.

    If none is, the one whose increase itself is; if none is, the mildest. The best of those that lack as many.
    """
    tried = [system for system in scores.systems[1:] if system.absent_layers]
    for increase in (_upper_increase, _increase):
        if within := [system for system in tried if increase(system) <= max_increase]:
            return max(within, key=lambda system: (len(system.absent_layers), -_wer(system)))
    return min(tried, key=_wer)


def _plan_of(system: SystemScores, plans: Sequence[Plan]) -> Plan:
    """What a system goes without, whether it is a plan or was healed after one."""
    return system.plan or next(plan for plan in plans if plan.layers == system.missing)


def _honest(halves: Split, *, healed: bool) -> Iterator[str]:
    """What a reader must know of the clips."""
    chosen, scored = len(halves.validation.rows), len(halves.confirmation.rows)
    fitted = ", and healing was fitted," if healed else ""
    yield f"Layers were chosen{fitted} on {chosen} clips; every score is on {scored} others, which neither has seen."
    yield "Which size is the most that holds is read off these scores, so the score of that one is a little optimistic."
    if halves.shared_speakers:
        yield "Both halves are of the same voice, so nothing here says how the model does with other voices."


def _wer(system: SystemScores) -> float:
    return system.measures["WER"].value.value


def _increase(system: SystemScores) -> float:
    """Infinite where it is not known."""
    delta = system.measures["WER"].delta
    return float("inf") if delta is None or delta.relative is None else delta.relative.value


def _upper_increase(system: SystemScores) -> float:
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
    return shoal.prune(model, plan, out=target, force=True)


def _largest(plans: list[Plan]) -> Plan:
    return max((plan for plan in plans if plan.block), key=lambda plan: len(plan.layers), default=plans[-1])
