"""`shoal demo`: from speech to a shallower decoder and a report, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli import typer_options as options
from shoal.errors import UsageError


def demo(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="A folder, a Hub id or pkg:NAME.")
    ] = "pkg:reference",
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", metavar="MANIFEST", help="Default: real clips that ship with Shoal. Repeatable."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Everything is written here.")] = Path(
        "shoal-demo"
    ),
    layers: Annotated[str, typer.Option("--layers", help="How many layers to remove, in turn.")] = "1,2,4,8",
    strategy: Annotated[
        str, typer.Option("--strategy", help="How to choose them.")
    ] = "contiguous,deepest,random",
    max_wer_increase: Annotated[
        str, typer.Option("--max-wer-increase", help="Relative increase the written checkpoint may cost.")
    ] = "25%",
    ablation: Annotated[
        bool,
        typer.Option(
            "--ablation/--no-ablation", help="Leave out every single layer too: what the loss says."
        ),
    ] = True,
    limit: options.Limit = None,
    where: options.Where = None,
    lang: options.Lang = None,
    max_bad: options.MaxBad = 0.01,
    batch_size: options.BatchSize = 24,
    max_new_tokens: options.MaxNewTokens = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "auto",
) -> None:
    """Audit, compare, select, evaluate, prune, verify, time and report: the whole way on real speech."""
    from shoal.cli.progress import progress_bars, say
    from shoal.demo.run import DemoSettings, run_demo

    settings = DemoSettings(
        out=out,
        model=model,
        data=tuple(data or ()),
        sizes=parse_sizes(layers),
        strategies=tuple(part.strip() for part in strategy.split(",") if part.strip()),
        limit=limit,
        where=options.parse_where(where),
        lang=lang,
        max_bad=max_bad,
        max_increase=options.parse_share(max_wer_increase, "--max-wer-increase"),
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        ablation=ablation,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    with progress_bars() as progress:
        result = run_demo(settings, progress, say)
    typer.echo(f"report      {result.report.resolve()}")
    typer.echo(f"checkpoint  {result.checkpoint.resolve()}  (without layers {result.plan.layers})")


def parse_sizes(text: str) -> tuple[int, ...]:
    """`"1,2,4"` → `(1, 2, 4)`.

    Raises:
        UsageError: not a list of positive numbers.
    """
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise UsageError(
            f"{text!r} is not a list of numbers of layers", where="--layers", fix="write --layers 1,2,4"
        )
    return sizes
