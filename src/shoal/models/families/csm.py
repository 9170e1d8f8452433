"""CSM: text and the codes of a Mimi codec in, the next frame's first code out; a small decoder gives the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from shoal.models.families.audio_llm import Samples
from shoal.models.families.speech_generator import SpeechGenerator

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from shoal.models.batch import PreparedBatch


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
        content = [{"type": "text", "text": self.mark(processor)}, {"type": "audio"}]
        return str(processor.apply_chat_template([{"role": "0", "content": content}], tokenize=False))

    def with_tokens(self, inputs: dict[str, Any], ids: Tensor, mask: Tensor) -> dict[str, Any]:
        """The default padding token of the config is the audio token, which would take a frame: pad with 0."""
        return super().with_tokens(inputs, ids * mask, mask)

    def spoken_losses(self, model: PreTrainedModel, batch: PreparedBatch) -> tuple[Tensor, Tensor]:
        """The first code of every frame by the backbone, the others by the depth decoder; the last frame is the end."""
        import torch
        from torch.nn.functional import cross_entropy

        inputs = {name: batch.inputs[name] for name in ("input_ids", "input_values", "input_values_cutoffs")}
        # The class puts the codes of every frame into the labels, whatever stands there.
        labels = torch.full_like(inputs["input_ids"], -100)
        output = model(**batch.inputs, labels=labels, use_cache=False)
        merge: Any = model._merge_input_ids_with_input_values
        codes = merge(**inputs, labels=labels)["labels"]  # (B, T, codebooks)
        clips, positions = (codes[..., 0] != -100).nonzero(as_tuple=True)
        frames = codes[clips, positions]  # (F, codebooks)
        first = cross_entropy(output.logits[clips, positions - 1].float(), frames[:, 0], reduction="none")
        others = output.depth_decoder_logits.float().view(*frames[:, 1:].shape, -1)
        rest = cross_entropy(others.flatten(0, 1), frames[:, 1:].flatten(), reduction="none")
        return torch.cat([first, rest]), torch.cat([clips, clips.repeat_interleave(frames.shape[1] - 1)])

    def speak(
        self, model: PreTrainedModel, processor: Any, texts: Sequence[str], seconds: float, instruction: str = ""
    ) -> list[Samples]:
        """Speaker 0 says each text; codes that the codec does not have are taken for its last."""
        import torch

        from shoal.models.contexts import quiet

        before, after = self.prompt(processor, "").split(self.mark(processor), 1)
        after = after.partition(processor.audio_token)[0]
        inputs = processor.tokenizer(
            [f"{before}{text}{after}" for text in texts],
            add_special_tokens=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(model.device)
        codec: Any = model.codec_model
        frames = math.ceil(seconds * codec.config.frame_rate)
        with torch.no_grad(), quiet():
            generate: Any = model.generate
            codes = generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                do_sample=False,
                max_new_tokens=frames,
                **self.generate_options,
            )  # (B, F, codebooks)
            return [_samples(codec, clip_codes, model.config.codebook_eos_token_id) for clip_codes in codes]

    def silent_inputs(self, model: PreTrainedModel) -> dict[str, Tensor] | None:
        """Random text tokens."""
        from shoal.models.random_tokens import token_batch

        tokens = token_batch(model.config.text_vocab_size, pad=0, avoid=model.config.audio_token_id)
        ids = tokens["input_ids"]
        ids[ids == model.config.audio_eos_token_id] = 0
        return tokens


def _samples(codec: Any, codes: Tensor, end: int) -> Samples:
    """What the codec makes of codes (F, codebooks), up to the frame that is the end."""
    ends = (codes == end).all(dim=-1).nonzero()
    frames = codes[: int(ends.min())] if len(ends) else codes
    if not len(frames):
        return np.zeros(0, dtype=np.float32)
    frames = frames.clamp(max=codec.config.codebook_size - 1)
    samples: Samples = codec.decode(frames.T[None]).audio_values[0, 0].float().cpu().numpy()
    return samples


FAMILY = Csm()
