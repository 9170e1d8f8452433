"""`shoal audit`: how redundant are the decoder layers?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from shoal.cli import options
from shoal.cli.table import with_interval
from shoal.errors import UsageError
from shoal.schema import Audit, InputKind, Scope


def audit(
    model: options.Model,
    data: options.Data,
    task: options.TaskName = "asr",
    input: Annotated[
        list[str] | None,
        typer.Option("--input", help="speech, text; default: all the model can take. Repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="For audit.json and audit.npz.")] = Path(
        "audit"
    ),
    limit: options.Limit = None,
    where: options.Where = None,
    lang: options.Lang = None,
    max_bad: options.MaxBad = 0.01,
    batch_size: options.BatchSize = 16,
    cluster: Annotated[
        str, typer.Option("--cluster", help="Resample by utterance or by speaker.")
    ] = "utterance",
    replicates: options.Replicates = 1000,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Measure angular distance of every block and influence of every layer, in all scopes, in one pass."""
    import shoal
    from shoal.cli.progress import progress_bars

    unit = options.parse_cluster(cluster)
    dataset = options.read_data(data, limit=limit, where=where, lang=lang, max_bad=max_bad, seed=seed)
    loaded = shoal.load(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    with progress_bars() as progress:
        document = shoal.audit(
            loaded,
            dataset,
            task,
            inputs=_inputs(input),
            out=out,
            batch_size=batch_size,
            cluster=unit,
            replicates=replicates,
            seed=seed,
            progress=progress,
        )
    typer.echo(document.model_dump_json(indent=1) if json else summary(document, out))


def _inputs(names: list[str] | None) -> list[InputKind] | None:
    for name in names or ():
        if name not in ("speech", "text"):
            raise UsageError(f"unknown input {name!r}", where="--input", fix="use speech or text")
    return cast("list[InputKind] | None", names)


def summary(document: Audit, out: Path, scope: Scope = "all") -> str:
    """A few lines for a person: the best block of some sizes, for each input."""
    depth = document.depth
    lines = [f"{document.model.ref}: {depth} layers, {document.data.clips} clips, task {document.task}"]
    for name, measured in document.inputs.items():
        lines.append(
            f"{name} (scope {scope}): best block of n layers that keeps the last one, distance in units of pi"
        )
        for best in measured.scopes[scope].best_keeping_last:
            if best.n in (1, 2, 4, 8) and best.n < depth:
                distance = with_interval(best.distance, ".4f")
                sure = "" if best.stability is None else f"  best in {best.stability:.0%} of replicates"
                lines.append(
                    f"  n={best.n:<2} layers [{best.layer}, {best.layer + best.n})  {distance}{sure}"
                )
    lines.append(f"{out / 'audit.json'}")
    return "\n".join(lines)
