"""Higgs Audio v2: a Llama whose layers have a second feed-forward network for audio, over text and delayed codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.models.batch import Kind
from shoal.models.families.speech_generator import SpeechGenerator

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from shoal.models.batch import PreparedBatch


class HiggsAudio(SpeechGenerator):
    """`HiggsAudioV2ForConditionalGeneration`."""

    name = "higgs_audio"
    classes = ("HiggsAudioV2ForConditionalGeneration",)
    encoder_names = ()
    limits = "measured on the words of a clip followed by its codes; its processor needs torchaudio for the codec"

    def head(self, model: PreTrainedModel) -> nn.Module | None:
        """What gives the codes of all codebooks at once."""
        head: nn.Module = model.audio_lm_head
        return head

    def audio_tokens(self, model: PreTrainedModel, processor: Any) -> tuple[int, ...]:
        """Of frames, and of those at the end in which the later codebooks catch up."""
        return (model.config.audio_token_id, model.config.audio_delay_token_id)

    def prompt(self, processor: Any, instruction: str) -> str:
        """The user's text, and the assistant's speech."""
        turns = [
            {"role": "user", "content": [{"type": "text", "text": self.mark(processor)}]},
            {"role": "assistant", "content": [{"type": "audio"}]},
        ]
        return str(processor.apply_chat_template(turns, tokenize=False))

    def spoken_losses(self, model: PreTrainedModel, batch: PreparedBatch) -> tuple[Tensor, Tensor]:
        """The codes of all codebooks at once, as they are delayed; the marks of their ends included."""
        from torch.nn.functional import cross_entropy

        config = model.config
        logits = model(**batch.inputs, use_cache=False).logits
        logits = logits.view(*logits.shape[:2], config.num_codebooks, config.codebook_size).float()
        frame = batch.kinds == Kind.AUDIO
        clips, positions = frame.nonzero(as_tuple=True)
        codes = batch.inputs["audio_input_ids"][batch.inputs["audio_input_ids_mask"].bool()]  # (F, codebooks)
        losses = cross_entropy(logits[clips, positions - 1].flatten(0, 1), codes.flatten(), reduction="none")
        return losses, clips.repeat_interleave(config.num_codebooks)

    def silent_inputs(self, model: PreTrainedModel) -> dict[str, Tensor] | None:
        """Random tokens, and random codes at the end of both rows: layers treat the two apart."""
        import torch

        from shoal.models.random_tokens import LENGTHS, random_codes, token_batch

        config = model.config
        tokens = token_batch(config.vocab_size, avoid=config.audio_delay_token_id)
        ids, frames = tokens["input_ids"], min(LENGTHS) - 2
        ids[ids == config.audio_token_id] = 0
        ids[:, -frames:] = config.audio_token_id
        codes = random_codes(config.codebook_size, (len(ids), frames, config.num_codebooks))
        mask = torch.ones(codes.shape[:2], dtype=torch.bool)
        return tokens | {"audio_input_ids": codes, "audio_input_ids_mask": mask}


FAMILY = HiggsAudio()
