"""The search: one plan after the other on the validation split, those that held there on unseen clips."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal import tasks
from shoal.data import fingerprint
from shoal.data.splits import Split, as_given, split
from shoal.errors import UsageError
from shoal.evaluation.generated_speech import without_unmeasurable_loss
from shoal.evaluation.model_checks import check_can_answer
from shoal.evaluation.scores.registry import headline
from shoal.evaluation.systems import checkpoint_name
from shoal.measurement.metrics import sign_of
from shoal.plan_search import budget as limits
from shoal.plan_search.measures import StoredMeasure, measure_of
from shoal.plan_search.paths import choices, removable_layers
from shoal.plan_search.rule import chosen, confirm_in_sequence, held_on_validation
from shoal.plan_search.settings import SearchSettings
from shoal.plan_search.trials import Trial, Trials
from shoal.plan_search.words import how_sure, reason, too_few_clusters
from shoal.progress import Progress, report_progress
from shoal.provenance import provenance
from shoal.schema import Budget, Confirmation, Estimate, Plan, PlanSource, Search, SearchStep
from shoal.schema.files import check_same
from shoal.schema.plan import DISTANCE_METRIC
from shoal.settings import takes
from shoal.tasks.settings import NEEDS

if TYPE_CHECKING:
    from shoal.data import Dataset, Row
    from shoal.evaluation.scores.base import Score
    from shoal.models.loading import LoadedModel
    from shoal.plan_search.relative_change import RelativeChange
    from shoal.selection.strategy import Choice
    from shoal.tasks import Task

_log = logging.getLogger("shoal.plan_search")

SEARCH_FILE, PLAN_FILE = "search.json", "plan.json"
TIMED_CLIPS, TIMED_ROUNDS = 4, 3
LOWEST_LEVEL = 1e-9
"""Both bounds of an interval at confidence 0.5 are the median; a level of 0 is none."""


@takes(SearchSettings)
def search(
    model: LoadedModel,
    data: Dataset,
    task: Task | str = "asr",
    settings: SearchSettings | None = None,
    *,
    confirm_data: Dataset | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Search:
    """Remove one layer more at a time, score every plan on one half of the clips, and test the deepest on the other.

    A plan holds if its headline score (WER, BLEU …) is, relative to the unpruned model's, worse by at most
    `max_increase`: on the validation split by the one-sided upper bound of the paired bootstrap, on the confirmation
    split by one-sided tests, the least pruned plan first, until one fails. It is confirmed if it also passes with one
    unseen clip among the draws on which it loses all that the token limit allows, and with 20 speakers (or clips, where
    speakers are not known) or more in each split. With bounds on costs it must keep to these too. With nothing but
    bounds on costs, the plan of the fewest layers that keeps to them is found, and what it costs is reported.

    Args:
        model: a SpeechLLM from `shoal.load`.
        data: from `shoal.read_manifests`; split into validation and confirmation, by speaker where speakers are known.
        task: what is asked, and how answers are scored.
        settings: what a plan must keep to, and how plans are found and tried.
        confirm_data: other clips for the confirmation; `data` is then not split.
        out: folder for `search.json`, `plan.json`, what was measured and the raw outputs; running again there decodes
            and measures only what is missing.
        progress: called with (what, done, in all).
        **options: fields of `SearchSettings`, instead of `settings` or in their place.

    Returns:
        Everything that was tried; `chosen` is None and `reason` says why where no plan holds, and `confirmed` says
        whether the chosen one is.

    Raises:
        UsageError: a text LLM, a task for which nothing is decoded, a budget that makes no sense or that the unpruned
            model keeps to already, too few clips to split, or `out` holds a search with other settings.
        ManifestError: no usable clip or reference, or an unpruned model whose score is 0.
        FileFormatError: `out` holds outputs of another model or other settings.
    """
    settings = SearchSettings.of(settings, options)
    folder = None if out is None else Path(out)
    task = tasks.get(task) if isinstance(task, str) else task
    score = headline(task)
    task = task.only(NEEDS[score.name])
    check_can_answer(model, task)
    parts = split(data, settings.seed) if confirm_data is None else as_given(data, confirm_data)
    for half in (parts.validation, parts.confirmation):
        model.check_clips(half, task)
    budget = limits.with_usual_increase(settings.budget, task.settings.kind)
    _check(model, task, budget, settings)
    # The same on both splits, whichever labels are in them.
    rows = [*parts.validation.rows, *parts.confirmation.rows]
    if folder is not None and not settings.force:
        _check_stored(folder, model, rows, task, budget, settings)
    task = without_unmeasurable_loss(task.on(rows), model, rows)
    outcome = SearchRun(model, parts, task, budget, settings, folder, progress).carry_out(score)
    if folder is not None:
        _save(outcome, folder)
    return outcome


def _check(loaded: LoadedModel, task: Task, budget: Budget, settings: SearchSettings) -> None:
    """Refuse, before anything is computed, what cannot be answered."""
    info = loaded.info()
    if settings.input not in loaded.inputs or settings.input not in task.inputs:
        by = loaded.ref if settings.input not in loaded.inputs else f"the task {task.name}"
        possible = [name for name in loaded.inputs if name in task.inputs]
        raise UsageError(
            f"{by} cannot take the input {settings.input!r}",
            where="--input",
            fix=f"use {' or '.join(possible)}" if possible else "choose another task",
        )
    task.check_scope(settings.counted, "--scope")
    removable = removable_layers(info.depth, allow_last=settings.allow_last)
    limits.check_replicates(budget, settings.replicates)
    whole = settings.part == "layer"
    limits.check_costs(budget, info, loaded.dtype.itemsize, whole=whole, removable=removable)


def _check_stored(
    out: Path, loaded: LoadedModel, rows: Sequence[Row], task: Task, budget: Budget, settings: SearchSettings
) -> None:
    """Refuse to replace a search that was asked for with other settings, or on other clips."""
    if not (out / SEARCH_FILE).is_file():
        return
    stored = Search.load(out / SEARCH_FILE)
    # Bad audio has left the clips of the record, and is among those that are asked for.
    bad = {(row.manifest, row.line) for row in stored.data.skipped}
    clips = fingerprint(row for row in rows if (row.manifest, row.line) not in bad)
    asked = {**_asked(task, budget, settings), "budget": budget.model_dump()}
    check_same(
        out,
        "a search",
        {
            "model": stored.model.fingerprint,
            "clips": stored.data.fingerprint,
            **stored.model_dump(mode="json", include=set(asked)),
        },
        {"model": loaded.info().fingerprint, "clips": clips, **asked},
    )


def _asked(task: Task, budget: Budget, settings: SearchSettings) -> dict[str, Any]:
    """What decides a search besides model and clips, under the names of its record."""
    return {
        "task": task.name,
        "budget": budget,
        "strategy": settings.strategy,
        "metric": settings.ranked_by,
        "input": settings.input,
        "scope": settings.counted,
        "part": settings.part,
        "width": settings.width if settings.strategy == "beam" else None,
        **settings.model_dump(include={"patience", "confirm_plans", "allow_last", "replicates", "cluster", "seed"}),
    }


def _save(search: Search, out: Path) -> None:
    """A plan of an earlier search does not stay beside the record of one that found none."""
    if search.chosen is not None:
        search.chosen.save(out / PLAN_FILE)
    else:
        (out / PLAN_FILE).unlink(missing_ok=True)
    search.save(out / SEARCH_FILE)


def _as_measured(choice: Choice, settings: SearchSettings) -> Estimate | None:
    """The choice's value as the metric counts it, whichever way that is."""
    if choice.value is None:
        return None
    return Estimate(value=sign_of(settings.ranked_by) * choice.value.value)


