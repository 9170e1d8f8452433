"""Qwen3-Omni: a mixture-of-experts thinker with visual deepstack, and a talker that reads one of its inner states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shoal.models.families import fields
from shoal.models.families.audio_llm import PER_TOKEN, Inputs, Question, Samples
from shoal.models.families.omni import Omni, thinker_config

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

TALKER_READS = ("talker_config", "accept_hidden_layer")
"""Which state of the thinker the talker reads: the k-th is what k layers have made of the embeddings."""


class Qwen3OmniMoe(Omni):
    """`Qwen3OmniMoeForConditionalGeneration`, and its thinker alone."""

    name = "qwen3_omni_moe"
    classes = ("Qwen3OmniMoeThinkerForConditionalGeneration", "Qwen3OmniMoeForConditionalGeneration")
    limits = (
        "The first layers, to whose states images are added, cannot be removed. A clip shorter than a second is "
        "encoded a little differently beside longer ones."
    )

    def request(self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples], question: Question) -> Inputs:
        """One by one, then stacked: beside a longer clip, padding would leak into the last frame of its spectrum."""
        from shoal.models.batch import padded

        text = self.prompt(processor, question.instruction)
        rows = [dict(processor(text=[text], audio=[clip], return_tensors="pt")) for clip in clips]
        pad = int(getattr(processor.tokenizer, "pad_token_id", None) or 0)
        return {
            name: padded([row[name] for row in rows], left=name in PER_TOKEN, value=pad if name == "input_ids" else 0)
            for name in rows[0]
        }

    def other_fields(self, config: PreTrainedConfig, depth: int, keep: Sequence[int]) -> Mapping[tuple[str, ...], Any]:
        """The number of the state that the talker reads.

        Raises:
            ModelError: a layer goes to whose state images are added, or the state that the talker reads.
        """
        _keep_deepstack(thinker_config(config), keep)
        if not getattr(config, "enable_audio_output", False):
            return {}
        return {TALKER_READS: _state_read(config.talker_config, depth, keep)}

    def limits_of(self, class_name: str) -> str:
        """The talker is the whole model's."""
        return self.limits + (
            " The talker was trained on the whole thinker's states." if self.speaks(class_name) else ""
        )


def _keep_deepstack(config: Any, keep: Sequence[int]) -> None:
    """Visual features are added behind the first layers, by their place, one set for each."""
    indexes = config.vision_config.deepstack_visual_indexes
    if gone := sorted(set(range(len(indexes))) - set(keep)):
        raise fields.refusal(
            config.vision_config,
            "deepstack_visual_indexes",
            f"adds images behind each of the first {len(indexes)} layers, of which {gone} would go",
        )


def _state_read(talker: Any, depth: int, keep: Sequence[int]) -> int:
    """How many layers are left before the state that the talker reads.

    The last state of all is the normed one, so a state inside must not become the last.
    """
    read = int(talker.accept_hidden_layer)
    left = sum(layer < read for layer in keep)
    if not 0 < read <= depth or left == 0 or (left == len(keep) and read < depth):
        raise fields.refusal(
            talker, "accept_hidden_layer", f"lets the talker read state {read}, which would be another"
        )
    return left


FAMILY = Qwen3OmniMoe()
