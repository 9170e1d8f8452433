"""`shoal bench`: what does a plan save?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal import wording
from shoal.cli import typer_options as options
from shoal.cli.table import aligned
from shoal.schema import Bench, Plan, SystemBench

HEADINGS = (
    "system",
    "removed",
    "encode s",
    "prefill s",
    "ms/token",
    "total s",
    "total ratio",
    "params M",
    "file MB",
    "peak MB",
)


def bench(
    model: options.Model,
    data: options.Data,
    plan: Annotated[
        list[Path] | None, typer.Option("--plan", metavar="PLAN", help="A plan.json to time too. Repeatable.")
    ] = None,
    task: options.TaskName = "asr",
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write.")] = Path("bench.json"),
    clips: Annotated[int, typer.Option("--clips", min=1, help="Clips, from the whole range of lengths.")] = 8,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Rounds over the clips.")] = 5,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Clips a batch; 1 is latency.")] = 1,
    new_tokens: Annotated[
        int, typer.Option("--new-tokens", min=2, help="Tokens decoded for every clip.")
    ] = 32,
    memory: Annotated[
        bool, typer.Option("--memory", help="Peak memory too: every system in a fresh process.")
    ] = False,
    limit: options.Limit = None,
    where: options.Where = None,
    lang: options.Lang = None,
    max_bad: options.MaxBad = 0.01,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Time the unpruned model and every plan, interleaved on the same clips, and compare their sizes."""
    import shoal
    from shoal.cli.progress import progress_bars

    plans = [Plan.load(path) for path in plan or ()]
    dataset = options.read_data(
        data, task=task, limit=limit, where=where, lang=lang, max_bad=max_bad, seed=seed
    )
    loaded = shoal.load(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    with progress_bars() as progress:
        found = shoal.bench(
            loaded,
            dataset,
            task,
            plans=plans,
            clips=clips,
            repeats=repeats,
            batch_size=batch_size,
            new_tokens=new_tokens,
            memory=memory,
            trust_remote_code=trust_remote_code,
            out=out,
            seed=seed,
            progress=progress,
        )
    typer.echo(found.model_dump_json(indent=1) if json else summary(found, out))


def summary(found: Bench, out: Path) -> str:
    """A table for a person: systems down, costs across."""
    how = f"batch size {found.batch_size}, {found.new_tokens} tokens, {found.repeats} rounds"
    rows = [_cells(system) for system in found.systems]
    lines = [f"{found.model.ref}: {how}; seconds a clip", aligned(HEADINGS, rows), str(out)]
    return "\n".join(lines)


def _cells(system: SystemBench) -> list[str]:
    peak = system.peak_memory_bytes
    return [
        system.name,
        str(len(system.removed)),
        f"{system.encode_seconds.value:.3f}",
        f"{system.prefill_seconds.value:.3f}",
        f"{1000 * system.decode_seconds.value:.1f}",
        f"{system.total_seconds.value:.3f}",
        "" if system.total_ratio is None else wording.plain(system.total_ratio, ".2f"),
        f"{system.parameters / 1e6:.1f}",
        f"{system.checkpoint_bytes / 1e6:.0f}",
        "" if peak is None else f"{peak / 1e6:.0f}",
    ]
