"""CSM: text and the codes of a Mimi codec in, the next frame's first code out; a small decoder gives the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from shoal.models.families.speech_generator import SpeechGenerator

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


class Csm(SpeechGenerator):
    """`CsmForConditionalGeneration`: the backbone is measured and pruned, the depth decoder stays as it is."""

    name = "csm"
    classes = ("CsmForConditionalGeneration",)
    encoder_names = ("codec_model",)
    generate_options: ClassVar[Mapping[str, Any]] = {"depth_decoder_do_sample": False}
    limits = "measured on the words of a clip followed by its codes; the depth decoder stays whole"

    def decoder(self, model: PreTrainedModel) -> nn.Module:
        """The backbone."""
        backbone: nn.Module = model.backbone_model
        return backbone

    def prompt(self, processor: Any, instruction: str) -> str:
        """What speaker 0 says, and how."""
        del instruction
        said = [{"type": "text", "text": self.mark(processor)}, {"type": "audio"}]
        return str(processor.apply_chat_template([{"role": "0", "content": said}], tokenize=False))

    def with_tokens(self, inputs: dict[str, Any], ids: Tensor, mask: Tensor) -> dict[str, Any]:
        """The default padding token of the config is the audio token, which would take a frame: pad with 0."""
        return super().with_tokens(inputs, ids * mask, mask)

    def silent_inputs(self, model: PreTrainedModel) -> dict[str, Tensor] | None:
        """Random text tokens."""
        from shoal.prune.probe import token_batch

        tokens = token_batch(model.config.text_vocab_size, pad=0, avoid=model.config.audio_token_id)
        ids = tokens["input_ids"]
        ids[ids == model.config.audio_eos_token_id] = 0
        return tokens


FAMILY = Csm()
