"""`shoal audit`: how redundant are the decoder layers?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import shoal
from shoal import wording
from shoal.cli import options
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
    json: options.Json = False,
) -> None:
    """Measure how much each decoder layer does: by similarity, by gradients, by leaving it out."""
    from shoal.cli.progress import progress_bars

    dataset = options.read_data(data, rows, task, settings.seed)
    loaded = shoal.load(model, loading)
    with progress_bars() as progress:
        document = shoal.audit(loaded, dataset, task, settings, out=out, progress=progress)
    print(options.as_json(document) if json else summary(document, out))


def summary(document: Audit, out: Path, scope: Scope = "all") -> str:
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
    lines.append(f"{out / 'audit.json'}")
    return "\n".join(lines)


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
    what = "layers" if item.part == "layer" else f"{item.part} of layers"
    return f"  {item.metric} {item.quantity} ({item.unit}): safest to remove: {what} {named or 'none'}{refused}"


def _trusted(trust: Trust) -> list[str]:
    """For every block size, the metric whose choice costs least, and what the default metric's choice costs."""
    from shoal.schema.plan import DISTANCE_METRIC

    lines = []
    for n in sorted({metric.n for metric in trust.metrics}):
        found = [metric for metric in trust.metrics if metric.n == n and not metric.measured]
        usual = [metric for metric in found if (metric.metric, metric.scope) == (DISTANCE_METRIC, "all")]
        lines += [
            f"  n={n}: regret of {metric.metric} ({metric.scope}) {wording.plain(metric.regret, '.3f')} "
            f"{trust.unit} against the best block by {trust.truth}, rank correlation {metric.spearman.value:.2f}"
            for metric in [found[0], *(each for each in usual if each is not found[0])]
        ]
    return lines
