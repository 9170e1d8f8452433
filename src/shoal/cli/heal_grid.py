"""`shoal heal-grid`: what does healing buy?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from pydantic import Field

import shoal
from shoal import wording
from shoal.cli import options
from shoal.cli.printing import TablePrinting
from shoal.data.settings import DataSettings, Fields
from shoal.errors import UsageError
from shoal.healing.settings import HealGridSettings
from shoal.models.settings import ModelSettings
from shoal.selection.settings import StrategyName
from shoal.settings import DATA, OUTPUT, CommaSeparated, Settings
from shoal.tables import Table

if TYPE_CHECKING:
    from shoal.schema import Healing, Plan


class TestClips(Settings):
    """Which clips are tested on."""

    test: Annotated[tuple[str, ...], DATA, Parameter(metavar="MANIFEST")]
    """Clips to test on, given as for --data. Repeatable."""
    test_limit: Annotated[int | None, DATA] = Field(default=None, ge=1)
    """Number of clips to test on, evenly spaced; default: --limit."""
    test_where: Annotated[Fields, DATA] = Field(default={})
    """Test only on rows whose field has this value; default: --where. Repeatable."""


class Depths(Settings):
    """Which layers go."""

    audit: Annotated[Path | None, Parameter(metavar="FILE")] = None
    """Audit to choose the layers from."""
    layers: Annotated[tuple[str, ...], CommaSeparated, Parameter(metavar="N,N…")] = ("2", "4", "8", "12")
    """Numbers of layers to remove, such as 2,4,8 or 10%,20%; with --audit."""
    strategy: StrategyName = "contiguous"
    """Strategy that chooses them, as for shoal select; with --audit."""
    plans: Annotated[tuple[Path, ...], Parameter(name="--plan", metavar="FILE")] = ()
    """Plan to carry out, instead of --audit. Repeatable."""

    def read(self) -> list[Plan]:
        """The plans.

        Raises:
            UsageError: there is no source of them, or there are two.
        """
        if bool(self.plans) == (self.audit is not None):
            raise UsageError("no layers to remove, or two sources of them", fix="give either --audit or --plan")
        if self.audit is None:
            return [shoal.Plan.load(path) for path in self.plans]
        (path,) = options.audit_paths([self.audit])
        audit = shoal.Audit.load(path)
        return [
            shoal.select(audit, count, strategy=self.strategy, source_path=str(self.audit)) for count in self.layers
        ]


@options.command
def heal_grid(
    model: options.Model,
    /,
    *,
    data: options.Data,
    rows: Annotated[DataSettings, options.Flat] = DataSettings(),
    tested: Annotated[TestClips, options.Flat],
    depths: Annotated[Depths, options.Flat] = Depths(),
    task: options.TaskName = "asr",
    loading: Annotated[ModelSettings, options.Flat] = ModelSettings(),
    settings: Annotated[HealGridSettings, options.Flat] = HealGridSettings(),
    out: Annotated[
        Path, OUTPUT, Parameter(metavar="DIR", help="Folder for healing.json; the same command again resumes.")
    ],
    printing: Annotated[TablePrinting, options.Flat] = TablePrinting(),
) -> None:
    """Heal every plan by every target, and test all of them on the same clips."""
    from shoal import tasks
    from shoal.healing.grid import Grid, run_grid

    plans = depths.read()
    settings = settings.model_copy(update={"trust_remote_code": loading.trust_remote_code})
    with printing.progress(out) as progress:
        dataset = options.read_data(data, rows, task, settings.seed, progress)
        test = options.read_other(
            "--test", tested.test, rows, tested.test_limit, tested.test_where, task, settings.seed, progress
        )
        assert test is not None
        options.check_depth(model, [plan.check_depth for plan in plans])
        healing = run_grid(Grid(model, plans, dataset, test, tasks.get(task), settings, out, loading, progress))
    printing.show(healing, summary(healing), out / "healing.json")


def summary(healing: Healing) -> list[str | Table]:
    """One line a cell, the unpruned model first."""
    from shoal.schema.heal import NONE

    fraction = healing.baseline.fraction
    scale = 100 if fraction else 1
    score = f"{healing.score_name} %" if fraction else healing.score_name
    counts = ("parameters", "fitted on", "steps", "seconds")
    headings = ("removed", "healed by", score, "gain from healing", "recovered %", *counts)
    rows = [("nothing", "", wording.plain(healing.baseline.value, ".1f", scale=scale), "", "", "", "", "", "")]
    for cell in healing.cells:
        rows.append(
            (
                _removed(cell.plan),
                "not healed" if cell.target == NONE else cell.target,
                wording.plain(cell.score.value, ".1f", scale=scale),
                "" if cell.bought is None else wording.plain(cell.bought.absolute, "+.1f", scale=scale),
                "" if cell.recovered is None else f"{100 * cell.recovered.value:.0f}",
                f"{cell.trained_parameters:,}" if cell.trained_parameters else "",
                "" if cell.target == NONE else wording.fitted_on(cell.fitted_clips, cell.fitted_positions),
                str(cell.steps or ""),
                f"{cell.seconds:.0f}" if cell.seconds else "",
            )
        )
    warnings = [f"{_removed(cell.plan)}, {cell.target}: {note}" for cell in healing.cells for note in cell.warnings]
    return [Table(headings, rows), *warnings, *healing.skipped]


def _removed(plan: Plan) -> str:
    if plan.block is not None and len(plan.layers) > 1:
        return f"{plan.block[0]}-{plan.block[1] - 1}"
    return ",".join(map(str, plan.layers))
