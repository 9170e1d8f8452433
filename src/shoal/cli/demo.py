"""`shoal demo`: from speech to a shallower decoder and a report, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from shoal.cli import options
from shoal.cli.printing import Printing
from shoal.data.settings import DataSettings
from shoal.demo.settings import DemoSettings
from shoal.models.settings import ModelSettings
from shoal.settings import DATA, OUTPUT


@options.command
def demo(
    model: options.Model = "pkg:reference",
    /,
    *,
    data: Annotated[
        list[str] | None,
        DATA,
        Parameter(
            metavar="MANIFEST",
            help="Clips: a manifest (NeMo JSONL), a folder of audio and .txt files, or hf:NAME; default: real clips "
            "that ship with Shoal. Repeatable.",
        ),
    ] = None,
    rows: Annotated[DataSettings, options.Flat] = DataSettings(),
    loading: Annotated[ModelSettings, options.Flat] = ModelSettings(),
    settings: Annotated[DemoSettings, options.Flat] = DemoSettings(),
    out: Annotated[Path, OUTPUT, Parameter(help="Folder that everything is written to.")] = Path("shoal-demo"),
    printing: Annotated[Printing, options.Flat] = Printing(),
) -> None:
    """Run the whole way on real speech: audit, compare, select, evaluate, prune, verify, time and report."""
    from shoal.demo.run import Demo

    with printing.progress(out) as progress:
        result = Demo(out, model, tuple(data or ()), rows, loading, settings, progress, progress.say).run()
    layers = ",".join(map(str, result.plan.layers))
    report, checkpoint = result.report.resolve(), result.checkpoint.resolve()
    printing.show(
        {"report": str(report), "checkpoint": str(checkpoint), "removed": result.plan.layers},
        [f"report      {report}", f"checkpoint  {checkpoint}  (without layers {layers})"],
    )
