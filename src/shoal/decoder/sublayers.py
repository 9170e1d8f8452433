"""The two contributions of a decoder layer to the residual stream: what its attention adds, and what its MLP adds.

A layer of a pre-norm transformer is `x + a(x) + m(x + a(x))`, or with a scale, or with both in parallel. Which modules
give `a` and `m` is found by the names that transformers uses, and then proved by a forward pass: what leaves the layer
has to be what entered it plus what these modules gave, up to one factor for each. A model that computes something else
(another branch, a norm over the sum, a gate) does not pass, so it gets no number instead of a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from shoal.decoder.states import first_of, state_in
from shoal.errors import ModelError
from shoal.models.batch import on_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from shoal.models.families.base import Family
    from shoal.schema import Part

ATTENTION = ("self_attn", "self_attention", "attention", "attn")
MLP = ("mlp", "feed_forward", "block_sparse_moe", "ffn")
BARE_MLP = ("fc1", "fc2")
"""The MLP of OPT and Whisper, which is no module of its own."""
POST_NORMS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)
"""Norms of what attention and MLP give, before it is added (Gemma, OLMo 2, GLM-4). One name without the other means
something else: in Llama, `post_attention_layernorm` is the norm before the MLP."""
OTHERS = ("encoder_attn", "crossattention", "post_per_layer_input_norm")
"""What else is added to the residual stream: cross-attention, and the layer's own embedding in Gemma 4."""
ROUNDING = (4, 1)
"""How many units of rounding (eps) the sum may be off at every position, relative to the sizes of its terms: in
float32, and in half precision, where more would let pass what is wrong."""
FINEST = 1e-12
"""What the check itself is good for, in float64."""


@dataclass(frozen=True, slots=True)
class ModuleOutput:
    """What a module answers: a tensor (…, `width`), alone or first of a tuple of `length`."""

    width: int
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Sublayers:
    """Where the contributions of one layer come from; the output of each module (the first, of a tuple) is one."""

    attention: nn.Module
    mlp: nn.Module
    others: tuple[nn.Module, ...] = ()
    work: Mapping[Part, tuple[nn.Module, ...]] = field(default_factory=dict)
    """All that runs for a part alone, in order; the contribution is the output of the last."""
    outputs: Mapping[nn.Module, ModuleOutput] = field(default_factory=dict)
    """What each module of `work` answered in the proof; empty before it."""

    def modules(self) -> tuple[nn.Module, ...]:
        """Those whose outputs add up to what the layer does."""
        return (self.attention, self.mlp, *self.others)


_PROVED: WeakKeyDictionary[nn.Module, Sublayers] = WeakKeyDictionary()
"""Layer → its sublayers; weights may change, what a layer is made of does not."""


def sublayers_of(model: PreTrainedModel, family: Family, *, run: Callable[[], object] | None = None) -> list[Sublayers]:
    """The proved sublayers of every decoder layer; the forward pass that it takes is run once in a model's life.

    Args:
        model: any model of the family.
        family: its family.
        run: a forward pass of the decoder; default is one over two short rows of random tokens.

    Raises:
        ModelError: see `prove`; or the model cannot be run without audio.
    """
    layers = family.layers(model)
    if any(layer not in _PROVED for layer in layers):
        proved = prove(layers, run or (lambda: _run(model, family)))
        _PROVED.update(zip(layers, proved, strict=True))
    return [_PROVED[layer] for layer in layers]


def _run(model: PreTrainedModel, family: Family) -> None:
    """A forward pass over random tokens, without audio if the model can do without."""
    from shoal.models.families.audio_llm import AudioLLM
    from shoal.models.random_tokens import token_batch

    inputs = family.silent_inputs(model) if isinstance(family, AudioLLM) else None
    config = family.text_config(model)
    runner: Any = family.answering(model) if inputs is not None else family.decoder(model)
    if inputs is None:
        inputs = token_batch(config.vocab_size, pad=getattr(config, "pad_token_id", None) or 0)
    inputs = on_device(inputs, model.device)
    if isinstance(family, AudioLLM) and runner is not family.decoder(model):
        inputs = family.forward_inputs(model, inputs)
    try:
        runner(**inputs, use_cache=False)
    except (ValueError, TypeError, RuntimeError, IndexError, KeyError, AttributeError) as error:
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        raise ModelError(
            f"it cannot be run on random tokens, by which its parts are found ({reason})",
            where=type(model).__name__,
            fix="measure and remove whole layers",
        ) from error


def find_sublayers(layer: nn.Module) -> Sublayers:
    """The candidates of a decoder layer, by the names of its modules; `prove` tells whether they are right.

    Raises:
        ModelError: the layer is not an attention and an MLP.
    """
    attention, mlp = _first(layer, ATTENTION), _first(layer, MLP)
    bare = [module for name in BARE_MLP if (module := _child(layer, name)) is not None]
    before = [mlp] if mlp is not None else bare if len(bare) == len(BARE_MLP) else []
    if attention is None or not before:
        raise not_two_parts(layer)
    work: dict[Part, tuple[nn.Module, ...]] = {"attention": (attention,), "mlp": tuple(before)}
    for norms in POST_NORMS:
        after = [_child(layer, name) for name in norms]
        if after[0] is not None and after[1] is not None:
            work = {"attention": (attention, after[0]), "mlp": (*before, after[1])}
    others = tuple(module for name in OTHERS if (module := _child(layer, name)) is not None)
    return Sublayers(work["attention"][-1], work["mlp"][-1], others, work)


