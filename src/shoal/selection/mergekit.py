"""A plan as a mergekit configuration, for those who prune with that."""

from __future__ import annotations

import yaml

from shoal.errors import PlanError
from shoal.schema import Plan


def mergekit_yaml(plan: Plan, model_ref: str | None = None) -> str:
    """A `passthrough` merge of the layers that stay, as half-open ranges.

    mergekit copies weights only: it does not slice per-layer config fields and writes no weights at all for
    audio LLMs. `shoal prune` does both and verifies the result.

    Args:
        plan: what to remove.
        model_ref: the model to slice, if it is to be found elsewhere than under the plan's `model_ref`.

    Raises:
        PlanError: only a part of the layers is to go.
    """
    if plan.part != "layer":
        raise PlanError(
            "mergekit slices whole layers, and the plan removes only a part of each",
            where=f"plan for {plan.model_ref}",
            fix="such a plan is measured in memory, by shoal evaluate and shoal bench",
        )
    source = model_ref or plan.model_ref
    slices = [{"sources": [{"model": source, "layer_range": list(kept)}]} for kept in kept_ranges(plan)]
    return yaml.safe_dump({"slices": slices, "merge_method": "passthrough"}, sort_keys=False)


def kept_ranges(plan: Plan) -> list[tuple[int, int]]:
    """The layers that stay, as the fewest half-open ranges `[start, stop)`, ascending."""
    ranges: list[tuple[int, int]] = []
    for layer in plan.keep:
        if ranges and ranges[-1][1] == layer:
            ranges[-1] = (ranges[-1][0], layer + 1)
        else:
            ranges.append((layer, layer + 1))
    return ranges
