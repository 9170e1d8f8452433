"""Options of the commands that train, and what they print."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from shoal.errors import UsageError

if TYPE_CHECKING:
    from shoal.training.settings import RuntimeOptions

MaxPositions = Annotated[
    int,
    typer.Option(
        "--max-positions", min=1, help="Padded positions a forward pass; a larger step is taken in parts."
    ),
]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Processes that put batches together ahead.")]
SaveEvery = Annotated[
    int | None,
    typer.Option("--save-every", min=1, help="Steps between checkpoints; default a tenth of the run."),
]
ReportTo = Annotated[
    list[str] | None,
    typer.Option("--report-to", metavar="NAME", help="trackio, tensorboard, wandb … Repeatable."),
]
Precision = Annotated[str, typer.Option("--precision", help="Autocast: no, bf16 or fp16.")]
Features = Annotated[
    Path | None,
    typer.Option("--features", metavar="DIR", help="Where encoder states are kept; default Shoal's cache."),
]
Checkpointing = Annotated[
    bool,
    typer.Option("--gradient-checkpointing", help="Compute layers again in the backward pass: less memory."),
]


def how_to(
    *,
    max_positions: int,
    workers: int,
    save_every: int | None,
    report_to: list[str] | None,
    precision: str,
    features: Path | None,
    gradient_checkpointing: bool,
    run_name: str,
) -> RuntimeOptions:
    """What the options say of how a run is carried out.

    Raises:
        UsageError: an unknown precision.
    """
    from shoal.training.settings import RuntimeOptions

    if precision not in ("no", "bf16", "fp16"):
        raise UsageError(f"unknown precision {precision!r}", where="--precision", fix="use no, bf16 or fp16")
    return RuntimeOptions(
        max_positions=max_positions,
        workers=workers,
        save_every=save_every,
        report_to=tuple(report_to or ()),
        run_name=run_name,
        precision=cast("Literal['no', 'bf16', 'fp16']", precision),
        features=features,
        gradient_checkpointing=gradient_checkpointing,
    )


def own_device(device: str) -> str:
    """The device of this process: under a launcher, `cuda` is the GPU of its local rank and not the first for all."""
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if launched and device == "cuda" else device


def set_fields(settings: Any, given: dict[str, Any]) -> Any:
    """A copy of a settings record with those of `given` that are not None.

    Raises:
        UsageError: a value out of range.
    """
    from pydantic import ValidationError

    from shoal.schema.document import first_problem

    wanted = {name: value for name, value in given.items() if value is not None}
    try:
        return type(settings).model_validate(settings.model_dump() | wanted)
    except ValidationError as error:
        raise UsageError(first_problem(error), fix="see --help") from None
