"""The audit: how redundant the decoder layers are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shoal.schema.document import DataInfo, Document, ModelInfo
from shoal.schema.record import Estimate, Record
from shoal.schema.words import InputKind, Part, Scope, Triangle


class BestBlock(Record):
    """The block of `n` layers with the smallest distance, and how sure that choice is."""

    n: int
    layer: int
    distance: Estimate
    stability: float | None
    """Share of bootstrap replicates in which this block is the best of its size (None: no interval)."""
    runner_up: int | None = None
    """Start of the block most often chosen instead (None: there is no other)."""


class ScopeAudit(Record):
    """Everything measured over one scope of one input."""

    positions: int
    utterances: int
    angular: Triangle
    angular_low: Triangle | None = None
    """Bounds of the interval; None with fewer than two clusters to resample."""
    angular_high: Triangle | None = None
    influence: list[float]
    influence_low: list[float] | None = None
    influence_high: list[float] | None = None
    best: list[BestBlock]
    """One entry per n = 1 … L (over all l, the block that ends at the last layer included)."""
    best_keeping_last: list[BestBlock] = Field(default_factory=list)
    """One entry per n = 1 … L-1: the same among the blocks that leave the last layer in place."""


Quantity = Literal["signed", "absolute", "loss", "kl", "score"]
"""What importance is counted in: of the gradient metric `signed` or `absolute` (nats a token, to first order), of
ablation the true rise of the task `loss` (nats a token), `kl` from the full model (nats a token), or of the task's own
error rate by decoding (`score`)."""


class Importance(Record):
    """What the task loses without each of some candidates, by one quantity; the less, the safer it is to remove.

    Lists run over candidates. A candidate without a usable value has None, and `refused` says why: it must not be
    chosen.
    """

    metric: Literal["gradient", "ablation"]
    quantity: Quantity
    unit: str = ""
    """Such as `nats a token` or `WER`."""
    scope: Scope = "text"
    """Whose tokens the loss is taken over."""
    part: Part = "layer"
    candidates: list[list[int]]
    """Layers that each candidate goes without (or whose `part` it goes without), ascending."""
    values: list[float | None]
    low: list[float | None] | None = None
    """Bounds of the interval; None with fewer than two clusters to resample."""
    high: list[float | None] | None = None
    clips: list[int]
    """Clips that each candidate was measured on; fewer than `utterances` where a race dropped it."""
    refused: dict[int, str] = Field(default_factory=dict)
    """Candidate (its place in the lists) → why it has no value."""
    utterances: int
    positions: int
    """Tokens (of a score: reference words) over all utterances."""
    full: Estimate | None = None
    """The same quantity of the unpruned model: its loss, or its error rate; None where that is 0 by definition."""
    method: str = ""
    """How the model was run: `replay` (shared prefixes, suffixes only) or `removal` (each candidate in full)."""

    @property
    def name(self) -> str:
        """Such as `ablation loss` or `attention gradient absolute`."""
        part = "" if self.part == "layer" else f"{self.part} "
        return f"{part}{self.metric} {self.quantity}"

    def blocks(self) -> dict[tuple[int, int], float]:
        """The values of the candidates that are blocks: (l, n) → value."""
        return {
            (layers[0], len(layers)): value
            for layers, value in zip(self.candidates, self.values, strict=True)
            if value is not None and layers == list(range(layers[0], layers[0] + len(layers)))
        }


class MetricTrust(Record):
    """How far a metric can be trusted among blocks of n layers: its ranking against what was measured by ablation."""

    metric: str
    """Such as `angular`, `influence`, `gradient absolute`."""
    scope: Scope
    n: int
    candidates: int
    spearman: Estimate
    """Rank correlation with the truth, 1 = the same order."""
    picked: int
    """Start of the block the metric chooses."""
    best: int
    """Start of the block that is truly best."""
    regret: Estimate
    """Truth at the metric's choice minus truth at the best block: what choosing by this metric costs."""
    top_k: int = 3
    top_k_regret: Estimate | None = None
    """The same for the best of the metric's first `top_k`: what verifying a few would leave."""


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
    importance: list[Importance] = Field(default_factory=list)
    """What `gradient` and `ablation` measured, if asked for."""
    trust: list[Trust] = Field(default_factory=list)
    """One for each truth that ablation measured."""


class Audit(Document):
    """How redundant the decoder layers are. Per-utterance sums lie beside it in the `.npz`."""

    kind: Literal["audit"] = "audit"
    model: ModelInfo
    data: DataInfo
    task: str
    inputs: dict[InputKind, InputAudit]
    replicates: int
    level: float = 0.95
    cluster: Literal["utterance", "speaker"] = "utterance"
    seed: int = 0
    sums_file: str | None = None
    seconds: float = 0.0
    """Wall time of the forward passes and the metrics, without loading."""

    @property
    def depth(self) -> int:
        """Number of decoder layers L."""
        return self.model.depth
