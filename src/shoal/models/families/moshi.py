"""Moshi: it hears one stream of codes and says another, with its words as a third, all added up frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shoal.models.families.audio_llm import Inputs, Question, Samples
from shoal.models.families.speech_generator import SpeechGenerator

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from shoal.schema import InputKind

RATE = 24_000
TEXT_PADDING = 3
"""The token of a frame in which Moshi begins no word, in its tokenizer."""
STREAMS = ("user_audio_codes", "moshi_audio_codes")


class Moshi(SpeechGenerator):
    """`MoshiForConditionalGeneration`, listening: the clip in the user's stream, silence in its own."""

    name = "moshi"
    classes = ("MoshiForConditionalGeneration",)
    encoder_names = ("audio_encoder",)
    limits = "measured while it listens and says nothing; needs no processor; the depth decoder stays whole"

    def inputs_of(self, model: PreTrainedModel, processor: Any) -> tuple[InputKind, ...]:
        """Speech; there is no processor of this class, and none is needed."""
        return self.inputs

    def sampling_rate(self, processor: Any) -> int:
        """That of its codec."""
        return RATE

    def audio_token(self, model: PreTrainedModel, processor: Any) -> int | None:
        """Text padding: at every frame there is audio."""
        return _padding(model)

    def words_at(self, processor: Any) -> int:
        """Nowhere: it says nothing while it listens."""
        return 0

    def response(self, text: str) -> str:
        """No words."""
        return ""

    def request(self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples], question: Question) -> Inputs:
        """The codes of every clip, made alone and padded on the right, and of as much silence."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        heard = [_codes(model, clip) for clip in clips]
        silence = [_codes(model, 0 * clip) for clip in clips]
        lengths = torch.tensor([len(codes) for codes in heard])
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        padded = (pad_sequence(codes, batch_first=True).mT for codes in (heard, silence))
        tokens = {"input_ids": torch.full_like(mask, _padding(model)), "attention_mask": mask}
        return tokens | dict(zip(STREAMS, padded, strict=True))

    def with_tokens(self, inputs: dict[str, Any], ids: Tensor, mask: Tensor) -> dict[str, Any]:
        """The codes move with the tokens of their frames."""
        with_ids = super().with_tokens(inputs, ids, mask)
        for name in STREAMS:
            codes = inputs[name]
            moved = codes.new_zeros((*codes.shape[:2], ids.shape[1]))
            for row, real in enumerate(mask.bool().to(codes.device)):
                moved[row][:, real] = codes[row, :, : int(real.sum())]
            with_ids[name] = moved
        return with_ids

    def silent_inputs(self, model: PreTrainedModel) -> dict[str, Tensor] | None:
        """Random tokens and codes."""
        from shoal.models.random_tokens import random_codes, token_batch

        tokens = token_batch(model.config.vocab_size)
        rows, length = tokens["input_ids"].shape
        codes = random_codes(model.config.audio_vocab_size, (len(STREAMS), rows, model.config.num_codebooks, length))
        return tokens | dict(zip(STREAMS, codes, strict=True))


def _padding(model: PreTrainedModel) -> int:
    stated = getattr(model.generation_config, "pad_token_id", None) or model.config.pad_token_id
    return TEXT_PADDING if stated is None else int(stated)


def _codes(model: Any, clip: Samples) -> Tensor:
    """(F, codebooks) of one clip."""
    import torch

    samples = torch.from_numpy(clip)[None, None].to(model.device, model.dtype)
    with torch.no_grad():
        encoded = model.audio_encoder.encode(samples, num_quantizers=model.config.num_codebooks)
    codes: Tensor = encoded.audio_codes[0].T
    return codes


FAMILY = Moshi()
