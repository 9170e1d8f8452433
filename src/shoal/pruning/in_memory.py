"""Remove decoder layers from a model in memory, for good or for a while.

Three things must change together, or the model computes something else than its checkpoint will:

- the list of layers;
- the config: the depth and every per-layer field (masks and caches are built from it, layer by layer);
- the index that kept layers remember (they address the cache with it).

No layer is copied, so a plan costs nothing to try. (A few models keep a part for each layer in one tensor outside the
layers; what is left of that is a copy.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from shoal.errors import InputError, ModelError, PlanError
from shoal.models.families import find
from shoal.schema import Part, Plan, plan_problem

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

    from shoal.models.families.base import Family

DEPTH_ATTRIBUTES = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
"""Names under which some decoders remember their own depth besides the config."""

PART_NAMES = {"attention": "attention", "mlp": "MLP"}

SIZES = (("num_embeddings", "out_features"), ("embedding_dim", "in_features"))
"""For each dimension of a weight, the names under which modules remember its length."""


@contextmanager
def pruned(
    model: PreTrainedModel, layers: Sequence[int] | Plan, *, part: Part = "layer", family: Family | None = None
) -> Iterator[PreTrainedModel]:
    """Remove `layers`, or a part of each, from `model` while the block runs; afterwards it is exactly as before.

    Contexts nest: the indices of the inner one count the layers that the outer one left.

    Args:
        model: any model a family knows; changed in place.
        layers: a plan, which says itself what of its layers goes, or 0-based indices, ascending.
        part: what of the layers goes; see `shoal.pruning.sublayers` for less than all.
        family: the model's family, if known already.

    Yields:
        The same model object.

    Raises:
        PlanError: the layers do not fit the model.
        ModelError: the model has a per-layer field that is not understood, or layers without such a part.
    """
    family = family or find(model)
    part = layers.part if isinstance(layers, Plan) else part
    with ExitStack() as undo:
        if part == "layer":
            _prune(model, layers, family, undo)
        elif gone := removed_layers(layers, family.depth(model)):
            from shoal.pruning.sublayers import without_part

            undo.enter_context(without_part(model, gone, part, family=family))
        yield model


def prune_in_place(
    model: PreTrainedModel, layers: Sequence[int] | Plan, *, family: Family | None = None
) -> PreTrainedModel:
    """Remove `layers` from `model` for good; on an error the model is as before.

    Args:
        model: any model a family knows.
        layers: a plan, or 0-based indices, ascending.
        family: the model's family, if known already.

    Returns:
        The same model object.

    Raises:
        PlanError: the layers do not fit the model, or only a part of them is to go.
        ModelError: the model has a per-layer field that is not understood.
    """
    check_whole(layers)
    with ExitStack() as undo:
        _prune(model, layers, family or find(model), undo)
        undo.pop_all()
    return model


def removal_problem(
    model: PreTrainedModel, layers: Sequence[int], *, part: Part = "layer", family: Family
) -> str | None:
    """Why `model` cannot go without `layers`; None if it can. In some models, layers read what others computed."""
    try:
        with pruned(model, layers, part=part, family=family):
            return None
    except InputError as error:
        return error.what


def check_whole(layers: Sequence[int] | Plan) -> None:
    """Make sure that layers go as a whole: what is left is written, or stays, as a model of its stock class.

    Raises:
        PlanError: a plan for the attention or the MLP of its layers.
    """
    if isinstance(layers, Plan) and layers.part != "layer":
        raise PlanError(
            f"it removes only the {PART_NAMES[layers.part]} of its layers, and stock classes have no layer without it",
            where=f"plan for {layers.model_ref}",
            fix="such a plan is measured in memory: shoal evaluate --plan, shoal bench --plan",
        )


def removed_layers(layers: Sequence[int] | Plan, depth: int) -> list[int]:
    """The indices in 0 … `depth`-1 that go, ascending; raises as `kept_layers` does."""
    keep = kept_layers(layers, depth)
    return [layer for layer in range(depth) if layer not in set(keep)]


def kept_layers(layers: Sequence[int] | Plan, depth: int) -> list[int]:
    """The indices in 0 … `depth`-1 that stay, ascending.

    A plan says itself whether the last layer may go; in a bare list it may, because an ablation has to.

    Raises:
        PlanError: a plan for another depth, or layers out of range, twice, out of order, or all of them.
    """
    removed = layers.layers if isinstance(layers, Plan) else list(layers)
    if isinstance(layers, Plan):
        layers.check_depth(depth)
    if problem := plan_problem(removed, depth, allow_last=True):
        raise PlanError(problem, where="layers to remove", fix="give 0-based indices, ascending, each once")
    return [layer for layer in range(depth) if layer not in set(removed)]


def _prune(model: PreTrainedModel, layers: Sequence[int] | Plan, family: Family, undo: ExitStack) -> None:
    """Do it; `undo` receives what restores each part, in the order in which it was changed."""
    keep = kept_layers(layers, depth := family.depth(model))
    if len(keep) == depth:
        return
    configs = family.configs(model)
    fields = [family.pruned_fields(config, keep) for config in configs]
    tensors = family.layered_tensors(configs[0])
    for config, values in zip(configs, fields, strict=True):
        _set_fields(config, values, undo)
    _set_other_fields(model, depth, keep, family, undo)
    for name in DEPTH_ATTRIBUTES:
        if vars(decoder := family.decoder(model)).get(name) == depth:
            _set_attribute(decoder, name, len(keep), undo)
    _slice_tensors(family.decoder(model), tensors, depth, keep, undo)
    for owner, name, value in list(family.attributes(model, keep)):
        _set_attribute(owner, name, value, undo)
    _set_layers(model, keep, family, undo)


def _set_fields(config: PreTrainedConfig, values: dict[str, Any], undo: ExitStack) -> None:
    before = dict(vars(config))
    undo.callback(_restore, config, before)
    for name, value in values.items():
        try:
            setattr(config, name, value)
        except (NotImplementedError, AttributeError, ValueError, TypeError) as error:
            raise ModelError(
                f"the config field {name} cannot be set to {value!r} ({type(error).__name__})",
                where=type(config).__name__,
                fix="prune another model, or add a family for it in shoal/models/families",
            ) from error


def _restore(config: PreTrainedConfig, before: dict[str, Any]) -> None:
    """Put back the very objects that were there, past any validation or name mapping of the config."""
    vars(config).clear()
    vars(config).update(before)


def _set_other_fields(model: PreTrainedModel, depth: int, keep: list[int], family: Family, undo: ExitStack) -> None:
    """What follows the depth outside the decoder's config; other configs before the generation config."""
    for path, value in family.other_fields(model.config, depth, keep).items():
        owner: Any = model.config
        for name in path[:-1]:
            owner = getattr(owner, name)
        _set_fields(owner, {path[-1]: value}, undo)
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        for name, value in family.generation_fields(generation, depth, keep).items():
            _set_attribute(generation, name, value, undo)


