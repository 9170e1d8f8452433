"""The documents of a report, sorted by kind, with what they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Generic, TypeAlias, TypeVar

from shoal.errors import UsageError
from shoal.schema import (
    Audit,
    Bench,
    BestBlock,
    Comparison,
    DataInfo,
    Document,
    Healing,
    HealRecord,
    MetricValues,
    ModelInfo,
    Plan,
    Scope,
    Scores,
    Search,
    SystemScores,
    TaskMatrix,
    TrainingRecord,
    Validation,
)
from shoal.score_tables import system_name
from shoal.terms import DEFAULT_SCOPE

UNPRUNED = "the unpruned model"
DocumentT = TypeVar("DocumentT", bound=Document)


@dataclass(frozen=True)
class Named(Generic[DocumentT]):
    """A document and the path it came from, if it has one."""

    label: str
    document: DocumentT

    @property
    def heading(self) -> str:
        """What tells it from others: model, task and path, as far as it has them."""
        model, task = getattr(self.document, "model", None), getattr(self.document, "task", "")
        return " · ".join(filter(None, (getattr(model, "ref", ""), task, self.label)))


Described: TypeAlias = Named[Audit] | Named[Search] | Named[Scores] | Named[Bench] | Named[Healing]
"""A document that names a model and the data it was measured on."""


@dataclass(frozen=True)
class Bundle:
    """What a report is made from, in the order given."""

    audits: list[Named[Audit]] = field(default_factory=list)
    comparisons: list[Named[Comparison]] = field(default_factory=list)
    task_matrices: list[Named[TaskMatrix]] = field(default_factory=list)
    searches: list[Named[Search]] = field(default_factory=list)
    plans: list[Named[Plan]] = field(default_factory=list)
    scores: list[Named[Scores]] = field(default_factory=list)
    benches: list[Named[Bench]] = field(default_factory=list)
    healings: list[Named[Healing]] = field(default_factory=list)
    heals: list[Named[HealRecord]] = field(default_factory=list)
    trainings: list[Named[TrainingRecord]] = field(default_factory=list)
    validations: list[Named[Validation]] = field(default_factory=list)
    notes: Sequence[str] = ()
    """What a reader must know that no document says."""

    def __iter__(self) -> Iterator[Named[Document]]:
        return chain.from_iterable(getattr(self, kind.name) for kind in fields(self) if kind.name != "notes")

    @property
    def described(self) -> list[Described]:
        """The documents that name a model and data, audits first."""
        return [*self.audits, *self.searches, *self.scores, *self.benches, *self.healings]

    @property
    def measured(self) -> list[Audit | Search | Scores | Bench | Healing]:
        """The same without their paths."""
        return [named.document for named in self.described]

    @property
    def model(self) -> ModelInfo | None:
        """The model of the first document that describes one; that of a healing's record if no other does."""
        return next(iter(self.models), None)

    @property
    def models(self) -> list[ModelInfo]:
        """The models of all documents that describe one."""
        return [named.document.model for named in (*self.described, *self.heals)]

    @property
    def data(self) -> DataInfo | None:
        """The data of the first document that describes any: scores before audits, for they are the test."""
        documents = [*(named.document for named in self.scores), *self.measured]
        return documents[0].data if documents else None

    @property
    def tasks(self) -> list[str]:
        """Tasks audited, searched for, compared, scored or trained on, each once."""
        tested: list[Named[Audit] | Named[Search] | Named[Scores] | Named[Healing] | Named[HealRecord]]
        tested = [*self.audits, *self.searches, *self.scores, *self.healings, *self.heals]
        sides = [side.task for named in self.task_matrices for side in named.document.sides]
        watched = [loss.task for named in self.trainings for loss in named.document.validation]
        return list(dict.fromkeys([*(named.document.task for named in tested), *sides, *watched]))

    @property
    def languages(self) -> list[str]:
        """Languages of the clips measured on, or trained on if nothing was measured, each once."""
        trained = [named.document.data for named in self.heals]
        trained += [data for named in self.trainings for data in named.document.data]
        used = [document.data for document in self.measured] or trained
        return list(dict.fromkeys(name for data in used for name in data.languages))

    @property
    def pruned_systems(self) -> list[SystemScores]:
        """The systems of all scores that lack layers, by a plan or as checkpoints."""
        return [system for named in self.scores for system in named.document.systems if system.absent_layers]

    @property
    def depth(self) -> int | None:
        """Number of decoder layers L."""
        if self.model is not None:
            return self.model.depth
        return self.plans[0].document.depth if self.plans else None

    @property
    def all_plans(self) -> list[Plan]:
        """Plans given, found, scored and healed, each list of layers (or parts of them) of a strategy once."""
        searched = [named.document.chosen for named in self.searches]
        scored = [system.plan for named in self.scores for system in named.document.systems]
        healed = [cell.plan for named in self.healings for cell in named.document.cells]
        plans = [named.document for named in self.plans]
        plans += [plan for plan in (*searched, *scored, *healed) if plan and plan.layers]
        unique = {(plan.strategy, plan.part, tuple(plan.layers)): plan for plan in reversed(plans)}
        return list(unique.values())[::-1]

    @property
    def preferred_scope(self) -> Scope:
        """The scope that the plans were chosen in, as far as a metric of the heatmaps chose them; else the default.

        The scope of an importance, whose loss is over the response, says nothing of where distances were looked at.
        """
        scopes = [
            scope for named in self.audits for part in named.document.inputs.values() for scope in part.scopes.values()
        ]
        shown = {name for scope in scopes for name in scope.metrics}
        chosen = [plan.source for plan in self.all_plans if plan.source and plan.source.scope]
        known = [source.scope for source in chosen if not shown or source.metric is None or source.metric in shown]
        return next(iter(known), None) or DEFAULT_SCOPE


_LISTS: dict[type[Document], str] = {
    Audit: "audits",
    Comparison: "comparisons",
    TaskMatrix: "task_matrices",
    Search: "searches",
    Plan: "plans",
    Scores: "scores",
    Bench: "benches",
    Healing: "healings",
    HealRecord: "heals",
    TrainingRecord: "trainings",
    Validation: "validations",
}
"""The field of a bundle in which documents of a kind are kept."""


def collect(documents: Sequence[Document | tuple[str, Document]], notes: Sequence[str] = ()) -> Bundle:
    """Sort documents by kind; `notes` are said beside them.

    Raises:
        UsageError: there are none, or one is of a kind the report does not know.
    """
    if not documents:
        raise UsageError("nothing to report", fix="give at least one Shoal file (audit, scores, bench …)")
    bundle = Bundle(notes=notes)
    for item in documents:
        label, document = item if isinstance(item, tuple) else ("", item)
        if type(document) not in _LISTS:
            raise UsageError(f"a document of kind {document.kind!r} has no place in a report")
        getattr(bundle, _LISTS[type(document)]).append(Named(label, document))
    return bundle


def baseline(scores: Scores) -> SystemScores | None:
    """The first system, which the others are compared with."""
    return scores.systems[0] if scores.systems else None


def baseline_words(scores: Scores) -> str:
    """What the first system is called: it may be a checkpoint that was pruned before."""
    base = baseline(scores)
    return system_name(base) if base and base.missing else UNPRUNED


def removable(values: MetricValues) -> list[BestBlock]:
    """The best block for each n among those that leave the last layer in place, as plans do unless told."""
    return values.best_keeping_last or values.best
