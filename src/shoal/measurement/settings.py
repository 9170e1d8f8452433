"""What an audit measures, and how."""

from __future__ import annotations

from typing import Annotated, Self

from cyclopts import Parameter
from pydantic import BeforeValidator, Field, model_validator

from shoal.errors import UsageError
from shoal.measurement.metric_types import ImportanceMetric, ImportanceOptions
from shoal.measurement.metrics import METRICS, check_known, cosine_metrics, importances
from shoal.settings import OUTPUT, SPEED, Intervals, comma_separated
from shoal.terms import PARTS, InputKind, Part, Scope

EXTRAS = ("race", "decode")
"""Options that only some importances know."""


def _sizes(value: object) -> object:
    """`all` means every size."""
    parts = comma_separated(value)
    return None if parts == ["all"] else parts


class AuditSettings(Intervals):
    """What an audit measures, and how."""

    inputs: Annotated[tuple[InputKind, ...] | None, Parameter(name="--input")] = None
    """Input in the audio's place: speech, or the transcript as text; default: all that the model can take.
    Repeatable."""
    metrics: Annotated[tuple[str, ...], Parameter(name="--metric")] = Field(
        default=(),
        description=f"Metric to measure: {', '.join(metric.name for metric in importances())}; "
        f"{' and '.join(metric.name for metric in cosine_metrics())} always are. Repeatable.",
    )
    block_sizes: Annotated[tuple[int, ...] | None, BeforeValidator(_sizes), Parameter(metavar="N,N…|all")] = (1,)
    """Sizes of the blocks of layers that ablation leaves out, such as 1,2,4, or all."""
    parts: Annotated[tuple[Part, ...], Parameter(name="--part")] = ("layer",)
    """Part of a layer that ablation leaves out; attention and mlp of single layers only. Repeatable."""
    loss_scope: Scope = "response"
    """Positions whose tokens the loss of gradient and ablation is taken over."""
    race: bool = False
    """Let ablation drop a candidate as soon as it is surely worse than the best one."""
    decode: bool = False
    """Let ablation decode every clip without each candidate too, for error rates and not only losses."""
    until: float | None = Field(default=None, gt=0.5, lt=1)
    """Take clips in, in a random order, until the blocks that would be chosen are the best (or within 2 % of it) in
    this share of bootstrap replicates, such as 0.99; default: measure all clips."""
    batch_size: Annotated[int, SPEED] = Field(default=16, ge=1)
    """Clips in a forward pass."""
    force: Annotated[bool, OUTPUT] = False
    """Measure anew where the folder holds an audit of something else."""

    @model_validator(mode="after")
    def _metrics_know_their_options(self) -> Self:
        check_known(self.metrics, METRICS, "--metric")
        for extra in EXTRAS:
            if getattr(self, extra) and not any(extra in metric.extras for metric in self.importances):
                able = [metric.name for metric in importances() if extra in metric.extras]
                raise UsageError(
                    f"only {' and '.join(able)} does that", where=f"--{extra}", fix=f"add --metric {able[0]}"
                )
        if self.importances:
            known = [part for part in PARTS if any(part in metric.parts for metric in self.importances)]
            check_known(self.parts, known, "--part", f"part for {' and '.join(self.metrics)}")
        for metric in self.importances:
            check_known([self.loss_scope], metric.scopes, "--loss-scope", f"scope for {metric.name}")
        return self

    @property
    def importances(self) -> list[ImportanceMetric]:
        """What is asked for beside the cosine metrics, which are always measured."""
        return [metric for metric in importances() if metric.name in self.metrics]

    def check_depth(self, depth: int) -> None:
        """Make sure that there are blocks of these sizes in a decoder of `depth` layers.

        Raises:
            UsageError: there are not.
        """
        from shoal.measurement.blocks import block_candidates

        if self.importances:
            block_candidates(depth, self.block_sizes)

    def options_of(self, metric: ImportanceMetric) -> ImportanceOptions:
        """What one of them is measured of, and how."""
        return ImportanceOptions(
            block_sizes=self.block_sizes,
            parts=tuple(part for part in metric.parts if part in self.parts),
            scope=self.loss_scope,
            race=self.race,
            decode=self.decode,
            seed=self.seed,
            batch_size=self.batch_size,
        )
