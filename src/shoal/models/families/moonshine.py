"""Moonshine: an encoder of raw samples, and a decoder that hears it by cross-attention in every layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shoal.models.batch import on_device
from shoal.models.families.audio_llm import AudioLLM, Inputs, Question, Samples

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class Moonshine(AudioLLM):
    """`MoonshineForConditionalGeneration`."""

    name = "moonshine"
    classes = ("MoonshineForConditionalGeneration",)
    entry = "cross"
    inputs = ("speech",)
    engine = False
    tokens = ("decoder_input_ids", "decoder_attention_mask")
    projector_names = ()
    limits = "takes no instruction: it transcribes, in the language it was trained for"

    def request(self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples], question: Question) -> Inputs:
        """Samples and what the encoder makes of each clip alone, and the token that begins every answer.

        In a batch, padding changes what is heard: the first norm is over all of a row's samples.
        """
        rows = [self._encoded(model, processor, clip) for clip in clips]
        encoded = {"encoder_outputs": self.stacked(rows)}
        return self.features(processor, clips) | encoded | self.beginning(model, processor, question, len(clips))

    def features(self, processor: Any, clips: Sequence[Samples]) -> dict[str, Tensor]:
        """What the encoder is given: samples of several clips, padded with silence and masked."""
        rate = self.sampling_rate(processor)
        inputs = processor(
            audio=list(clips), sampling_rate=rate, padding=True, return_attention_mask=True, return_tensors="pt"
        )
        return {name: inputs[name] for name in ("input_values", "attention_mask")}

    def beginning(self, model: PreTrainedModel, processor: Any, question: Question, clips: int) -> dict[str, Tensor]:
        """The tokens with which decoding starts, and their mask; here one token."""
        import torch

        sources = (model.generation_config, model.config)
        names = ("decoder_start_token_id", "bos_token_id")
        values = (getattr(source, name, None) for name in names for source in sources)
        ids = torch.full((clips, 1), next(value for value in values if value is not None))
        return {"decoder_input_ids": ids, "decoder_attention_mask": torch.ones_like(ids)}

    def stacked(self, rows: Sequence[Any]) -> Any:
        """One encoder output of several, (B, F, d), padded on the right and masked."""
        from torch.nn.utils.rnn import pad_sequence

        return type(rows[0])(
            last_hidden_state=pad_sequence([row.last_hidden_state[0] for row in rows], batch_first=True),
            attention_mask=pad_sequence([row.attention_mask[0].int() for row in rows], batch_first=True),
        )

    def silent_inputs(self, model: PreTrainedModel) -> dict[str, Tensor] | None:
        """Random tokens over a second of noise: there is no decoding without anything to attend to."""
        import torch

        from shoal.models.random_tokens import noise, token_batch

        tokens = token_batch(model.config.vocab_size, pad=model.config.pad_token_id or 0)
        samples = noise((2, 16_000), model.dtype)
        audio = {"input_values": samples, "attention_mask": torch.ones_like(samples, dtype=torch.long)}
        return self.with_tokens(audio, tokens["input_ids"], tokens["attention_mask"])

    def _encoded(self, model: PreTrainedModel, processor: Any, clip: Samples) -> Any:
        import torch

        encoder: Any = self.encoder(model)
        with torch.no_grad():
            return encoder(**on_device(self.features(processor, [clip]), model.device, model.dtype))


FAMILY = Moonshine()
