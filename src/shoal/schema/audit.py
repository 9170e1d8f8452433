"""The audit: how redundant the decoder layers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from shoal.schema import old_audits
from shoal.schema.document import DataInfo, Document, ModelInfo
from shoal.schema.record import Drawn, Estimate, Record
from shoal.terms import Caution, InputKind, Part, Scope, Triangle, is_block


class BestBlock(Record):
    """The block of `n` layers that a metric calls the most redundant, and how sure that choice is."""

    n: int
    layer: int
    distance: Estimate
    """What the metric says of it."""
    selection_frequency: float | None = Field(
        default=None, validation_alias=AliasChoices("selection_frequency", "stability")
    )
    """Share of bootstrap replicates in which this block is the best of its size (None: no interval); it is no
    confidence. Files written before call it stability."""
    near_best_frequency: float | None = None
    """Share of replicates in which it is the best, or its distance at most 2 % larger; None where that is not known."""
    confidence_set: list[int] = Field(default_factory=list)
    """Starts of the blocks of this size, this one among them, that these clips cannot tell from the best at the
    audit's level; empty if that is not known. See `shoal.statistics.confidence_set`."""

    held_out: Estimate | None = None
    """Of what was measured in earnest: the same of the block that is best on half of the clusters, measured on the
    other half, over 20 random halves. `distance` is too good, because the block was chosen on the clips it is of."""

    @property
    def rivals(self) -> list[int]:
        """Starts of the others that may be the best."""
        return [start for start in self.confidence_set if start != self.layer]


class MetricValues(Record):
    """What one metric of cosines says over one scope."""

    title: str = ""
    """In words, such as `angular distance`."""
    unit: Annotated[str, BeforeValidator(old_audits.unit)] = ""
    per: Literal["block", "layer"] = "block"
    low_is_redundant: bool = True
    values: Triangle
    """Of every block; of a metric of layers the first row alone, n = 1."""
    low: Triangle | None = None
    """Bounds of the interval; None with fewer than two clusters to resample."""
    high: Triangle | None = None
    caution: Caution | None = None
    """Of every interval."""
    best: list[BestBlock] = Field(default_factory=list)
    """One entry per n = 1 … L (over all l, the block that ends at the last layer included); of blocks only."""
    best_keeping_last: list[BestBlock] = Field(default_factory=list)
    """One entry per n = 1 … L-1: the same among the blocks that leave the last layer in place."""

    def estimate(self, layers: Sequence[int], level: float = 0.95) -> Estimate:
        """Of a layer or a block with its interval; a metric of layers has the sum of a block's layers, without one."""
        first, row = layers[0], len(layers) - 1
        if row >= len(self.values):
            return Estimate(value=sum(self.values[0][layer] for layer in layers), level=level)
        low, high = (None if rows is None else rows[row][first] for rows in (self.low, self.high))
        return _estimate(self.values[row][first], low, high, level, self.caution)

    def of_layers(self) -> list[Estimate]:
        """Of every single layer."""
        return [self.estimate([layer]) for layer in range(len(self.values[0]))]


def _estimate(value: float, low: float | None, high: float | None, level: float, caution: Caution | None) -> Estimate:
    return Estimate(value=value, low=low, high=high, level=level, caution=None if low is None else caution)


class ScopeAudit(Record):
    """Everything measured over one scope of one input."""

    positions: int
    utterances: int
    metrics: dict[str, MetricValues]
    """By name, the usual one first."""

    _read_old = model_validator(mode="before")(old_audits.scope_audit)

    def of_blocks(self) -> dict[str, MetricValues]:
        """The metrics that have a value of every block."""
        return {name: values for name, values in self.metrics.items() if values.per == "block"}


class Importance(Record):
    """What the task loses without each of some candidates, by one quantity of one metric.

    Lists run over candidates. A candidate without a usable value has None, and `refused` says why: it must not be
    chosen.
    """

    metric: str
    quantity: str
    option: str = ""
    """What `--metric` calls it when plans are chosen by it, such as `ablation-kl`."""
    title: str = ""
    """In words, such as `rise of the loss`."""
    noun: str = ""
    """What heads a figure of it; the unit if empty."""
    low_is_redundant: bool = True
    additive: bool = False
    """A block that was not measured itself counts as the sum of its layers."""
    measured: bool = False
    """Candidates were left out in earnest: other metrics are held against it."""
    unit: str = ""
    """Such as `nats a token` or `WER`."""
    scope: Scope = "response"
    """Whose tokens the loss is taken over."""
    part: Part = "layer"
    candidates: list[list[int]]
    """Layers that each candidate goes without (or whose `part` it goes without), ascending."""
    values: list[float | None]
    low: list[float | None] | None = None
    """Bounds of the interval; None with fewer than two clusters to resample."""
    high: list[float | None] | None = None
    caution: Caution | None = None
    """Of every interval."""
    clips: list[int]
    """Clips that each candidate was measured on; fewer than `utterances` where a race dropped it."""
    refused: dict[int, str] = Field(default_factory=dict)
    """Candidate (its place in the lists) → why it has no value."""
    utterances: int
    positions: int
    """Tokens (of a score: reference words) over all utterances."""
    full: Estimate | None = None
    """The same quantity of the unpruned model: its loss, or its error rate; None where that is 0 by definition."""
    best: list[BestBlock] = Field(default_factory=list)
    """Of what was measured in earnest: one entry for each size that has two or more blocks which leave the last layer
    in place and were measured on every clip."""
    method: str = ""
    """How the model was run: `replay` (shared prefixes, suffixes only) or `removal` (each candidate in full)."""

    _read_old = model_validator(mode="before")(old_audits.importance)

    @property
    def name(self) -> str:
        """Such as `ablation loss` or `attention gradient signed`."""
        part = "" if self.part == "layer" else f"{self.part} "
        return f"{part}{self.metric} {self.quantity}"

    def estimate(self, index: int, level: float = 0.95) -> Estimate | None:
        """Of one candidate with its interval; None where it has no value."""
        value = self.values[index]
        low, high = (None if bounds is None else bounds[index] for bounds in (self.low, self.high))
        return None if value is None else _estimate(value, low, high, level, self.caution)

    def blocks(self) -> dict[tuple[int, int], float]:
        """The values of the candidates that are blocks: (l, n) → value."""
        return {
            (layers[0], len(layers)): value
            for layers, value in zip(self.candidates, self.values, strict=True)
            if value is not None and is_block(layers)
        }


