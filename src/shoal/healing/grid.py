"""What is gained by healing: every plan by every target, on the same training clips, tested on the same other clips.

Every cell begins from the unpruned model, so none depends on another; a cell that is done lies in its folder and is not
done again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.errors import ManifestError, ShoalError, UsageError
from shoal.evaluation.decode_systems import asked_of, decode_systems
from shoal.evaluation.empty_references import warn_of_empty_references
from shoal.evaluation.paired_scores import PairedScores
from shoal.evaluation.scores.base import ratio
from shoal.evaluation.scores.registry import scores_of
from shoal.evaluation.settings import DecodingSettings
from shoal.evaluation.significance import PairedBootstrap, Rates
from shoal.evaluation.system_outputs import read_outputs
from shoal.evaluation.systems import without
from shoal.evaluation.utterance_counts import count_outputs, label_set
from shoal.healing.run import heal
from shoal.healing.settings import HealGridSettings, HealMethod, HealSettings
from shoal.models.loading import find_device, load
from shoal.models.settings import ModelSettings
from shoal.progress import Progress, report_progress, stage
from shoal.provenance import provenance
from shoal.pruning.in_memory import prune_in_place
from shoal.schema import Delta, Estimate, Healing, HealingCell, MeasuredScore, ModelInfo, Plan, read_json, write_text
from shoal.schema.files import claim
from shoal.schema.heal import NONE
from shoal.statistics import Floats
from shoal.training.batches import Losses, examples_of, fill_audio_cache, make_batches, response_losses

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.tasks import Task

CELL = "cell.json"
_FACTS = ("trained_parameters", "fitted_clips", "fitted_positions", "steps", "seconds", "notes")
"""What a cell takes over from the record of its healing."""


@dataclass(frozen=True)
class Grid:
    """What is compared, and how."""

    model: str
    plans: Sequence[Plan]
    data: Dataset
    test: Dataset
    task: Task
    settings: HealGridSettings
    out: Path
    loading: ModelSettings = field(default_factory=ModelSettings)
    progress: Progress | None = None


@dataclass(frozen=True)
class _Cell:
    """One that is done."""

    plan: Plan | None
    target: str
    facts: dict[str, Any]
    """What healing took, and what is left of the model."""
    losses: Losses
    folder: Path


def run_grid(grid: Grid) -> Healing:
    """Fill the grid and sum it up; `healing.json` is written to `grid.out`.

    Raises:
        UsageError: no plan, no target, a name that is unknown, or `grid.out` holds cells of other settings.
    """
    if not grid.plans or not grid.settings.targets:
        raise UsageError("nothing to compare", fix="give --layers or --plan, and --targets")
    _own(grid)
    total, cells = 1 + len(grid.plans) * (1 + len(grid.settings.targets)), []
    pairs: list[tuple[Plan | None, str]] = [(None, NONE)]
    pairs += [(plan, name) for plan in grid.plans for name in (NONE, *grid.settings.targets)]
    skipped: list[str] = []
    for done, (plan, target) in enumerate(pairs):
        report_progress(grid.progress, "cells", done, total)
        try:
            cells.append(_cell(grid, plan, target))
        except ShoalError as error:
            # A target that a plan has no place for (one layer in place of one) is no reason to lose the others.
            if plan is None or target == NONE:
                raise
            skipped.append(f"{_name(plan, target)}: {error}")
    report_progress(grid.progress, "cells", total, total)
    info = ModelInfo.model_validate(cells[0].facts["model"])
    healing = _summed_up(grid, info, cells, skipped)
    healing.save(grid.out / "healing.json")
    return healing


def _own(grid: Grid) -> None:
    """Make sure that the folder's cells, if it has any, were made with these settings."""
    settings = {
        "model": grid.model,
        "task": grid.task.name,
        "settings": grid.settings.method(),
        "train": grid.data.info().fingerprint,
        "test": grid.test.info().fingerprint,
    }
    claim(grid.out / "grid.json", "cells healed", settings, fix="choose another with --out")


def _name(plan: Plan | None, target: str) -> str:
    return "full" if plan is None else f"{without(plan.layers)}-{target}"


def _cell(grid: Grid, plan: Plan | None, target: str) -> _Cell:
    folder = grid.out / "cells" / _name(plan, target)
    if not (folder / CELL).is_file():
        _fill(grid, plan, target, folder)
    record = read_json(folder / CELL)
    losses = Losses(
        record["losses"]["ids"], np.array(record["losses"]["sums"]), np.array(record["losses"]["counts"], np.int64)
    )
    return _Cell(plan, target, record["facts"], losses, folder)


def _fill(grid: Grid, plan: Plan | None, target: str, folder: Path) -> None:
    """Heal, evaluate and write down; the file that says so comes last."""
    with stage(grid.progress, f"load {grid.model}"):
        loaded = load(grid.model, grid.loading)
    facts: dict[str, Any] = {"model": loaded.info().model_dump(mode="json")}
    if plan is not None and target == NONE:
        prune_in_place(loaded.model, plan, family=loaded.family)
        loaded.forget_info()
    elif plan is not None:
        method = {name: getattr(grid.settings, name) for name in HealMethod.model_fields}
        method["how"] = grid.settings.how.named("shoal-heal-grid")
        healed = heal(
            loaded,
            grid.data,
            grid.task,
            HealSettings.of(None, {"target": target, **method}),
            plan=plan,
            validation=grid.test.only(()),
            progress=grid.progress,
        )
        loaded = healed.loaded
        facts["heal"] = healed.record.model_dump(mode="json")
    info = loaded.info()
    # Low-rank updates are not merged here, and no checkpoint would have them.
    lora = sum(weight.numel() for name, weight in loaded.model.named_parameters() if ".lora_" in name)
    facts |= {"layers": len(loaded.layers), "parameters": info.total_parameters - lora}
    batches = make_batches(
        loaded, examples_of(grid.test, grid.task), features=grid.settings.how.features, progress=grid.progress
    )
    fill_audio_cache(loaded, grid.test, features=grid.settings.how.features, progress=grid.progress)
    task = asked_of(grid.test, grid.task, loaded)
    decoding = grid.settings.narrowed_to(DecodingSettings)
    decode_systems(loaded, grid.test, task, decoding, out=folder, progress=grid.progress)
    losses = response_losses(loaded, batches, progress=grid.progress)
    record = {
        "facts": facts,
        "losses": {"ids": losses.ids, "sums": losses.sums.tolist(), "counts": losses.counts.tolist()},
    }
    write_text(folder / CELL, json.dumps(record) + "\n")


