"""`shoal audit`: how redundant are the decoder layers?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import shoal
from shoal import wording
from shoal.cli import options
from shoal.cli.printing import Printing
from shoal.data.settings import DataSettings
from shoal.measurement.settings import AuditSettings
from shoal.models.settings import ModelSettings
from shoal.settings import OUTPUT

if TYPE_CHECKING:
    from shoal.schema import Audit, BestBlock, Importance, Scope, Trust


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
    printing: Annotated[Printing, options.Flat] = Printing(),
) -> None:
    """Measure how much each decoder layer does: by similarity, by gradients, by leaving it out."""
    with printing.progress() as progress:
        dataset = options.read_data(data, rows, task, settings.seed, progress)
        loaded = options.load(model, loading, progress)
        document = shoal.audit(loaded, dataset, task, settings, out=out, progress=progress)
    printing.show(document, summary(document), out / "audit.json", out / "audit.npz")


def summary(document: Audit, scope: Scope = "all") -> list[str]:
    """A few lines for a person: the best block of some sizes, for each input."""
    depth = document.depth
    lines = [f"{document.model.ref}: {depth} layers, {document.data.clips} clips, task {document.task}"]
    for name, measured in document.inputs.items():
        for values in measured.scopes[scope].of_blocks().values():
            lines.append(
                f"{name} (scope {scope}): best block of n layers that keeps the last one, "
                f"{values.title} ({values.unit})"
            )
            lines += [_best(best) for best in values.best_keeping_last if best.n in (1, 2, 4, 8) and best.n < depth]
        lines += [_first(item) for item in measured.importance if item.measured or item.option == item.metric]
        lines += [line for trust in measured.trust for line in _trusted(trust)]
    return lines


def _best(block: BestBlock) -> str:
    sure = "" if block.stability is None else f"  best in {block.stability:.0%} of replicates"
    layers = f"[{block.layer}, {block.layer + block.n})"
    return f"  n={block.n:<2} layers {layers}  {wording.plain(block.distance, '.4f')}{sure}"


def _first(item: Importance) -> str:
    """The three candidates of one layer that would go first, in one line."""
    singles = [
        (value, layers[0])
        for value, layers in zip(item.values, item.candidates, strict=True)
        if value is not None and len(layers) == 1
    ]
    first = sorted(singles, reverse=not item.low_is_redundant)[:3]
    named = ", ".join(f"{layer} ({value:+.3f})" for value, layer in first)
    refused = f"; {len(item.refused)} cannot be removed" if item.refused else ""
    parts = "layers" if item.part == "layer" else f"{item.part} of layers"
    return f"  {item.metric} {item.quantity} ({item.unit}): safest to remove: {parts} {named or 'none'}{refused}"


def _trusted(trust: Trust) -> list[str]:
    """For every block size, the metric whose choice costs least, and what the default metric's choice costs."""
    from shoal.schema.plan import DISTANCE_METRIC

    lines = []
    for n in sorted({metric.n for metric in trust.metrics}):
        rows = [metric for metric in trust.metrics if metric.n == n and not metric.measured]
        usual = [metric for metric in rows if (metric.metric, metric.scope) == (DISTANCE_METRIC, "all")]
        lines += [
            f"  n={n}: regret of {metric.metric} ({metric.scope}) {wording.plain(metric.regret, '.3f')} "
            f"{trust.unit} against the best block by {trust.truth}, rank correlation {metric.spearman.value:.2f}"
            for metric in [rows[0], *(row for row in usual if row is not rows[0])]
        ]
    return lines
