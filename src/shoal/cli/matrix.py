"""What commands that take several audits share: their options, and the task matrix as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, TypeVar

import typer

from shoal import wording
from shoal.cli.table import aligned
from shoal.errors import UsageError
from shoal.schema import Estimate, TaskLoss, TaskMatrix

Number = TypeVar("Number", int, float)

Sizes = Annotated[
    str | None, typer.Option("--sizes", help="Of a matrix: how many layers plans remove, such as 2,4,8.")
]
Combine = Annotated[
    str, typer.Option("--combine", help="The plan for all: mean over the audits, or worst (who loses most).")
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", help="How much each audit counts in it, such as 1,2; default alike."),
]


def numbers(text: str | None, flag: str, kind: Callable[[str], Number]) -> list[Number] | None:
    """`"1,2"` → [1, 2]; None stays None.

    Raises:
        UsageError: not numbers with commas between.
    """
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{text!r} is not a list of numbers", where=flag, fix="write 1,2") from None


def summary(document: TaskMatrix) -> str:
    """Three tables: rank correlations, overlaps, and what each side loses under each plan."""
    return "\n\n".join(
        [
            _square(document, f"rank correlation (scope {document.scope}, one size)", document.spearman),
            _square(document, "overlap of the best blocks", document.overlap),
            *(_losses(document, n) for n in document.sizes),
            f"losses: {document.measure}, {document.unit}; in brackets the excess over a task's own plan",
        ]
    )


def _square(document: TaskMatrix, title: str, values: list[list[Estimate]]) -> str:
    names = [side.label for side in document.sides]
    rows = [
        [name, *(wording.plain(estimate, ".3f") for estimate in row)]
        for name, row in zip(names, values, strict=True)
    ]
    return aligned([title, *names], rows)


def _losses(document: TaskMatrix, n: int) -> str:
    names = [side.label for side in document.sides]
    return aligned([f"plan of {n} for", "layers", *names], list(_plans(document, n, names)))


def _plans(document: TaskMatrix, n: int, names: list[str]) -> Iterator[list[str]]:
    found = {(loss.plan, loss.task): loss for loss in document.losses if loss.n == n}
    for plan in dict.fromkeys(plan for plan, _ in found):
        layers = next(loss.layers for loss in found.values() if loss.plan == plan)
        cells = [_cell(found.get((plan, name)), found[name, name]) for name in names]
        yield [plan, f"[{layers[0]}, {layers[-1] + 1})", *cells]


def _cell(loss: TaskLoss | None, own: TaskLoss) -> str:
    """Without an excess where the plan is the task's own, whoever else it was made for."""
    if loss is None:
        return "refused"
    if loss.layers == own.layers:
        return f"{loss.loss.value:.4f} (own)"
    return f"{loss.loss.value:.4f} ({wording.plain(loss.excess, '+.4f')})"
