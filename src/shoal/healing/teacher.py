"""Where a pruned model comes from: what is missing in it, and the model that has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from shoal.errors import ModelError, PlanError
from shoal.models.lineage import plan_files, removed_layers
from shoal.pruning.on_disk import check_plan
from shoal.schema import Plan

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel


@dataclass(frozen=True)
class PruningHistory:
    """What was removed, and from which model."""

    plan: Plan | None = None
    """All that is missing, in the numbering of `teacher`; None if nothing is known to be."""
    teacher: str | None = None
    """The model that `plan` was made for."""


def pruning_history(loaded: LoadedModel, plan: Plan | None) -> PruningHistory:
    """What is missing from a model, or will be when `plan` is carried out.

    Args:
        loaded: a pruned checkpoint, or with `plan` the model to prune.
        plan: what to remove first.

    Raises:
        PlanError: the plan does not fit, or a plan in the folder cannot be read.
    """
    if plan is not None:
        check_plan(plan, loaded.info())
        return PruningHistory(plan, loaded.ref)
    plans = [Plan.load(path) for path in plan_files(loaded.path)]
    if not plans:
        return PruningHistory()
    first = plans[0]
    gone = removed_layers(loaded.path)
    whole = first if len(plans) == 1 else first.model_copy(update={"layers": gone})
    missing = Plan.model_validate(whole.model_dump() | {"layers": gone, "allow_last": True})
    if len(missing.keep) != loaded.info().depth:
        raise PlanError(
            f"its plans leave {len(missing.keep)} layers, and it has {loaded.info().depth}",
            where=loaded.ref,
            fix="prune the unpruned model again",
        )
    return PruningHistory(missing, first.model_ref)


def check_teacher(teacher: LoadedModel, student: LoadedModel, plan: Plan | None) -> None:
    """Make sure that `teacher` is the model that `student` was pruned from, as far as its shape tells.

    Raises:
        ModelError: it cannot be.
    """
    expected = plan.depth if plan is not None else len(student.layers)
    depth, width = len(teacher.layers), teacher.info().hidden_size
    if depth != expected or width != student.info().hidden_size or teacher.family.name != student.family.name:
        raise ModelError(
            f"it has {depth} layers of width {width}, and the model that was pruned had {expected} of "
            f"{student.info().hidden_size}",
            where=f"teacher {teacher.ref}",
            fix="give the unpruned model with --teacher",
        )


def share_weights(teacher: LoadedModel, student: LoadedModel, keep: list[int]) -> int:
    """Let the teacher use the student's copy of every weight that both have and nobody trains.

    Args:
        teacher: the unpruned model; its weights are equal to the student's or stay.
        student: the pruned model, with what is trained already marked (`requires_grad`).
        keep: the teacher's layers that the student has, ascending.

    Returns:
        Bytes that are held once instead of twice.
    """
    pairs = [(teacher.layers[old], student.layers[new]) for new, old in enumerate(keep)]
    # What is not a layer has the same name in both.
    own = _plain_names(student.model)
    in_layers = {id(parameter) for layer in teacher.layers for parameter in layer.parameters()}
    others = [
        (parameter, own[name])
        for name, parameter in teacher.model.named_parameters()
        if id(parameter) not in in_layers and name in own
    ]
    for ours, theirs in pairs:
        there = _plain_names(theirs)
        others += [(parameter, there[name]) for name, parameter in ours.named_parameters() if name in there]
    saved = 0
    # Only what is equal is shared: `linear` or an earlier healing may have changed a weight of the student.
    with torch.no_grad():
        for parameter, shared in others:
            same = parameter.shape == shared.shape and parameter.dtype == shared.dtype
            if same and not shared.requires_grad and torch.equal(parameter, shared):
                parameter.data = shared.data
                saved += shared.numel() * shared.element_size()
    return saved


def _plain_names(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by the names they have without low-rank layers around them."""
    return {name.replace(".base_layer", ""): parameter for name, parameter in module.named_parameters()}
