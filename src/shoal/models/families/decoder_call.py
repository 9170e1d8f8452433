"""How a model calls its decoder: the call is recorded, or made from embeddings for the decode engine."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from shoal.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from shoal.models.families.base import Family


class _Reached(Exception):
    """The forward pass has come to the decoder."""


def decoder_call(model: PreTrainedModel, family: Family, inputs: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments with which `model(**inputs)` calls its decoder.

    The forward pass ends there: no layer runs.

    Raises:
        ModelError: the forward pass fails, or does not call its decoder.
    """
    arguments: dict[str, Any] = {}
    decoder = family.decoder(model)

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = list(inspect.signature(type(module).forward).parameters)[1:]
        arguments.update(zip(names, args, strict=False))
        arguments.update(kwargs)
        raise _Reached

    handle = decoder.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        family.answering(model)(**inputs, use_cache=False)
    except _Reached:
        pass
    except (ValueError, TypeError, RuntimeError, IndexError, KeyError, AttributeError) as error:
        raise ModelError(
            f"its forward pass fails on its own processor's inputs ({type(error).__name__}: {str(error)[:300]})",
            where=type(model).__name__,
            fix="check that processor and weights belong together",
        ) from error
    finally:
        handle.remove()
    dropped = ("past_key_values", "use_cache", "labels", "output_hidden_states", "return_dict")
    call = {name: value for name, value in arguments.items() if value is not None and name not in dropped}
    if not call:
        raise ModelError("its forward pass does not call its decoder", where=type(model).__name__)
    return call


class DecoderWithHead(nn.Module):
    """Decoder and head as a causal LM that takes embeddings, for the decode engine.

    Scaling and soft-capping of logits, which some classes do after the head, are left out: they keep the order of
    the logits, and greedy decoding asks for no more.

    Args:
        model: the whole model; its parameters are used, not copied.
        family: its family.
    """

    def __init__(self, model: PreTrainedModel, family: Family) -> None:
        super().__init__()
        decoder: Any = family.decoder(model)
        # In a tuple, so that they are not registered as children: this is a view, whose state is the model's.
        self._parts: tuple[Any, Any, Any] = (decoder.get_input_embeddings(), decoder, family.head(model))
        self.config = family.text_config(model)
        # As transformers' models say it themselves: whether a step can be recorded as a CUDA graph.
        self._can_compile_fullgraph = bool(getattr(decoder, "_can_compile_fullgraph", False))

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> Any:
        """Logits (B, T', V) at the last `logits_to_keep` positions (0: all) under `.logits`."""
        from transformers.modeling_outputs import CausalLMOutputWithPast

        embed, decoder, head = self._parts
        embeds = embed(input_ids) if inputs_embeds is None else inputs_embeds
        output = decoder(inputs_embeds=embeds, **kwargs)
        states = output.last_hidden_state[:, -logits_to_keep:]
        return CausalLMOutputWithPast(logits=head(states), past_key_values=output.past_key_values)
