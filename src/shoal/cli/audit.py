"""`shoal audit`: how redundant are the decoder layers?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import shoal
from shoal import wording
from shoal.cli import options
from shoal.cli.printing import TablePrinting
from shoal.data.settings import DataSettings
from shoal.measurement.settings import AuditSettings
from shoal.models.settings import ModelSettings
from shoal.settings import OUTPUT
from shoal.tables import Table
from shoal.terms import DEFAULT_SCOPE, SUMMARY_SIZES, Scope

if TYPE_CHECKING:
    from shoal.schema import Audit, BestBlock, Importance, MetricTrust, Trust


@options.command
def audit(
    model: options.Model,
    /,
    *,
    data: options.Data,
    task: options.TaskName = "asr",
    rows: Annotated[DataSettings, options.Flat] = DataSettings(),
    loading: Annotated[ModelSettings, options.Flat] = ModelSettings(),
    settings: Annotated[AuditSettings, options.Flat] = AuditSettings(),
    out: Annotated[Path, OUTPUT, Parameter(help="Folder for audit.json and audit.npz.")] = Path("audit"),
    printing: Annotated[TablePrinting, options.Flat] = TablePrinting(),
) -> None:
    """Measure how much each decoder layer does: by similarity, by gradients, by leaving it out."""
    with printing.progress(out) as progress:
        dataset = options.read_data(data, rows, task, settings.seed, progress)
        loaded = options.load(model, loading, progress, [settings.check_depth])
        document = shoal.audit(loaded, dataset, task, settings, out=out, progress=progress)
    printing.show(document, [*summary(document), *advice(document, out)], out / "audit.json", out / "audit.npz")


def summary(document: Audit, scope: Scope = DEFAULT_SCOPE) -> list[str | Table]:
    """A few lines for a person: the best block of some sizes, for each input."""
    depth = document.depth
    lines: list[str | Table] = [
        f"{document.model.ref}: {depth} layers, {document.data.clips} clips, task {document.task}"
    ]
    if document.until is not None:
        lines.append(f"it {wording.stopped(document.until)}")
    for name, measured in document.inputs.items():
        for values in measured.scopes[scope].of_blocks().values():
            lines.append(
                f"{name} (scope {scope}): best block of n layers that keeps the last one, "
                f"{values.title} ({values.unit})"
            )
            lines += [_best(best) for best in values.best_keeping_last if best.n in SUMMARY_SIZES and best.n < depth]
        for item in measured.usual_importance():
            lines += [_first(item), *(_measured(item, block) for block in item.best if block.n in SUMMARY_SIZES)]
        lines += [line for trust in measured.trust for line in _trusted(trust)]
        over = wording.drawn_over(measured.drawn, document.cluster)
        lines.append(f"  in brackets: {document.level:.0%} intervals, from resampling {over}")
    return lines


def advice(document: Audit, out: Path) -> list[str]:
    """How far to trust it, and what to do next."""
    few = wording.few_clips(document.data.clips)
    truths = any(measured.trust for measured in document.inputs.values())
    following = f"shoal select {out} --layers N" + ("" if truths else ", or add --metric ablation to test the choice")
    return [*([f"caution: {few}"] if few else []), f"next: {following}"]


def _best(block: BestBlock) -> str:
    sure = "" if block.selection_frequency is None else f"  first in {block.selection_frequency:.0%} of replicates"
    rivals = f"; the best may also begin at {wording.may_also_begin(block.rivals)}" if block.rivals else ""
    layers = f"[{block.layer}, {block.layer + block.n})"
    return f"  n={block.n:<2} layers {layers}  {wording.plain(block.distance, '.4f')}{sure}{rivals}"


def _first(item: Importance) -> str:
    """The three candidates of one layer that would go first, with what the task loses without each."""
    from shoal.report.units import unit_of

    unit = unit_of(item.unit)
    singles = [
        (value, layers[0])
        for value, layers in zip(item.values, item.candidates, strict=True)
        if value is not None and len(layers) == 1
    ]
    lost = f"{item.noun} ".replace("Loss", "loss") if item.noun else ""
    first = sorted(singles, reverse=not item.low_is_redundant)[:3]
    named = ", ".join(f"{layer} ({lost}{unit.factor * value:+.3f} {unit.name})" for value, layer in first)
    refused = f"; {len(item.refused)} cannot be removed" if item.refused else ""
    part = "" if item.part == "layer" else f"{item.part} of "
    return f"  {item.metric}: safest to remove: {part}{named or 'none'}{refused}"


def _measured(item: Importance, block: BestBlock) -> str:
    """The best block of a size on clips that it was not chosen on."""
    from shoal.report.units import unit_of

    unit, lost = unit_of(item.unit), block.held_out or block.distance
    other = "" if block.held_out is None else " on clips it was not chosen on"
    rivals = f"; the best may also begin at {wording.may_also_begin(block.rivals)}" if block.rivals else ""
    value = wording.plain(lost, "+.3f", scale=unit.factor)
    return f"    n={block.n:<2} layers [{block.layer}, {block.layer + block.n})  {value} {unit.name}{other}{rivals}"


def _trusted(trust: Trust) -> list[str | Table]:
    """Which metric has the least regret, and a table of that for every block size."""
    from shoal.report.units import unit_of
    from shoal.schema.plan import DISTANCE_METRIC

    rows = [metric for metric in trust.metrics if not metric.measured]
    if not rows:
        return []
    unit, default = unit_of(trust.unit), (DISTANCE_METRIC, DEFAULT_SCOPE)
    cost: dict[tuple[str, Scope], list[float]] = {}
    for metric in rows:
        cost.setdefault((metric.metric, metric.scope), []).append(unit.factor * metric.regret.value)
    # A metric that was not tried at every size cannot be averaged beside those that were.
    most = max(map(len, cost.values()))
    means = {name: sum(values) / most for name, values in cost.items() if len(values) == most}
    best = min(means, key=means.__getitem__)
    usual = "" if best == default or default not in means else f"; the default, {_named(default)}, {means[default]:.3f}"
    columns: dict[str, Callable[[MetricTrust], str]] = {
        "layers": lambda metric: str(metric.n),
        "metric": lambda metric: _named((metric.metric, metric.scope)),
        f"regret, {unit.name}": lambda metric: wording.plain(metric.regret, ".3f", scale=unit.factor),
        "rank correlation": lambda metric: f"{metric.spearman.value:.2f}",
        "without noise": lambda metric: "" if metric.disattenuated is None else f"{metric.disattenuated:.2f}",
    }
    return [
        f"  by {trust.truth}, choose by {_named(best)}: its mean regret against the best measured block is "
        f"{means[best]:.3f} {unit.name}{usual}",
        Table.of("", columns, [metric for metric in rows if (metric.metric, metric.scope) in (best, default)]),
    ]


def _named(metric: tuple[str, Scope]) -> str:
    return f"{metric[0]} ({metric[1]})"
