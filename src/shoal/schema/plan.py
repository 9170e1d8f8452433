"""The plan: what to remove, who chose it and how."""

from __future__ import annotations

import os
from typing import Any, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from shoal.errors import FileFormatError, PlanError
from shoal.schema.document import Document
from shoal.schema.record import Estimate, Record
from shoal.terms import InputKind, Part, Scope

DISTANCE_METRIC = "angular"
"""The metric that `Plan.distance` is of."""


class PlanSource(Record):
    """The audit a plan was chosen from; of a consensus the first of them, with the rest in `others`."""

    path: str
    fingerprint: str
    model_fingerprint: str = ""
    input: InputKind | None = None
    scope: Scope | None = None
    metric: str | None = None
    weight: float | None = None
    """How much this audit counts in a consensus."""
    combine: Literal["mean", "worst"] | None = None
    """How a consensus joins its audits: their weighted mean, or the one that loses most."""
    others: list[PlanSource] = Field(default_factory=list)


class Plan(Document):
    """What to remove: an explicit list of layers, with who chose it and how."""

    kind: Literal["plan"] = "plan"
    model_ref: str
    depth: int = Field(ge=1)
    layers: list[int]
    """0-based indices of the layers to remove, ascending."""
    part: Part = "layer"
    """What of those layers goes: all of each, or only its attention or its MLP (a variant that is measured in memory;
    stock classes have no layer without one of the two)."""
    keep: list[int] = Field(default_factory=list)
    """0-based indices of the layers that stay, ascending."""
    block: tuple[int, int] | None = None
    """The same as a half-open range `[start, stop)`, if the layers are contiguous."""
    strategy: str = "manual"
    allow_last: bool = False
    seed: int | None = None
    distance: Estimate | None = None
    """Angular distance of the block as a share of pi, if the layers are one block of whole layers."""
    importance: Estimate | None = None
    """The value these layers were chosen by, if that is one number and not the angular distance: of the metric in
    `source`; where it has values of layers only, the sum over layers. Of the best block by ablation: chosen on half of
    the clips and measured on the other half."""
    selection_frequency: float | None = Field(
        default=None, validation_alias=AliasChoices("selection_frequency", "stability")
    )
    """Share of bootstrap replicates in which this block is the best of its size."""
    confidence_set: list[int] = Field(default_factory=list)
    """Starts of the blocks that the audit cannot tell from the best of its size; empty if that is not known."""
    source: PlanSource | None = None
    note: str = ""
    """How sure the search is that chose it."""

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        """Fill `keep` and `block` from `layers`; a hand-written plan needs only `depth` and `layers`."""
        if not isinstance(data, dict) or not isinstance(data.get("layers"), list):
            return data
        data = dict(data)
        layers, depth = data["layers"], data.get("depth")
        if layers and isinstance(depth, int) and all(type(layer) is int for layer in layers):
            data["keep"] = [layer for layer in range(depth) if layer not in set(layers)]
            contiguous = layers == list(range(layers[0], layers[0] + len(layers)))
            data["block"] = (layers[0], layers[-1] + 1) if contiguous else None
        elif not layers and isinstance(depth, int):
            data["keep"], data["block"] = list(range(depth)), None
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        problem = plan_problem(self.layers, self.depth, allow_last=self.allow_last)
        if problem:
            raise ValueError(problem)
        return self

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a plan; see `Document.load`.

        Raises:
            PlanError: also for layers out of range, twice or out of order.
        """
        try:
            return super().load(path)
        except FileFormatError as error:
            raise PlanError(error.what, where=error.where, fix=error.fix) from None

    def check_depth(self, depth: int) -> None:
        """Make sure that it is for a decoder of `depth` layers.

        Raises:
            PlanError: it is not.
        """
        if self.depth != depth:
            raise PlanError(
                f"the plan is for a decoder of {self.depth} layers but the model has {depth}",
                where=f"{self.name} for {self.model_ref}",
                fix="make a plan from an audit of this model",
            )

    @property
    def name(self) -> str:
        """Short label, such as `contiguous-4` or `full`."""
        part = "" if self.part == "layer" else f"-{self.part}"
        return f"{self.strategy}{part}-{len(self.layers)}" if self.layers else "full"


def plan_problem(layers: list[int], depth: int, *, allow_last: bool = False) -> str | None:
    """What is wrong with removing `layers` from a decoder of `depth` layers; None if nothing is."""
    out_of_range = [layer for layer in layers if not 0 <= layer < depth]
    if out_of_range:
        return f"layers {out_of_range} are outside 0 … {depth - 1} (the model has {depth} layers)"
    if len(set(layers)) != len(layers):
        return f"layers {sorted({layer for layer in layers if layers.count(layer) > 1})} are listed twice"
    if layers != sorted(layers):
        return "layers are not in ascending order"
    if len(layers) >= depth:
        return f"removing {len(layers)} of {depth} layers would leave none"
    if depth - 1 in layers and not allow_last:
        return f"layer {depth - 1} is the last layer, which stays unless allow_last is set"
    return None
