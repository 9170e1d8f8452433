"""`shoal select`: which layers go?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import shoal
from shoal import wording
from shoal.cli import options
from shoal.cli.printing import Printing
from shoal.selection.settings import SelectSettings
from shoal.settings import DATA, OUTPUT

if TYPE_CHECKING:
    from shoal.schema import Plan


@options.command
def select(
    audits: Annotated[
        list[Path],
        DATA,
        Parameter(
            help="Audit to choose from: audit.json or its folder; several of one model share a plan.", name="AUDIT"
        ),
    ],
    /,
    *,
    layers: Annotated[str, Parameter(help="Number of layers to remove: 8, or 30% of the depth.", metavar="N|%")],
    settings: Annotated[SelectSettings, options.Flat] = SelectSettings(),
    out: Annotated[Path, OUTPUT, Parameter(help="File to write the plan to.")] = Path("plan.json"),
    mergekit: Annotated[Path | None, OUTPUT, Parameter(help="File to write the plan to as mergekit YAML too.")] = None,
    printing: Annotated[Printing, options.Flat] = Printing(),
) -> None:
    """Choose the layers to remove, from an audit or from several of one model."""
    from shoal.schema import write_text
    from shoal.selection import mergekit_yaml

    paths = options.audit_paths(audits)
    plan = shoal.select(
        [shoal.Audit.load(path) for path in paths], layers, settings, source_path=[str(path) for path in paths]
    )
    yaml = None if mergekit is None else mergekit_yaml(plan)
    plan.save(out)
    if mergekit is not None and yaml is not None:
        write_text(mergekit, yaml)
    printing.show(plan, [*summary(plan), *advice(plan, out)], out, *([mergekit] if mergekit else []))


def summary(plan: Plan) -> list[str]:
    """A few lines for a person: the explicit list of layers, the half-open range, how sure the choice is."""
    removed = ",".join(map(str, plan.layers))
    parts = "layers" if plan.part == "layer" else f"layers' {plan.part}"
    lines = [f"remove {len(plan.layers)} of {plan.depth} {parts} of {plan.model_ref} ({plan.strategy}): {removed}"]
    if plan.block is not None:
        lines.append(f"that is the block [{plan.block[0]}, {plan.block[1]}), 0-based, the last one not included")
    if (distance := plan.distance) is not None:
        lines.append(f"angular distance {wording.plain(distance, '.4f')} as a share of pi")
    if plan.importance is not None and plan.source is not None:
        other = ", on other clips than it was chosen on" if plan.confidence_set else ""
        lines.append(f"{plan.source.metric} {wording.plain(plan.importance, '.4f')}{other}")
    if plan.source is not None and plan.source.others:
        lines.append(f"for {1 + len(plan.source.others)} audits, joined by {plan.source.combine}")
    if plan.selection_frequency is not None:
        lines.append(f"the first of its size in {plan.selection_frequency:.0%} of bootstrap replicates")
    return lines


def advice(plan: Plan, out: Path) -> list[str]:
    """How far to trust it, and what to do next."""
    following = f"next: shoal evaluate {plan.model_ref} --plan {out}, to see what it costs"
    rivals = [start for start in plan.confidence_set if start != plan.layers[0]]
    if not rivals:
        return [following]
    begin = wording.may_also_begin(rivals)
    return [f"caution: these clips cannot tell it from the blocks that begin at {begin}", following]