@dataclass
class SearchRun:
    """Plans over one model, tried on both splits; fields as in `search`."""

    loaded: LoadedModel
    parts: Split
    task: Task
    budget: Budget
    settings: SearchSettings
    out: Path | None
    progress: Progress | None

    def __post_init__(self) -> None:
        self.validation = self._trials(self.parts.validation, "validation")
        self.confirmation = self._trials(self.parts.confirmation, "confirmation")
        if self.budget.max_increase is not None and not self.budget.point:
            self.validation.check_varies()
            self.confirmation.check_varies()

    def _trials(self, data: Dataset, name: str) -> Trials:
        out = None if self.out is None else self.out / name
        return Trials(self.loaded, data, self.task, self.settings, out, name, self.progress)

    @property
    def tested_increase(self) -> float:
        """What plans are tested against on unseen clips."""
        asked = self.budget.max_increase
        return limits.usual_increase(self.task.settings.kind) if asked is None else asked

    def carry_out(self, score: Score) -> Search:
        """Try plans, test the deepest, and say what came of it."""
        steps = list(self.steps())
        confirmations = self.confirm(steps)
        best = chosen(confirmations)
        test = None if best is None else confirmations[best]
        search = Search(
            provenance=provenance(device=str(self.loaded.device), dtype=self.loaded.dtype_name),
            model=self.loaded.info(),
            name=checkpoint_name(self.loaded, [step.plan.name for step in steps]),
            data=self.parts.info(),
            score_name=score.name,
            higher_is_better=score.higher_is_better,
            fraction=score.fraction,
            tested_increase=self.tested_increase,
            validation_clips=len(self.parts.validation.rows),
            confirmation_clips=len(self.parts.confirmation.rows),
            validation_drawn=self.validation.drawn,
            confirmation_drawn=self.confirmation.drawn,
            least_clips_needed=self._least_clips_needed,
            shared_speakers=self.parts.shared_speakers,
            full_validation=self.validation.full,
            full_confirmation=self.confirmation.full,
            steps=steps,
            confirmations=confirmations,
            chosen=None if test is None else test.plan,
            confirmed=test is not None and test.confirmed,
            reason=reason(score, self.budget, steps, confirmations, test),
            **_asked(self.task, self.budget, self.settings),
        )
        if search.chosen is not None:
            search.chosen = search.chosen.model_copy(update={"note": how_sure(search)})
        return search

    def steps(self) -> Iterator[SearchStep]:
        """Try plans of 1, 2, … layers, until `patience` of them in a row break the budget by their value.

        Plans that cost too much are passed over. Where only costs are bounded, the first that keeps to them is the
        last.
        """
        self._check_full()
        bad = 0
        for choice in self._choices():
            plan = self._plan(choice)
            costs = self._costs(plan)
            if not costs.within(self.budget):
                continue
            step = self._tried(plan, choice, costs)
            yield step
            if self.budget.max_increase is None:
                return
            bad = bad + 1 if step.change.value > self.budget.max_increase else 0
            if bad == self.settings.patience:
                return

    def confirm(self, steps: Sequence[SearchStep]) -> list[Confirmation]:
        """The deepest plans that held, the least pruned of them first, on the confirmation split until one fails."""
        held = sorted((step.plan for step in steps if step.holds), key=lambda plan: len(plan.layers))
        plans = held[-self.settings.confirm_plans :]
        trials: list[Trial] = []

        def changes() -> Iterator[RelativeChange]:
            for plan in plans:
                trials.append(self.confirmation.run(plan))
                yield trials[-1].change

        verdicts = confirm_in_sequence(changes(), self.budget, self.tested_increase, self.validation.drawn.clusters)
        return [
            Confirmation(
                plan=plan, score=trial.score, change=trial.change.estimate(self.budget.confidence), **asdict(verdict)
            )
            for plan, trial, verdict in zip(plans, trials, verdicts, strict=False)
        ]

    def _check_full(self) -> None:
        """Look at the unpruned model before anything is spent on plans: is there a score, and must layers go?"""
        judged = self.budget.max_increase is not None and not self.budget.point
        for trials in (self.validation, self.confirmation) if judged else ():
            if few := too_few_clusters(trials.name, trials.drawn):
                _log.warning("warning: no plan can be confirmed: %s", few)
        needed = self._least_clips_needed if judged else None
        if needed is not None and needed > len(self.parts.confirmation.rows):
            _log.warning(
                "warning: about %d confirmation clips would confirm a plan that changes nothing; there are %d",
                needed,
                len(self.parts.confirmation.rows),
            )
        if self.budget.max_milliseconds is not None:
            info = self.loaded.info()
            size = limits.megabytes(info, (), self.loaded.dtype.itemsize)
            limits.check_layers_must_go(self.budget, limits.Costs(info.depth, size, *self._milliseconds([])))

    def _choices(self) -> Iterator[Choice]:
        """The strategy's plans, with progress: measuring for the next depth can take a while."""
        depth, stage = self.loaded.info().depth, f"plans by {self.settings.ranked_by}"
        report_progress(self.progress, stage, 0, depth - 1)
        for choice in choices(self.settings, self._measure, depth):
            report_progress(self.progress, stage, len(choice.layers), depth - 1)
            yield choice

    @cached_property
    def _least_clips_needed(self) -> int | None:
        """By the unpruned model alone, which is decoded for it."""
        return self.validation.unchanged().clips_needed(self.tested_increase, self.budget.confidence)

    @cached_property
    def _measure(self) -> StoredMeasure:
        return measure_of(self.loaded, self.parts.validation, self.task, self.settings, self.out)

    def _plan(self, choice: Choice) -> Plan:
        info, settings = self.loaded.info(), self.settings
        value = _as_measured(choice, settings)
        # Of `lowest` one layer at most has a value; it is named as the metric's, whichever that is.
        by_distance = settings.ranked_by == DISTANCE_METRIC and settings.strategy == "contiguous"
        return Plan(
            provenance=provenance(device=str(self.loaded.device), dtype=self.loaded.dtype_name),
            model_ref=info.ref,
            depth=info.depth,
            layers=choice.layers,
            part=settings.part,
            strategy=settings.strategy,
            allow_last=settings.allow_last,
            distance=value if by_distance else None,
            importance=None if by_distance else value,
            source=PlanSource(
                path=SEARCH_FILE if self.out is None else str(self.out / SEARCH_FILE),
                fingerprint=self._measure.key,
                model_fingerprint=info.fingerprint,
                input=settings.input,
                scope=settings.counted,
                metric=settings.ranked_by,
            ),
        )

    def _tried(self, plan: Plan, choice: Choice, costs: limits.Costs) -> SearchStep:
        trial = self.validation.run(plan)
        return SearchStep(
            plan=plan,
            measure=_as_measured(choice, self.settings),
            score=trial.score,
            change=trial.change.estimate(self.budget.confidence),
            holds=held_on_validation(trial.change, self.budget),
            clips_needed=trial.change.clips_needed(self.tested_increase, self.budget.confidence),
            milliseconds=costs.milliseconds,
            milliseconds_bound=costs.milliseconds_bound,
            megabytes=costs.megabytes,
        )

    def _costs(self, plan: Plan) -> limits.Costs:
        info = self.loaded.info()
        latency = (None, None) if self.budget.max_milliseconds is None else self._milliseconds([plan])
        if plan.part != "layer":
            return limits.Costs(info.depth, None, *latency)
        size = limits.megabytes(info, plan.layers, self.loaded.dtype.itemsize)
        return limits.Costs(info.depth - len(plan.layers), size, *latency)

    def _milliseconds(self, plans: Sequence[Plan]) -> tuple[float, float]:
        """Latency of a clip with the last plan, or with the unpruned model, and its one-sided upper bound."""
        from shoal.benchmarking.run import bench
        from shoal.benchmarking.settings import BenchSettings

        settings = BenchSettings(
            clips=TIMED_CLIPS,
            repeats=TIMED_ROUNDS,
            replicates=self.settings.replicates,
            level=max(2 * self.budget.confidence - 1, LOWEST_LEVEL),
            seed=self.settings.seed,
        )
        timed = bench(self.loaded, self.parts.validation, self.task, settings, plans=plans)
        seconds = timed.systems[-1].total_seconds
        return 1000 * seconds.value, 1000 * (seconds.value if seconds.high is None else seconds.high)
