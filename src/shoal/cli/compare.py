"""`shoal compare`: are two audits alike, or several?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from cyclopts import Parameter

import shoal
from shoal import wording
from shoal.cli import options
from shoal.cli.printing import TablePrinting
from shoal.comparison.settings import CompareSettings, MatrixSettings
from shoal.errors import UsageError
from shoal.settings import DATA, OUTPUT, Settings, option_name
from shoal.tables import Table
from shoal.terms import Scope

if TYPE_CHECKING:
    from shoal.schema import Comparison, Estimate, MetricComparison, TaskLoss, TaskMatrix

S = TypeVar("S", bound=Settings)


class CompareOptions(CompareSettings, MatrixSettings):
    """The options of both, for the one command."""

    scope: Annotated[Scope, Parameter(parse=False)] = "all"


@options.command
def compare(
    audits: Annotated[
        list[Path],
        DATA,
        Parameter(
            help="Audits to compare: audit.json files or their folders; one is enough if it has speech and text.",
            name="AUDIT",
        ),
    ],
    /,
    *,
    matrix: Annotated[
        bool,
        Parameter(
            help="Compare two audits of one model as three or more are: with what each task loses under a plan made "
            "for another task or for all."
        ),
    ] = False,
    settings: Annotated[CompareOptions, options.Flat] = CompareOptions(),
    out: Annotated[Path | None, OUTPUT, Parameter(help="File to write the comparison to.")] = None,
    printing: Annotated[TablePrinting, options.Flat] = TablePrinting(),
) -> None:
    """Compare audits, speech with text or task with task: do they find the same layers redundant?

    Two are compared by rank correlation and by the overlap of their best blocks. Three or more of one model make a
    matrix, which also says what each task loses under a plan made for another task or for all, with intervals.
    """
    paths = options.audit_paths(audits)
    document: Comparison | TaskMatrix
    if matrix or len(paths) > 2:
        document = shoal.task_matrix(paths, _matrix_settings(settings))
    else:
        document = shoal.compare(paths[0], paths[-1], _part(settings, CompareSettings, "add --matrix"))
    if out is not None:
        document.save(out)
    lines = matrix_summary(document) if isinstance(document, shoal.TaskMatrix) else summary(document)
    printing.show(document, lines, *([out] if out else []))


def _matrix_settings(settings: CompareOptions) -> MatrixSettings:
    scopes = settings.scopes or ("all",)
    if len(scopes) > 1:
        raise UsageError("a matrix has one scope", where="--scope", fix="give it once")
    part = _part(settings, MatrixSettings, "--matrix takes --inputs")
    return part.model_copy(update={"scope": scopes[0]})


def _part(settings: CompareOptions, model: type[S], fix: str) -> S:
    """Those of the settings that `model` has; others must not have been given."""
    for name in sorted(settings.model_fields_set - set(model.model_fields) - {"scopes"}):
        raise UsageError("does not fit here", where=option_name(CompareOptions, [name]), fix=fix)
    return settings.narrowed_to(model)


def summary(document: Comparison) -> list[str]:
    """A few lines for a person."""
    lines = [f"a: {document.a.label}", f"b: {document.b.label}", f"same utterances: {document.paired}"]
    if document.same_layers is False:
        lines.append("the decoders have as many layers, but of other sizes")
    for scope, comparison in document.scopes.items():
        lines += [f"{scope:<7} {_alike(name, metric)}" for name, metric in comparison.metrics.items()]
    return lines


def _alike(name: str, metric: MetricComparison) -> str:
    title = f"{metric.title or name}: rank correlation"
    clean = "" if metric.disattenuated is None else f" ({metric.disattenuated:.3f} without the noise of the clips)"
    if metric.spearman_within_n is None or metric.mean_overlap is None:
        return f"{title} {metric.spearman.value:.3f}{clean}"
    return (
        f"{title} among blocks of one size {metric.spearman_within_n.value:.3f}{clean}, over all blocks "
        f"{metric.spearman.value:.3f}; overlap of the best blocks {metric.mean_overlap.value:.3f}"
    )


def matrix_summary(document: TaskMatrix) -> list[str | Table]:
    """Three tables: rank correlations, overlaps, and what each side loses under each plan."""
    return [
        _square(document, f"rank correlation (scope {document.scope}, one size)", document.spearman),
        "",
        _square(document, "overlap of the best blocks", document.overlap),
        *(item for n in document.sizes for item in ("", _losses(document, n))),
        f"\nlosses: {document.measure}, {document.unit}; in brackets the excess over a task's own plan, "
        "both chosen on half of the clips and measured on the other half",
    ]


def _square(document: TaskMatrix, title: str, estimates: list[list[Estimate]]) -> Table:
    names = [side.label for side in document.sides]
    rows = zip(names, estimates, strict=True)
    return Table([title, *names], [[name, *(wording.plain(estimate, ".3f") for estimate in row)] for name, row in rows])


def _losses(document: TaskMatrix, n: int) -> Table:
    names = [side.label for side in document.sides]
    return Table([f"plan of {n} for", "layers", *names], list(_plans(document, n, names)))


def _plans(document: TaskMatrix, n: int, names: list[str]) -> Iterator[list[str]]:
    losses = {(loss.plan, loss.task): loss for loss in document.losses if loss.n == n}
    for plan in dict.fromkeys(plan for plan, _ in losses):
        layers = next(loss.layers for loss in losses.values() if loss.plan == plan)
        cells = [_cell(losses.get((plan, name)), losses[name, name]) for name in names]
        yield [plan, f"[{layers[0]}, {layers[-1] + 1})", *cells]


def _cell(loss: TaskLoss | None, own: TaskLoss) -> str:
    """Without an excess where the plan is the task's own, whoever else it was made for."""
    if loss is None:
        return "refused"
    if loss.layers == own.layers:
        return f"{loss.loss.value:.4f} (own)"
    return f"{loss.loss.value:.4f} ({wording.plain(loss.excess, '+.4f')})"