def not_two_parts(layer: nn.Module, why: str = "") -> ModelError:
    """The refusal of a layer that is something else."""
    return ModelError(
        "layers are not attention + MLP; only whole layers can be measured" + (f" ({why})" if why else ""),
        where=type(layer).__name__,
    )


def _child(layer: nn.Module, name: str) -> nn.Module | None:
    child = getattr(layer, name, None)
    return child if isinstance(child, nn.Module) else None


def _first(layer: nn.Module, names: Sequence[str]) -> nn.Module | None:
    return next((child for name in names if (child := _child(layer, name)) is not None), None)


@torch.no_grad()
def prove(layers: Iterable[nn.Module], run: Callable[[], object]) -> list[Sublayers]:
    """Find the sublayers of all `layers`, and hold their sum against what every layer does in one forward pass.

    Args:
        layers: the decoder's, first to last.
        run: a forward pass over anything; it runs every layer.

    Returns:
        One for each layer, with `outputs`.

    Raises:
        ModelError: a layer has no such parts, or is not their sum.
    """
    checks = [_Check(layer, find_sublayers(layer)) for layer in layers]
    with ExitStack() as hooks:
        for check in checks:
            for handle in check.hooks():
                hooks.callback(handle.remove)
        run()
    return [check.proved() for check in checks]


class _Check:
    """Listens to one layer, and checks it as soon as it has run, so that one layer's tensors are alive at a time."""

    def __init__(self, layer: nn.Module, parts: Sublayers) -> None:
        self._layer, self._parts = layer, parts
        self._entered: Tensor | None = None
        self._contributions: dict[nn.Module, Tensor] = {}
        self._outputs: dict[nn.Module, ModuleOutput] = {}

    def hooks(self) -> Iterator[Any]:
        """Handles of what listens."""
        yield self._layer.register_forward_pre_hook(self._before, with_kwargs=True)
        yield self._layer.register_forward_hook(self._after)
        work = self._parts.work
        for module in dict.fromkeys((*self._parts.modules(), *work["attention"], *work["mlp"])):
            yield module.register_forward_hook(self._contributed)

    def proved(self) -> Sublayers:
        """What was found, with the outputs seen."""
        if not self._outputs:
            raise not_two_parts(self._layer, "a layer is not run")
        return replace(self._parts, outputs=self._outputs)

    def _before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Copies, here and below: a layer may go on to write into a tensor.
        self._entered = state_in(args, kwargs).clone()

    def _contributed(self, module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        tensor = first_of(output)
        self._contributions[module] = tensor.clone()
        self._outputs[module] = ModuleOutput(tensor.shape[-1], len(output) if isinstance(output, tuple) else None)

    def _after(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        """Raise unless the layer is a sum, up to one factor m of what is added and one factor s of what entered.

        m is 1, or Granite's residual multiplier; s is 1 except where a layer scales all it passes on (Gemma 4).
        """
        left, entered = first_of(output), self._entered
        seen = self._contributions
        terms = [seen[module] for module in self._parts.modules() if module in seen]
        ran = all(module in seen for part in self._parts.work.values() for module in part)
        if entered is None or not ran or any(term.numel() != left.numel() for term in (entered, *terms)):
            raise not_two_parts(self._layer, "attention and MLP do not run over all positions")
        added = torch.stack([exact(term).reshape(left.shape) for term in terms]).sum(0)
        rounding = ROUNDING[left.element_size() < 4] * torch.finfo(left.dtype).eps
        if not _adds_up(exact(entered), exact(left), added, max(rounding, FINEST)):
            raise not_two_parts(
                self._layer, "what leaves one is not what entered it plus what its attention and MLP give"
            )
        self._entered, self._contributions = None, {}


def exact(tensor: Tensor) -> Tensor:
    """The tensor in float64, where its device has that."""
    on_mps = tensor.device.type == "mps"  # which has no float64
    return (tensor.cpu() if on_mps else tensor).to(torch.float64)


def _adds_up(x: Tensor, y: Tensor, added: Tensor, rounding: float) -> bool:
    """Whether y (…, d) is a multiple of x plus a multiple of what was added; positions count alike, however long.

    Padding may be NaN, and says nothing.
    """
    sizes = sum(torch.linalg.vector_norm(term, dim=-1, keepdim=True) for term in (x, y, added))
    usable = (torch.isfinite(sizes) & (sizes > 0))[..., 0]
    x, y, added = (term[usable] / sizes[usable] for term in (x, y, added))
    off = _without(_without(y, x), _without(added, x))
    return bool(usable.any()) and bool((torch.linalg.vector_norm(off, dim=-1) <= rounding).all())


def _without(y: Tensor, x: Tensor) -> Tensor:
    """What of y is not a multiple of x."""
    return y - x * ((x * y).sum() / (x * x).sum().clamp(min=torch.finfo(torch.float64).tiny))