def _summed_up(grid: Grid, info: ModelInfo, cells: Sequence[_Cell], skipped: Sequence[str]) -> Healing:
    outputs = [read_outputs(cell.folder / "outputs" / "full.jsonl") for cell in cells]
    ids = sorted(clip for clip in outputs[0] if all(clip in of_cell for of_cell in outputs))
    task = grid.task.on(grid.test.rows)
    score = scores_of(task, label_set(task, outputs[0], ids))[0]
    bootstrap = PairedBootstrap.of(grid.settings, [outputs[0][clip].speaker for clip in ids])
    counts = [count_outputs(of_cell, ids, task, [score]) for of_cell in outputs]
    warn_of_empty_references(counts[0], ids)
    scored = PairedScores.of([score], counts, bootstrap)
    if score.name not in scored.scores:
        raise ManifestError(f"{score.name} finds nothing in the references", fix="check them in the manifest")
    measured, rates = [measures[score.name] for measures in scored.measures()], scored.rates[score.name]
    unhealed = {_key(cell): rate for cell, rate in zip(cells, rates, strict=True) if cell.target == NONE}
    return Healing(
        provenance=provenance(device=str(find_device(grid.loading.device)), dtype=grid.loading.dtype),
        model=info,
        task=grid.task.name,
        data=grid.test.info(),
        train_data=grid.data.info(),
        settings={
            **grid.settings.method(),
            "replicates": grid.settings.replicates,
            "cluster": grid.settings.cluster,
            "level": grid.settings.level,
            "shared_speakers": len(_speakers(grid.data) & _speakers(grid.test)),
        },
        score_name=score.name,
        baseline=measured[0],
        baseline_loss=_loss(cells[0], bootstrap, ids),
        cells=[
            _scored(cell, score, (rates[0], unhealed[_key(cell)], rate), bootstrap, ids)
            for cell, score, rate in zip(cells[1:], measured[1:], rates[1:], strict=True)
        ],
        skipped=list(skipped),
    )


def _speakers(data: Dataset) -> set[str]:
    return {row.speaker for row in data.rows if row.speaker is not None}


def _key(cell: _Cell) -> tuple[int, ...]:
    return () if cell.plan is None else tuple(cell.plan.layers)


def _scored(
    cell: _Cell, score: MeasuredScore, rates: tuple[Rates, Rates, Rates], bootstrap: PairedBootstrap, ids: Sequence[str]
) -> HealingCell:
    """One cell; `rates` are those of the unpruned model, of the plan without healing, and of the cell."""
    full, unhealed, healed = rates
    heal = cell.facts.get("heal", {})
    bought: Delta | None = None
    recovered: Estimate | None = None
    if cell.target != NONE:
        bought = bootstrap.delta(healed, unhealed)
        recovered = _recovered(healed, full, unhealed, bootstrap, sign=score.sign)
    assert cell.plan is not None
    return HealingCell(
        plan=cell.plan,
        target=cell.target,
        layers=cell.facts["layers"],
        parameters=cell.facts["parameters"],
        **{key: heal[key] for key in _FACTS if key in heal},
        loss=_loss(cell, bootstrap, ids),
        score=score,
        bought=bought,
        recovered=recovered,
    )


def _recovered(
    healed: Rates, full: Rates, unhealed: Rates, bootstrap: PairedBootstrap, *, sign: int
) -> Estimate | None:
    """Share of the cost of pruning that healing took back; None where pruning cost nothing.

    `sign` is -1 where more is better.
    """
    cost = unhealed.resampled.minus(full.resampled)
    if sign * cost.value <= 0:
        return None
    share = unhealed.resampled.minus(healed.resampled).over(cost)
    # A replicate in which pruning costs nothing has no share: then there is no interval either.
    if bool((sign * cost.replicates <= 0).any()):
        return Estimate(value=share.value, level=bootstrap.level)
    return bootstrap.bounded(share)


def _mean(totals: Floats) -> Floats:
    """Sums (..., 2) of what is counted and of how many → their ratio (...)."""
    return ratio(totals[..., 0], totals[..., 1])


def _loss(cell: _Cell, bootstrap: PairedBootstrap, ids: Sequence[str]) -> Estimate | None:
    """Nats a token, with its interval over the same clips."""
    index = {clip: row for row, clip in enumerate(cell.losses.ids)}
    if any(clip not in index for clip in ids):
        return None
    order = [index[clip] for clip in ids]
    sums, counts = cell.losses.sums[order], cell.losses.counts[order]
    return bootstrap.estimate(bootstrap.rates(_mean, np.stack([sums, counts], axis=1).astype(np.float64)))
