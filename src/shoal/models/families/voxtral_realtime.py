"""Voxtral Realtime: a causal encoder whose projected states are added to the embeddings of the tokens, one to each.

The stream of tokens runs beside the audio: a token of its own while there is nothing to write, else the words, some
time after they were heard. Every layer is told that delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shoal.models.batch import Kind
from shoal.models.families.audio_llm import AudioLLM, Inputs, Question, Samples

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from shoal.models.batch import TokenRow


SPARE = 8
"""Frames of audio past the tokens, on which a checkpoint is verified."""


class VoxtralRealtime(AudioLLM):
    """`VoxtralRealtimeForConditionalGeneration`."""

    name = "voxtral_realtime"
    classes = ("VoxtralRealtimeForConditionalGeneration",)
    entry = "added"
    inputs = ("speech",)
    # The next token's embedding is not all that the decoder is given: the next frame of audio is added to it.
    engine = False
    no_training_reason = "when it writes a word depends on when it is said, which a transcript does not tell"
    limits = (
        "takes no instruction; an audit spreads the transcript evenly over the audio, and cuts what is longer, since "
        "word times are not known; clips over half a minute need --max-new-tokens (12.5 a second); "
        "needs mistral-common to hear"
    )

    def audio_token(self, model: PreTrainedModel, processor: Any) -> None:
        """None: audio has no place of its own."""

    def silent_inputs(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """Random tokens and features, since the stock forward pass wants audio; some is left to go on with."""
        import torch

        from shoal.models.random_tokens import noise, token_batch

        ids = token_batch(self.text_config(model).vocab_size)["input_ids"]
        frames = (ids.shape[1] + SPARE) * model.config.audio_length_per_tok
        features = noise((len(ids), model.config.audio_config.num_mel_bins, frames), model.dtype)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "input_features": features}

    def request(self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples], question: Question) -> Inputs:
        """See `AudioLLM.request`: the tokens before the first one that it writes, and all of the audio."""
        return dict(processor(list(clips), return_tensors="pt"))

    def forward_inputs(self, model: PreTrainedModel, inputs: dict[str, Any]) -> dict[str, Any]:
        """As many frames of the audio as there are tokens; encoder and features look at the past only."""
        frames = inputs["input_ids"].shape[1] * model.config.audio_length_per_tok
        return inputs | {"input_features": inputs["input_features"][..., :frames]}

    def with_response(self, processor: Any, line: TokenRow, ids: Sequence[int], samples: Samples) -> TokenRow:
        """The response spread over the rest of the audio, between its tokens the one for nothing to write.

        What is longer than the audio is cut: the model has no place to write it.
        """
        room = _audio_tokens(processor, len(samples)) - len(line.ids)
        pad = processor.tokenizer.tokenizer.instruct_tokenizer.audio_encoder.streaming_pad
        row, written = line, list(ids[:room])
        for index, token in enumerate(written):
            gap = (index + 1) * room // len(written) - index * room // len(written) - 1
            row = row.then([token], Kind.TEXT).then([pad] * gap, Kind.AUDIO)
        return row if written else row.then([pad] * room, Kind.AUDIO)


def _audio_tokens(processor: Any, samples: int) -> int:
    """Frames of the decoder that `samples` make, with the silence that the processor puts around them."""
    audio = processor.mistral_common_audio_config
    heard = -(-samples // audio.raw_audio_length_per_tok)
    return int(audio.n_left_pad_tokens + heard + audio.n_right_pad_tokens())


FAMILY = VoxtralRealtime()
