"""Run a decoder and see its states: how it is called, what goes in and out of every layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from shoal.errors import MeasureError
from shoal.models.batch import PreparedBatch


class StateBuffer:
    """Receives the states of one batch through hooks.

    Args:
        depth: number of layers L.
        state: takes the residual stream (B, T, d) out of what layers pass on.
    """

    def __init__(self, depth: int, state: Callable[[Tensor], Tensor] = lambda hidden: hidden) -> None:
        self.depth, self._state = depth, state
        self.mask: Tensor | None = None
        self.states: Tensor | None = None
        self._seen: set[int] = set()

    def start(self, mask: Tensor) -> None:
        """Expect a batch whose real positions are `mask` (B, T) bool."""
        self.mask, self._seen = mask, set()
        self._count = int(mask.sum())

    def put(self, boundary: int, hidden: Tensor) -> None:
        """Store the real positions of `hidden` (B, T, d) as boundary 0 … L."""
        if self.mask is None:
            return
        rows = self._state(hidden)[self.mask.to(hidden.device)]
        if self.states is None or self.states.shape[0] < self._count or self.states.dtype != rows.dtype:
            self.states = None  # lets go of the old buffer first: two at once would be the audit's peak
            self.states = rows.new_empty((self._count, self.depth + 1, rows.shape[-1]))
        self.states[: self._count, boundary] = rows.to(self.states.device)
        self._seen.add(boundary)

    def take(self) -> Tensor:
        """The batch's states (N, L+1, d). Until the next `start`, layers that run are not listened to.

        Raises:
            MeasureError: a layer was not called, so its row would be stale.
        """
        self.mask = None  # making the next batch may run the decoder (Whisper asks it for the language)
        missing = set(range(self.depth + 1)) - self._seen
        if missing or self.states is None:
            raise MeasureError(f"the decoder did not run the layers at boundaries {sorted(missing)}")
        return self.states[: self._count]


@contextmanager
def layer_hooks(
    layers: nn.ModuleList,
    before: Callable[..., Any],
    after: Callable[..., None],
    handles: Iterable[RemovableHandle] = (),
) -> Iterator[None]:
    """Hook `layers` for the time of the block; all hooks are gone afterwards, whatever happens.

    Args:
        layers: of a decoder.
        before: (index, layer, args, kwargs) → None, or what the layer is called with instead.
        after: (index, layer, args, output).
        handles: of further hooks, to be removed with them.
    """
    with ExitStack() as hooks:
        for handle in handles:
            hooks.callback(handle.remove)
        for index, layer in enumerate(layers):
            hooks.callback(layer.register_forward_pre_hook(partial(before, index), with_kwargs=True).remove)
            hooks.callback(layer.register_forward_hook(partial(after, index)).remove)
        yield


def state_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The state among the arguments of a layer."""
    state: Tensor = args[0] if args else kwargs["hidden_states"]
    return state


def first_of(output: Any) -> Tensor:
    """The tensor that a module answers: alone (since transformers 5) or first of a tuple."""
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


@contextmanager
def recording(
    layers: nn.ModuleList, state: Callable[[Tensor], Tensor] = lambda hidden: hidden
) -> Iterator[StateBuffer]:
    """Fill a buffer with what enters every layer and what leaves the last one, for the time of the block."""
    depth = len(layers)
    buffer = StateBuffer(depth, state)

    def before(index: int, _: nn.Module, args: Any, kwargs: Any) -> None:
        buffer.put(index, state_in(args, kwargs))

    def after(index: int, _: nn.Module, __: Any, output: Any) -> None:
        if index == depth - 1:
            buffer.put(depth, first_of(output))

    with layer_hooks(layers, before, after):
        yield buffer


def decoder_arguments(decoder: nn.Module, batch: PreparedBatch) -> dict[str, Any]:
    """How the decoder is called with `batch`: as the model itself does, or with embeddings, mask and positions.

    Decoders with ALiBi know no position ids. Tensors are copies: Moonshine's streaming decoder writes into what it is
    handed, and a batch is run many times; and what was made in inference mode is not fit for a graph.
    """
    if batch.call:
        return {name: copy_tensors(value) for name, value in batch.call.items()}
    positions = {"position_ids": batch.position_ids} if takes_argument(decoder, "position_ids") else {}
    arguments = {"inputs_embeds": batch.embeds, "attention_mask": batch.attention_mask, **positions}
    return {name: value.clone() for name, value in arguments.items()}


def last_states(output: Any) -> Tensor:
    """What a decoder answers: the states after its final norm (B, T, d)."""
    states: Tensor = output[0] if isinstance(output, tuple) else output.last_hidden_state
    return states


def copy_tensors(value: Any) -> Any:
    """`value` with copies of its tensors."""
    if isinstance(value, Tensor):
        return value.clone()
    if type(value) in (tuple, list):
        return type(value)(copy_tensors(item) for item in value)
    if type(value) is dict:
        return {name: copy_tensors(item) for name, item in value.items()}
    return value


def takes_argument(module: nn.Module, name: str) -> bool:
    """Whether the module's forward names the argument `name`, or takes any."""
    parameters = inspect.signature(module.forward).parameters
    return name in parameters or any(known.kind is known.VAR_KEYWORD for known in parameters.values())
