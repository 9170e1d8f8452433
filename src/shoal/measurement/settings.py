"""What an audit measures, and how."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from cyclopts import Parameter
from pydantic import BeforeValidator, Field, model_validator

from shoal.errors import UsageError
from shoal.schema.words import InputKind, Part, Scope
from shoal.settings import SPEED, Intervals, comma_separated

Metric = Literal["angular", "influence", "gradient", "ablation"]
METRICS: tuple[Metric, ...] = get_args(Metric)
SIMILARITY: tuple[Metric, ...] = ("angular", "influence")
"""Always measured: they cost one forward pass together."""


def _sizes(value: object) -> object:
    """`all` means every size."""
    parts = comma_separated(value)
    return None if parts == ["all"] else parts


class AuditSettings(Intervals):
    """What an audit measures, and how."""

    inputs: Annotated[tuple[InputKind, ...] | None, Parameter(name="--input")] = None
    """Input in the audio's place: speech, or the transcript as text; default: all that the model can take.
    Repeatable."""
    metrics: Annotated[tuple[Metric, ...], Parameter(name="--metric")] = SIMILARITY
    """Metric to measure; angular and influence always are. Repeatable."""
    block_sizes: Annotated[tuple[int, ...] | None, BeforeValidator(_sizes), Parameter(metavar="N,N…|all")] = (
        1,
    )
    """Sizes of the blocks of layers that ablation leaves out, such as 1,2,4, or all."""
    parts: Annotated[tuple[Part, ...], Parameter(name="--part")] = ("layer",)
    """Part of a layer that ablation leaves out; attention and mlp of single layers only. Repeatable."""
    loss_scope: Scope = "text"
    """Positions whose tokens the loss of gradient and ablation is taken over; text is the response."""
    race: bool = False
    """Let ablation drop candidates as soon as they are surely worse than the best."""
    decode: bool = False
    """Let ablation decode every clip without each candidate too: error rates, not only losses."""
    batch_size: Annotated[int, SPEED] = Field(default=16, ge=1)
    """Clips in a forward pass."""

    @model_validator(mode="after")
    def _ablation_has_its_options_alone(self) -> Self:
        if (self.race or self.decode) and "ablation" not in self.metrics:
            option = "--race" if self.race else "--decode"
            raise UsageError("only ablation does that", where=option, fix="add --metric ablation")
        return self