class MetricTrust(Record):
    """How far a metric can be trusted among blocks of n layers: its ranking against what was measured in earnest."""

    metric: str
    """Such as `angular`, `influence`, `gradient clip-absolute`."""
    title: str
    """In words, such as `gradient importance, absolute per clip`."""
    measured: bool = False
    """It leaves blocks out in earnest itself, so that going by it spares no trial."""
    scope: Scope
    n: int
    candidates: int
    spearman: Estimate
    """Rank correlation with the truth on all clips, 1 = the same order. It has no interval: noise of the clips lowers
    it, and lowers it once more in every bootstrap replicate."""
    reliability: float | None = None
    """How well the metric's own order repeats: rank correlation of random halves of the clips, stepped up to all of
    them (Spearman-Brown)."""
    truth_reliability: float | None = None
    """The same of the truth."""
    disattenuated: float | None = None
    """Rank correlation without the noise of the clips; None where an order does not repeat at all."""
    picked: int
    """Start of the block the metric chooses."""
    best: int
    """Start of the best measured block."""
    regret: Estimate
    """Truth at the metric's choice minus truth at the best measured block: both are chosen on half of the clusters and
    measured on the other half, over 20 random halves. It may be negative."""
    top_k: int = 3
    top_k_regret: Estimate | None = None
    """The same for the best of the metric's first `top_k`: what verifying a few would leave."""

    _read_old = model_validator(mode="before")(old_audits.metric_trust)

    @property
    def costs(self) -> bool:
        """Whether choosing by this metric loses more than chance explains."""
        return self.regret.low is not None and self.regret.low > 0


class Trust(Record):
    """Which metric predicts the truth: every metric and scope against one measured quantity."""

    truth: str
    """Such as `ablation loss` or `ablation score`."""
    unit: str
    metrics: list[MetricTrust]


class InputAudit(Record):
    """One input (speech or text) in every scope that has positions."""

    input: InputKind
    scopes: dict[Scope, ScopeAudit]
    empty_scopes: dict[Scope, str] = Field(default_factory=dict)
    """Scopes without any position, and why."""
    drawn: Drawn | None = None
    """What intervals are over; None in files that did not say so."""
    importance: list[Importance] = Field(default_factory=list)
    """What was measured of importance, if asked for."""
    trust: list[Trust] = Field(default_factory=list)
    """One for each truth that was measured."""

    def usual_importance(self) -> list[Importance]:
        """All that was measured in earnest, and of each other metric the quantity that plans are chosen by first."""
        options = {item.option for item in self.importance}

        def usual(item: Importance) -> bool:
            # Audits before that quantity have the one that was the first then.
            first = item.metric if item.metric in options else old_audits.ONCE_FIRST.get(item.metric)
            return item.measured or item.option == first

        return [item for item in self.importance if usual(item)]


class Look(Record):
    """How sure the choices were after so many clips."""

    clips: int
    speakers: int | None = None
    """None where they are not known."""
    least: float
    """The smallest `BestBlock.near_best_frequency` over inputs and block sizes."""
    n: int
    """The block size that has it."""


class Until(Record):
    """An audit that took clips in until its choices were stable, see `shoal.measurement.stopping`."""

    target: float
    looks: list[Look]
    stable: bool
    """False where the clips ran out before."""
    offered: int
    """Clips that there were."""


class Audit(Document):
    """How redundant the decoder layers are. Per-utterance sums lie beside it in the `.npz`."""

    kind: Literal["audit"] = "audit"
    schema_version: int = 3
    """Before version 2 metrics had fields of their own; before version 3 the selection frequency was called stability,
    and regret was measured on the clips that it was chosen on. `old_audits` reads those files."""
    model: ModelInfo
    data: DataInfo
    task: str
    inputs: dict[InputKind, InputAudit]
    replicates: int
    level: float = 0.95
    cluster: Literal["utterance", "speaker"] = "utterance"
    seed: int = 0
    sums_file: str | None = None
    until: Until | None = None
    """How it came to stop; None where all clips were asked for."""
    seconds: float = 0.0
    """Wall time of the forward passes and the metrics, without loading."""

    @property
    def depth(self) -> int:
        """Number of decoder layers L."""
        return self.model.depth

    @classmethod
    def upgrade(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Without the intervals of trust, which did not mean 95 % before version 3."""
        inputs = data["inputs"].items()
        return {
            **data,
            "inputs": {
                kind: {**measured, "trust": old_audits.without_intervals(measured.get("trust", []))}
                for kind, measured in inputs
            },
        }
