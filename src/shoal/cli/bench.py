"""`shoal bench`: what does a plan save?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import shoal
from shoal import wording
from shoal.benchmarking.settings import BenchSettings
from shoal.cli import options
from shoal.cli.printing import TablePrinting
from shoal.data.settings import DataSettings
from shoal.models.settings import ModelSettings
from shoal.settings import OUTPUT
from shoal.tables import Table

if TYPE_CHECKING:
    from shoal.schema import Bench, SystemBench

HEADINGS = (
    *("system", "removed", "encode s", "prefill s", "ms/token", "total s"),
    *("mean ratio", "params M", "file MB", "peak MB"),
)


@options.command
def bench(
    model: options.Model,
    /,
    *,
    data: options.Data,
    plan: options.Plans = (),
    task: options.TaskName = "asr",
    rows: Annotated[DataSettings, options.Flat] = DataSettings(),
    loading: Annotated[ModelSettings, options.Flat] = ModelSettings(),
    settings: Annotated[BenchSettings, options.Flat] = BenchSettings(),
    out: Annotated[Path, OUTPUT, Parameter(help="File to write the figures to.")] = Path("bench.json"),
    printing: Annotated[TablePrinting, options.Flat] = TablePrinting(),
) -> None:
    """Time the unpruned model and every plan in turn on the same clips, and compare their sizes."""
    plans = [shoal.Plan.load(path) for path in plan]
    settings = BenchSettings.of(settings, {"trust_remote_code": loading.trust_remote_code})
    with printing.progress() as progress:
        dataset = options.read_data(data, rows, task, settings.seed, progress, answers=False)
        loaded = options.load(model, loading, progress, [one.check_depth for one in plans])
        document = shoal.bench(loaded, dataset, task, settings, plans=plans, out=out, progress=progress)
    printing.show(document, [*summary(document), *advice(document)], out)


def summary(document: Bench) -> list[str | Table]:
    """A table for a person: systems down, costs across."""
    rounds = f"batch size {document.batch_size}, {document.new_tokens} tokens, {document.repeats} rounds"
    rows = [_cells(system) for system in document.systems]
    ratios = f"; mean ratio: {wording.MEAN_OF_RATIOS}" if any(system.total_ratio for system in document.systems) else ""
    return [f"{document.model.ref}: {rounds}; seconds a clip{ratios}", Table(HEADINGS, rows)]


def advice(document: Bench) -> list[str]:
    """Which system is the fastest, how sure that is, and what to do next."""
    ratios = {system.name: system.total_ratio for system in document.systems if system.total_ratio is not None}
    if not ratios:
        return ["next: name plans with --plan, to see what they save"]
    name, ratio = min(ratios.items(), key=lambda item: item[1].value)
    of = "of the unpruned model's time for a clip"
    needed = f"{name} needs {wording.plain(ratio, '.2f')} {of} on average over {document.clips} clips"
    if ratio.high is None or ratio.high >= 1:
        return [f"{needed}, which may be no gain", "next: time more with --clips and --repeats"]
    return [needed, "next: shoal evaluate, to see what it costs"]


def _cells(system: SystemBench) -> list[str]:
    peak = system.peak_memory_bytes
    return [
        system.name,
        str(len(system.absent_layers)),
        f"{system.encode_seconds.value:.3f}",
        f"{system.prefill_seconds.value:.3f}",
        f"{1000 * system.decode_seconds.value:.1f}",
        f"{system.total_seconds.value:.3f}",
        "" if system.total_ratio is None else wording.plain(system.total_ratio, ".2f"),
        f"{system.parameters / 1e6:.1f}",
        f"{system.checkpoint_bytes / 1e6:.0f}",
        "" if peak is None else f"{peak / 1e6:.0f}",
    ]
