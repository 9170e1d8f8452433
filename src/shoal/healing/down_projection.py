"""The down projection of the layer before a cut: found, and proved to be all that the layer's MLP gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from shoal.decoder.states import first_of
from shoal.decoder.sublayers import Sublayers, exact, find_sublayers, prove
from shoal.errors import MeasureError, ModelError
from shoal.healing.cuts import Cut

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel

FIX = "heal with another target"
UNQUANTISED = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""What weights are in that can be computed with."""


@dataclass(slots=True)
class DownProjection:
    """The layer before a cut; once proved, with its down projection and how that enters the residual stream."""

    index: int
    """Of the layer, unpruned numbering."""
    layer: nn.Module
    parts: Sublayers
    linear: nn.Linear | Conv1D | None = None
    """The down projection, once it is proved."""
    factor: float = 1.0
    """The c of x_s = a·x + c·(attention + MLP)."""

    @property
    def proved(self) -> nn.Linear | Conv1D:
        """The down projection.

        Raises:
            MeasureError: no batch came, by which it is found.
        """
        if self.linear is None:
            raise MeasureError("there is no position to fit")
        return self.linear

    @property
    def name(self) -> str:
        """Of the down projection inside the layer."""
        return next(name for name, module in self.layer.named_modules() if module is self.linear)

    def linears(self) -> list[nn.Linear | Conv1D]:
        """The linear layers of the MLP, among which it is."""
        return [module for module in self.parts.mlp.modules() if isinstance(module, nn.Linear | Conv1D)]

    def unfit(self, why: str) -> ModelError:
        """Why nothing can be folded into this layer."""
        where = f"layer {self.index} ({type(self.layer).__name__})"
        return ModelError(f"{why}; so nothing can be folded into it", where=where, fix=FIX)


def down_projection(teacher: LoadedModel, cut: Cut) -> DownProjection:
    """That of the layer before a cut, not proved yet.

    Raises:
        ModelError: no layer stands there, or one whose MLP does not end with a plain linear layer of its own.
    """
    if cut.last is None:
        raise ModelError(
            "no layer stands before the first one, so none can take over what it did",
            where=f"layers {cut.start} to {cut.stop - 1}",
            fix=FIX,
        )
    layer = teacher.layers[cut.last]
    try:
        projection = DownProjection(cut.last, layer, find_sublayers(layer))
    except ModelError as error:
        where = f"layer {cut.last} ({type(layer).__name__})"
        raise ModelError(f"{error.what}; so nothing can be folded into it", where=where, fix=FIX) from error
    mlp = projection.parts.mlp
    if len(projection.parts.work["mlp"]) > 1 and not isinstance(mlp, nn.Linear | Conv1D):
        raise projection.unfit("a norm stands between its MLP and the residual stream")
    if any(name.rpartition(".")[2].endswith("experts") for name, _ in mlp.named_modules()):
        raise projection.unfit("its MLP is a mixture of experts, which has no one down projection")
    weights = {id(linear.weight) for linear in projection.linears()}
    for number, other in enumerate(teacher.layers):
        if number != cut.last and not weights.isdisjoint(map(id, other.parameters())):
            raise projection.unfit(f"layer {number} shares its down projection, or another weight of its MLP")
    return projection


def prove_projections(projections: Sequence[DownProjection], mask: Tensor, run: Callable[[], None]) -> None:
    """Find the down projections and their factors by one forward pass.

    Args:
        projections: not proved yet; changed in place.
        mask: (B, T) bool, the real positions of the pass.
        run: the pass.

    Raises:
        ModelError: a layer is not an attention and an MLP, or the MLP's contribution is not what one of its linear
            layers gives, or that one is quantised.
    """
    with _recorded(projections) as flow:
        try:
            prove([projection.layer for projection in projections], run)
        except ModelError as error:
            raise ModelError(error.what, where=error.where, fix=FIX) from error
    for projection in projections:
        projection.factor = _factor(projection, flow, mask)
        projection.linear = _last_linear(projection, flow, mask)


@dataclass(slots=True)
class _Flow:
    """Copies of what entered and left modules in one pass; a layer may go on to write into a tensor."""

    inputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    outputs: dict[nn.Module, Tensor] = field(default_factory=dict)


@contextmanager
def _recorded(projections: Sequence[DownProjection]) -> Iterator[_Flow]:
    """Record the layers, their parts, and the linear layers of their MLPs."""
    flow = _Flow()

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        flow.inputs[module] = (args[0] if args else kwargs["hidden_states"]).clone()

    def after(module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        flow.outputs[module] = first_of(output).clone()

    with ExitStack() as hooks:
        for projection in projections:
            layer, parts = projection.layer, projection.parts
            hooks.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
            for module in dict.fromkeys((layer, *parts.modules(), *projection.linears())):
                hooks.callback(module.register_forward_hook(after).remove)
        yield flow


def _factor(projection: DownProjection, flow: _Flow, mask: Tensor) -> float:
    """The c of x_s = a·x + c·(attention + MLP), a form that `prove` made sure of; positions count alike."""
    added = [flow.outputs[part] for part in projection.parts.modules() if part in flow.outputs]
    entered, left = flow.inputs[projection.layer], flow.outputs[projection.layer]
    x, y, *gave = (exact(positions(tensor, mask)) for tensor in (entered, left, *added))
    sizes = torch.linalg.vector_norm(y, dim=1, keepdim=True).clamp(min=torch.finfo(y.dtype).tiny)
    columns = torch.stack([(part / sizes).flatten() for part in (x, sum(gave, torch.zeros_like(x)), y)], 1)
    products = columns.T @ columns
    return float(torch.linalg.solve(products[:2, :2], products[:2, 2])[1])


def _last_linear(projection: DownProjection, flow: _Flow, mask: Tensor) -> nn.Linear | Conv1D:
    """The linear layer whose output is, to the last bit, what the MLP gives."""
    expected = positions(flow.outputs[projection.parts.mlp], mask)
    equal = [
        linear
        for linear in projection.linears()
        if (output := flow.outputs.get(linear)) is not None
        and output.shape[-1] == expected.shape[-1]
        and torch.equal(positions(output, mask), expected)
    ]
    if not equal:
        raise projection.unfit("what its MLP gives is not the output of one linear layer")
    weight = equal[-1].weight
    if weight.dtype not in UNQUANTISED or weight.is_meta:
        raise projection.unfit("the weights of its MLP are quantised, or not in memory")
    return equal[-1]


def positions(tensor: Tensor, mask: Tensor) -> Tensor:
    """The positions in `mask` (B, T) of (B, T, k) or (B·T, k): (N, k)."""
    return tensor.reshape(*mask.shape, -1)[mask.to(tensor.device)]
