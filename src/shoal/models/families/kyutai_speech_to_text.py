"""Kyutai's streaming recogniser: at every audio frame the decoder reads the frame's codec tokens and its own last word.

Words and audio share their positions, so there is no place to put a transcript: the model is measured on what it hears
and writes itself, greedily, frame by frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shoal.models.families.audio_llm import AudioLLM, Inputs, Question, Samples

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from shoal.models.batch import PreparedBatch

FRAMES_PER_SECOND = 12.5
END_OF_PADDING = 0
"""The text token that comes between the silence before a word and the word."""


class KyutaiSpeechToText(AudioLLM):
    """`KyutaiSpeechToTextForConditionalGeneration`: flat, with a Mimi codec and no projector."""

    name = "kyutai_speech_to_text"
    classes = ("KyutaiSpeechToTextForConditionalGeneration",)
    entry = "codes"
    inputs = ("speech",)
    engine = False
    cacheless = False
    # `generate` wants samples and the forward pass wants codes: no inputs fit both.
    encoder_names = ("codec_model",)
    projector_names = ()
    no_training_reason = "its batches hold what it writes itself, since words and audio share positions"
    limits = (
        "measured on its own transcript, since words and audio share positions; takes no instruction; beyond its "
        "window (half a minute) its cache forgets, and the audit, one forward pass, does not"
    )

    def request(self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples], question: Question) -> Inputs:
        """What the decoder is given while the model transcribes `clips`, each by itself.

        Returns:
            `input_ids` (B, T, 1 + codebooks), a text token and the codes of an audio frame at each position, and
            `attention_mask` (B, T), padded on the left.
        """
        return _padded([self._own_run(model, processor, clip) for clip in clips], "left")

    def own_batch(
        self,
        model: PreTrainedModel,
        processor: Any,
        names: Sequence[str],
        samples: Sequence[Samples],
        *,
        response: bool,
        padding_side: str,
    ) -> PreparedBatch:
        """See `AudioLLM.own_batch`; with the response, the model's own, else up to where transcription begins."""
        import torch

        from shoal.models.batch import Kind, PreparedBatch

        if response:
            inputs = _padded([self._own_run(model, processor, clip) for clip in samples], padding_side)
            tokens = inputs["input_ids"][..., 0]
        else:
            inputs = self._heard(model, processor, samples)
            tokens = inputs["input_ids"]
        kinds = _kinds(tokens, inputs["attention_mask"], silent=(END_OF_PADDING, model.config.pad_token_id))
        token_ids = tokens.masked_fill(kinds == Kind.PAD, -1)
        empty = torch.zeros((*tokens.shape, 0), device=tokens.device)
        call = inputs if response else {}
        # It stops when the clip does, and writes no end.
        return PreparedBatch(list(names), empty, kinds, token_ids, call=call, inputs=inputs, ends=False)

    def token_limit(self, processor: Any, seconds: float, limit: int) -> int:
        """At least one token for each frame, with those of the silence around the clip."""
        extractor = processor.feature_extractor
        # One second more than the delay, as the feature extractor pads.
        around = extractor.audio_silence_prefix_seconds + extractor.audio_delay_seconds + 1
        return max(limit, math.ceil((seconds + around) * FRAMES_PER_SECOND))

    def silent_inputs(self, model: PreTrainedModel) -> dict[str, Tensor] | None:
        """Random text tokens and codes (2, T, 1 + codebooks), the first row left-padded."""
        import torch

        from shoal.models.random_tokens import random_codes

        config = model.config
        batch = super().silent_inputs(model) or {}
        codes = random_codes(config.codebook_vocab_size, (*batch["input_ids"].shape, config.num_codebooks))
        return batch | {"input_ids": torch.cat([batch["input_ids"].unsqueeze(-1), codes], dim=-1)}

    def _heard(self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples]) -> dict[str, Tensor]:
        """Keyword arguments of `generate`: samples, and the token that begins the text."""
        import torch

        codec: Any = model.codec_model
        audio = processor(audio=list(clips))
        begin = torch.full((len(clips), 1), int(model.config.bos_token_id), device=model.device)
        return {
            "input_ids": begin,
            "attention_mask": torch.ones_like(begin),
            "input_values": audio["input_values"].to(model.device, codec.dtype),
            "padding_mask": audio["padding_mask"].to(model.device),
        }

    def _own_run(self, model: PreTrainedModel, processor: Any, clip: Samples) -> Tensor:
        """What the decoder is given (T, 1 + codebooks) while the model transcribes one clip."""
        import torch

        steps: list[Tensor] = []

        def hook(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
            steps.append(kwargs["input_ids"][0])

        handle = self.decoder(model).register_forward_pre_hook(hook, with_kwargs=True)
        transcribe: Any = model.generate
        try:
            transcribe(**self._heard(model, processor, [clip]), do_sample=False, num_beams=1)
        finally:
            handle.remove()
        return torch.cat(steps)


def _padded(runs: Sequence[Tensor], side: str) -> dict[str, Tensor]:
    """Runs (T, 1 + codebooks) of several lengths as one batch."""
    from torch.nn.utils.rnn import pad_sequence

    ids, mask = (
        pad_sequence(rows, batch_first=True, padding_side=side)
        for rows in (list(runs), [run.new_ones(len(run)) for run in runs])
    )
    return {"input_ids": ids, "attention_mask": mask}


def _kinds(tokens: Tensor, mask: Tensor, *, silent: Sequence[int]) -> Tensor:
    """(B, T) values of `Kind`: text where a word is written, audio where the model only listens."""
    import torch

    from shoal.models.batch import Kind

    listens = torch.isin(tokens, torch.tensor(silent, device=tokens.device))
    kinds = torch.where(listens, int(Kind.AUDIO), int(Kind.TEXT))
    kinds[mask.cumsum(1) == 1] = int(Kind.PROMPT)
    return kinds.masked_fill(mask == 0, int(Kind.PAD)).to(torch.uint8)


FAMILY = KyutaiSpeechToText()
