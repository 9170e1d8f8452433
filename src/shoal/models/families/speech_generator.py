"""What the speech generators of transformers have in common: words in, speech out, frame by frame.

They are measured teacher-forced, on the words of a clip followed by the clip itself: the course of generation when it
says just that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from shoal.models.families.audio_llm import AudioLLM, Inputs, Question, Samples

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from shoal.models.batch import TokenRow


class SpeechGenerator(AudioLLM):
    """A model that answers in speech only: it can be audited and pruned, but there is no text to score.

    `prompt` has the clip where the answer stands, and no words.
    """

    entry = "codes"
    inputs = ("speech",)
    engine = False
    writes = False
    generates_speech = True
    # Without a cache their `generate` merges the prompt with its audio again at every step, or does not run.
    cacheless = False
    projector_names: ClassVar[tuple[str, ...]] = ()

    def mark(self, processor: Any) -> str:
        """A token that marks in the prompt where the words belong; it stands there before it stands anywhere else."""
        return str(processor.audio_eos_token)

    def words_at(self, processor: Any) -> int:
        """How many tokens of the prompt precede the words that are to be said."""
        before = self.prompt(processor, "").partition(self.mark(processor))[0]
        return len(processor.tokenizer(before, add_special_tokens=False)["input_ids"])

    def request(self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples], question: Question) -> Inputs:
        """The prompt without the mark, and the clips as their answers."""
        text = self.prompts(processor, question, len(clips))
        inputs = processor(text=text, audio=list(clips), return_tensors="pt", padding=True)
        return dict(inputs) | _without(inputs, processor.tokenizer.convert_tokens_to_ids(self.mark(processor)))

    def with_response(self, processor: Any, line: TokenRow, ids: Sequence[int], samples: Samples) -> TokenRow:
        """The words in their place, before the audio."""
        from shoal.models.batch import Kind

        position = self.words_at(processor)
        return line.replaced(position, position, ids, Kind.TEXT)


def _without(inputs: Mapping[str, Tensor], mark: int) -> dict[str, Tensor]:
    """Tokens and mask without the first `mark` of every row."""
    marks = inputs["input_ids"] == mark
    stays = ~(marks & (marks.cumsum(1) == 1))
    return {name: inputs[name][stays].view(len(marks), -1) for name in ("input_ids", "attention_mask")}
