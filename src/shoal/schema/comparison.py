"""How alike two audits are."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from shoal.schema import old_audits
from shoal.schema.document import Document
from shoal.schema.record import Estimate, Record
from shoal.terms import InputKind, Scope


class BlockOverlap(Record):
    """The blocks of n layers that two audits choose. `overlap` is shared layers / n."""

    n: int
    a: int
    b: int
    overlap: Estimate


class MetricComparison(Record):
    """One metric over one scope of both audits; of a metric of layers only the first correlation."""

    title: str = ""
    spearman: Estimate
    """Rank correlation over all blocks (l, n), or over all layers. Distances grow with n in any model, so over all
    blocks it flatters."""
    spearman_within_n: Estimate | None = None
    """Mean over n of the rank correlation among blocks of the same size (2 ≤ L-n+1)."""
    reliability_a: float | None = None
    """How well the first side's order (of blocks of one size, or of layers) repeats between random halves of its clips,
    stepped up to all of them; None with one cluster."""
    reliability_b: float | None = None
    disattenuated: float | None = None
    """The rank correlation among blocks of one size, or layers, without the noise of the clips."""
    overlaps: list[BlockOverlap] = Field(default_factory=list)
    mean_overlap: Estimate | None = None


class ScopeComparison(Record):
    """Every cosine metric that both audits have, over one scope."""

    metrics: dict[str, MetricComparison]

    _read_old = model_validator(mode="before")(old_audits.scope_comparison)


class ComparedAudit(Record):
    """Which side of a comparison."""

    path: str
    label: str
    input: InputKind
    task: str
    model_ref: str


class Comparison(Document):
    """How alike two audits are."""

    kind: Literal["comparison"] = "comparison"
    schema_version: int = 3
    """Before version 2 metrics had fields of their own; before version 3 there were intervals. `old_audits` reads those
    files."""
    a: ComparedAudit
    b: ComparedAudit
    paired: bool
    """Whether both were measured on the same utterances (then split together)."""
    same_layers: bool | None = None
    """Whether the decoders have the same layout, as a SpeechLLM and the LLM inside it have; None if not noted."""
    scopes: dict[Scope, ScopeComparison]

    @classmethod
    def upgrade(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Without the intervals, which did not mean 95 %."""
        return {**data, "scopes": old_audits.without_intervals(data["scopes"])}


class TaskLoss(Record):
    """What one task loses under the plan made for another (or for all), in the unit of `TaskMatrix.unit`."""

    task: str
    """Label of the side that loses."""
    plan: str
    """Label of the side the plan was made for, or `consensus`."""
    n: int
    layers: list[int]
    loss: Estimate
    """The side's own measure of that block."""
    excess: Estimate
    """The same minus its value under the side's own plan of that size: what sharing costs. Both plans are chosen again
    on half of the clusters and measured on the other half, over 20 random halves; it may be negative."""


class TaskMatrix(Document):
    """Audits of one model on several tasks, languages or inputs, side by side. Matrices are by the order of `sides`."""

    kind: Literal["task_matrix"] = "task_matrix"
    schema_version: int = 2
    """Before version 2 rank correlations and overlaps had intervals, which did not mean 95 %."""
    sides: list[ComparedAudit]
    scope: Scope
    measure: str
    """What plans are chosen by and losses are counted in: what every side has measured in earnest, such as
    `ablation loss`, else a cosine metric."""
    unit: Annotated[str, BeforeValidator(old_audits.unit)]
    spearman: list[list[Estimate]]
    """Rank correlation of the triangles among blocks of the same size (mean over n)."""
    overlap: list[list[Estimate]]
    """Mean overlap of the best blocks over n < L."""
    sizes: list[int]
    combine: Literal["mean", "worst"]
    weights: list[float]
    losses: list[TaskLoss]
    replicates: int
    level: float = 0.95

    @classmethod
    def upgrade(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Without those intervals."""
        return {**data, **{name: old_audits.without_intervals(data[name]) for name in ("spearman", "overlap")}}
