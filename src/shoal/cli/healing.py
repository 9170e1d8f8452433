"""`shoal healing`: what does healing buy?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal import wording
from shoal.cli import training
from shoal.cli import typer_options as options
from shoal.cli.table import aligned
from shoal.errors import UsageError
from shoal.schema import Audit, Healing, Plan
from shoal.schema.heal import NONE

if TYPE_CHECKING:
    from shoal.data import Dataset


def healing(
    model: options.Model,
    data: options.Data,
    test: Annotated[
        list[str], typer.Option("--test", metavar="MANIFEST", help="Clips to test on. Repeatable.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="For healing.json; the same again resumes.")
    ],
    audit: Annotated[
        Path | None, typer.Option("--audit", metavar="FILE", help="Choose the layers from this audit.")
    ] = None,
    layers: Annotated[
        str, typer.Option("--layers", metavar="2,4,8", help="With --audit: how many layers go.")
    ] = "2,4,8,12",
    strategy: Annotated[
        str, typer.Option("--strategy", help="With --audit: as for shoal select.")
    ] = "contiguous",
    plan: Annotated[
        list[Path] | None, typer.Option("--plan", metavar="FILE", help="Or plans. Repeatable.")
    ] = None,
    target_names: Annotated[
        str, typer.Option("--targets", metavar="NAME,NAME", help="As for shoal heal; all of them by default.")
    ] = "all",
    task: options.TaskName = "asr",
    limit: options.Limit = None,
    test_limit: Annotated[
        int | None, typer.Option("--test-limit", min=1, help="Test on this many clips, evenly spaced.")
    ] = None,
    where: options.Where = None,
    test_where: Annotated[
        list[str] | None, typer.Option("--test-where", metavar="FIELD=VALUE", help="As --where, of --test.")
    ] = None,
    lang: options.Lang = None,
    max_bad: options.MaxBad = 0.01,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimizer steps of a cell.")] = 500,
    clips: Annotated[int, typer.Option("--clips", min=1, help="Clips a step.")] = 16,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Of low-rank updates.")] = 64,
    kl: Annotated[float, typer.Option("--kl", min=0, help="Weight of the distillation.")] = 0.0,
    batch_size: options.BatchSize = 16,
    max_new_tokens: options.MaxNewTokens = None,
    max_positions: training.MaxPositions = 16_384,
    features: training.Features = None,
    precision: training.Precision = "no",
    cluster: options.Cluster = "utterance",
    replicates: options.Replicates = 1000,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Heal every plan by every target and test them on the same clips: WER with intervals, seconds, parameters."""
    from shoal import tasks
    from shoal.cli.progress import progress_bars
    from shoal.evaluation.settings import DecodingSettings, Resampling, TokenLimit
    from shoal.healing import targets
    from shoal.healing.grid import Grid, run_grid
    from shoal.healing.settings import HealSettings
    from shoal.training.settings import Objective, Optimisation

    names = list(targets.TARGETS) if target_names == "all" else target_names.split(",")
    for name in names:
        targets.get(name)
    plans = _plans(plan, audit, layers, strategy)

    def read(sources: list[str], most: int | None, kept: list[str] | None) -> Dataset:
        return options.read_data(
            sources, task=task, limit=most, where=kept, lang=lang, max_bad=max_bad, seed=seed
        )

    how = training.how_to(
        max_positions=max_positions,
        workers=0,
        save_every=None,
        report_to=None,
        precision=precision,
        features=features,
        gradient_checkpointing=False,
        run_name="shoal-healing",
    )
    settings = HealSettings(
        target=names[0],
        rank=rank,
        optimisation=Optimisation(steps=steps, clips=clips),
        objective=Objective(kl=kl),
        seed=seed,
    )
    with progress_bars() as progress:
        found = run_grid(
            Grid(
                model,
                plans,
                names,
                read(data, limit, where),
                read(test, test_limit, test_where),
                tasks.get(task),
                settings,
                out,
                device=device,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                decoding=DecodingSettings(batch_size, TokenLimit(max_new_tokens)),
                resampling=Resampling(replicates, cluster=options.parse_cluster(cluster), seed=seed),
                how=how,
                progress=progress,
            )
        )
    typer.echo(found.model_dump_json(indent=1) if json else table(found, out))


def _plans(given: list[Path] | None, audit: Path | None, layers: str, strategy: str) -> list[Plan]:
    if bool(given) == (audit is not None):
        raise UsageError("no layers to remove, or two sources of them", fix="give either --audit or --plan")
    if given:
        return [Plan.load(path) for path in given]
    import shoal

    assert audit is not None
    document = Audit.load(audit)
    return [
        shoal.select(document, count.strip(), strategy=strategy, source_path=str(audit))
        for count in layers.split(",")
    ]


def table(healing: Healing, out: Path) -> str:
    """One line a cell, the unpruned model first."""
    fraction = healing.baseline.fraction
    scale = 100 if fraction else 1
    score = f"{healing.score_name} %" if fraction else healing.score_name
    headings = ("removed", "healed by", score, "bought", "recovered %", "parameters", "steps", "seconds")
    rows = [("nothing", "", wording.plain(healing.baseline.value, ".1f", scale=scale), "", "", "", "", "")]
    for cell in healing.cells:
        rows.append(
            (
                _removed(cell.plan),
                "not healed" if cell.target == NONE else cell.target,
                wording.plain(cell.score.value, ".1f", scale=scale),
                "" if cell.bought is None else wording.plain(cell.bought.absolute, "+.1f", scale=scale),
                "" if cell.recovered is None else f"{100 * cell.recovered.value:.0f}",
                f"{cell.trained_parameters:,}" if cell.trained_parameters else "",
                str(cell.steps or ""),
                f"{cell.seconds:.0f}" if cell.seconds else "",
            )
        )
    lines = [aligned(headings, rows), *healing.skipped, str(out / "healing.json")]
    return "\n".join(lines)


def _removed(plan: Plan) -> str:
    if plan.block is not None and len(plan.layers) > 1:
        return f"{plan.block[0]}-{plan.block[1] - 1}"
    return ",".join(map(str, plan.layers))
