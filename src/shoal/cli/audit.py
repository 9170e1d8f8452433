"""`shoal audit`: how redundant are the decoder layers?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from shoal import wording
from shoal.cli import options
from shoal.errors import UsageError
from shoal.schema import Audit, Importance, InputKind, Part, Scope, Trust


def audit(
    model: options.Model,
    data: options.Data,
    task: options.TaskName = "asr",
    input: Annotated[
        list[str] | None,
        typer.Option("--input", help="speech, text; default: all the model can take. Repeatable."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", help="gradient, ablation; angular and influence are always measured. Repeatable."
        ),
    ] = None,
    block_sizes: Annotated[
        str,
        typer.Option("--block-sizes", metavar="N,N…", help="Blocks that ablation leaves out: 1,2,4 or all."),
    ] = "1",
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="What ablation leaves out: layer, attention, mlp. Repeatable."),
    ] = None,
    loss_scope: Annotated[
        str, typer.Option("--loss-scope", help="Whose tokens the loss is taken over: text (the response) …")
    ] = "text",
    race: Annotated[
        bool, typer.Option("--race", help="Ablation drops candidates as soon as they are surely worse.")
    ] = False,
    decode: Annotated[
        bool,
        typer.Option("--decode", help="Ablation decodes without each candidate too: errors, not only loss."),
    ] = False,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="For audit.json and audit.npz.")] = Path(
        "audit"
    ),
    limit: options.Limit = None,
    where: options.Where = None,
    lang: options.Lang = None,
    max_bad: options.MaxBad = 0.01,
    batch_size: options.BatchSize = 16,
    cluster: options.Cluster = "utterance",
    replicates: options.Replicates = 1000,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Measure what the decoder layers do: by similarity in one pass, by gradients, by leaving them out."""
    import shoal
    from shoal.cli.progress import progress_bars
    from shoal.measurement.importance_config import ImportanceConfig

    unit = options.parse_cluster(cluster)
    asked: dict[str, Any] = {"race": race, "decode": decode}
    names, parts, sizes = metric or ["angular"], part or ["layer"], parse_sizes(block_sizes)
    # Refused here already, before anything is loaded.
    ImportanceConfig.parse(names, sizes=sizes, parts=parts, scope=loss_scope, seed=seed, **asked)
    dataset = options.read_data(
        data, task=task, limit=limit, where=where, lang=lang, max_bad=max_bad, seed=seed
    )
    loaded = shoal.load(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    with progress_bars() as progress:
        document = shoal.audit(
            loaded,
            dataset,
            task,
            inputs=_inputs(input),
            metrics=names,
            block_sizes=sizes,
            parts=[cast("Part", name) for name in parts],
            loss_scope=cast("Scope", loss_scope),
            **asked,
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


def parse_sizes(text: str) -> list[int] | None:
    """`1,2,4` → [1, 2, 4]; `all` → None.

    Raises:
        UsageError: neither.
    """
    if text == "all":
        return None
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise UsageError(
            f"{text!r} is no list of sizes", where="--block-sizes", fix="write 1,2,4 or all"
        ) from None


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
                distance = wording.plain(best.distance, ".4f")
                sure = "" if best.stability is None else f"  best in {best.stability:.0%} of replicates"
                lines.append(
                    f"  n={best.n:<2} layers [{best.layer}, {best.layer + best.n})  {distance}{sure}"
                )
        lines += [_least(item) for item in measured.importance if item.quantity != "signed"]
        lines += [line for trust in measured.trust for line in _trusted(trust)]
    lines.append(f"{out / 'audit.json'}")
    return "\n".join(lines)


def _least(item: Importance) -> str:
    """The three candidates of one layer that are missed least, in one line."""
    singles = [
        (value, layers[0])
        for value, layers in zip(item.values, item.candidates, strict=True)
        if value is not None and len(layers) == 1
    ]
    named = ", ".join(f"{layer} ({value:+.3f})" for value, layer in sorted(singles)[:3])
    refused = f"; {len(item.refused)} cannot be removed" if item.refused else ""
    what = "layers" if item.part == "layer" else f"{item.part} of layers"
    return f"  {item.metric} {item.quantity} ({item.unit}): least missed {what} {named or 'none'}{refused}"


def _trusted(trust: Trust) -> list[str]:
    """For every block size, the metric whose choice costs least, and what the default metric's choice costs."""
    lines = []
    for n in sorted({metric.n for metric in trust.metrics}):
        found = [
            metric for metric in trust.metrics if metric.n == n and not metric.metric.startswith("ablation")
        ]
        usual = [metric for metric in found if (metric.metric, metric.scope) == ("angular", "all")]
        lines += [
            f"  n={n}: choosing by {metric.metric} ({metric.scope}) costs {wording.plain(metric.regret, '.3f')} "
            f"{trust.unit} against the best block by {trust.truth}, rank correlation {metric.spearman.value:.2f}"
            for metric in [found[0], *(each for each in usual if each is not found[0])]
        ]
    return lines