def _slice_tensors(
    decoder: nn.Module, tensors: Mapping[str, int], depth: int, keep: list[int], undo: ExitStack
) -> None:
    """Leave in `tensors` (name → dimension) only the parts of the layers in `keep`; these are copies."""
    import torch
    from torch import nn

    for name, dim in tensors.items():
        path, _, attribute = name.rpartition(".")
        module = decoder.get_submodule(path)
        whole = getattr(module, attribute)
        parts = whole.detach().chunk(depth, dim)
        sliced = nn.Parameter(torch.cat([parts[layer] for layer in keep], dim), requires_grad=whole.requires_grad)
        _set_attribute(module, attribute, sliced, undo)
        for size in SIZES[dim]:
            if size in vars(module):
                _set_attribute(module, size, sliced.shape[dim], undo)


def _set_layers(model: PreTrainedModel, keep: list[int], family: Family, undo: ExitStack) -> None:
    from torch import nn

    present = family.layers(model)
    for new, old in enumerate(keep):
        _renumber(present[old], old, new, family, undo)
    remaining = nn.ModuleList(present[layer] for layer in keep)
    remaining.training = present.training
    undo.callback(family.set_layers, model, present)
    family.set_layers(model, remaining)


def _renumber(layer: nn.Module, old: int, new: int, family: Family, undo: ExitStack) -> None:
    """Give every part of `layer` its new index, counting from 0 or from 1 as the part does."""
    for module, name, value in list(family.layer_indices(layer)):
        if value - old not in (0, 1):
            raise ModelError(
                f"{type(module).__name__}.{name} is {value} in layer {old} and does not follow its place",
                where=type(layer).__name__,
                fix="prune another model, or add a family for it in shoal/models/families",
            )
        _set_attribute(module, name, value - old + new, undo)


def _set_attribute(owner: Any, name: str, value: Any, undo: ExitStack) -> None:
    restore: Callable[..., None] = setattr
    undo.callback(restore, owner, name, getattr(owner, name))
    setattr(owner, name, value)
