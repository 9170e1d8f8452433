"""What the audio LLMs of transformers have in common: their own class, their own processor.

A family file of such a model is a subclass of `AudioLLM` that names its classes and says where they differ. By
default a model takes audio in *slots*: its processor puts one audio token where each projected frame will stand.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from shoal.errors import ModelError
from shoal.models.batch import Kind
from shoal.models.families.base import Family

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from shoal.data.clip import Clip, Row
    from shoal.models.batch import PreparedBatch, TokenRow
    from shoal.schema import InputKind
    from shoal.tasks import Task

Samples = npt.NDArray[np.float32]
Inputs = dict[str, Any]
"""Keyword arguments of `model(**inputs)`."""
Entry = Literal["slot", "added", "cross", "codes", "none"]
"""How audio enters the decoder: in the place of audio tokens, added to every token's embedding, by cross-attention, as
tokens of an audio codec, or not at all here (speech comes out of the model, not in)."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about the clips of a batch."""

    instruction: str
    """In words."""
    languages: tuple[str | None, ...] = ()
    """Code of the language spoken in each clip, None where it is not known; empty: no language is known."""
    into: str | None = None
    """Code of the language of the answers, where the task names one."""
    transcribe: bool = False
    """Whether the answer is what is said, in the language in which it is said."""

    def spoken(self, clips: int) -> tuple[str | None, ...]:
        """`languages`, one for each of so many clips."""
        return self.languages or (None,) * clips


PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""Inputs with one value for each token."""


class AudioLLM(Family):
    """A class of transformers that hears, loaded and fed by its own class and processor."""

    classes: ClassVar[tuple[str, ...]]
    """The classes of transformers that the family covers."""
    entry: ClassVar[Entry] = "slot"
    tokens: ClassVar[tuple[str, str]] = ("input_ids", "attention_mask")
    """The inputs that hold the decoder's tokens (B, T) and their mask; others where an encoder has the usual names."""
    inputs: ClassVar[tuple[InputKind, ...]] = ("speech", "text")
    """What can be measured: text takes the place of the audio only where audio has a place of its own."""
    engine: ClassVar[bool] = True
    """Whether the decoder and the head, fed with embeddings, decode as `generate` does; else `generate` decodes."""
    generates_speech: ClassVar[bool] = False
    """Whether the model, or a part that reads its decoder's states, answers in speech."""
    encodes_one_by_one: ClassVar[bool] = False
    """Whether what is heard in a clip depends on the clips it is padded with; then each is encoded by itself."""
    one_window: ClassVar[bool] = False
    """Whether the model hears one window of its (Whisper-like) feature extractor and no more."""
    whole_windows: ClassVar[bool] = False
    """Whether the encoder has one position embedding, or one mask, for a whole window, to which clips are padded."""
    template_options: ClassVar[Mapping[str, Any]] = {}
    """What the chat template is told besides, such as to leave out thinking."""
    no_training_reason: ClassVar[str] = ""
    """Why the model cannot be trained on given transcripts, where batches do not hold them as it would write them."""
    tokens_field: ClassVar[str] = ""
    """The manifest's field for the speech tokens of a clip, where what makes them of audio is not at hand."""
    limits: ClassVar[str] = ""
    """What a user should know that does not follow from the other fields; one sentence for the table."""

    def limits_of(self, class_name: str) -> str:
        """`limits`, for one of `classes`."""
        return self.limits

    def speaks(self, class_name: str) -> bool:
        """`generates_speech`, for one of `classes`."""
        return self.generates_speech

    def matches(self, model: PreTrainedModel) -> bool:
        """Whether the model's class is one of `classes`."""
        return type(model).__name__ in self.classes

    def inputs_of(self, model: PreTrainedModel, processor: Any) -> tuple[InputKind, ...]:
        """What `model` can be measured with: nothing without a processor."""
        return self.inputs if processor is not None else ()

    def lm(self, model: PreTrainedModel) -> nn.Module:
        """What gives logits from embeddings in the decode engine."""
        from shoal.models.families.decoder_call import DecoderWithHead

        return DecoderWithHead(model, self)

    def audio_token(self, model: PreTrainedModel, processor: Any) -> int | None:
        """The token that stands where audio will stand; None where there is none."""
        named = ("audio_token_id", "audio_token_index")
        values = [getattr(source, name, None) for source in (model.config, processor) for name in named]
        return next((value for value in values if isinstance(value, int)), None)

    def audio_tokens(self, model: PreTrainedModel, processor: Any) -> tuple[int, ...]:
        """All tokens in whose place audio stands."""
        token = self.audio_token(model, processor)
        return () if token is None else (token,)

    def sampling_rate(self, processor: Any) -> int:
        """What the processor expects, Hz."""
        extractor = getattr(processor, "feature_extractor", None) or getattr(processor, "audio_processor", None)
        return int(getattr(extractor, "sampling_rate", 16_000))

    def longest(self, processor: Any) -> float | None:
        """Seconds of a clip that the model hears at most, since its processor cuts off the rest; None: no limit."""
        if self.one_window:
            return float(processor.feature_extractor.n_samples / processor.feature_extractor.sampling_rate)
        limit = getattr(processor, "max_audio_len", None)
        return None if limit is None else float(limit)

    def languages(self, model: PreTrainedModel, *, transcribe: bool) -> Collection[str]:
        """Codes of the languages that the model can be told a clip is spoken in; empty: it takes none.

        Args:
            model: the model, for what its checkpoint knows.
            transcribe: whether it is asked for what is said, and for nothing else.
        """
        return ()

    def prompts(self, processor: Any, question: Question, clips: int) -> list[str]:
        """`prompt`, for each of so many clips."""
        return [self.prompt(processor, question.instruction)] * clips

    def prompt(self, processor: Any, instruction: str) -> str:
        """The whole prompt as text, with the processor's placeholder for one clip.

        Raises:
            ModelError: the checkpoint has no chat template.
        """
        return self.rendered(processor, [{"type": "audio"}, {"type": "text", "text": instruction}])

    def rendered(self, processor: Any, content: list[dict[str, str]]) -> str:
        """The prompt for one turn of the user's, up to where the answer begins.

        Raises:
            ModelError: the checkpoint has no chat template.
        """
        template = self.chat_template(processor)
        options = dict(self.template_options)
        if not getattr(processor, "chat_template", None):
            # Some processors drop the template of their folder; their tokenizers have it.
            options["chat_template"] = template
        turn = {"role": "user", "content": content}
        return str(processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False, **options))

    def chat_template(self, processor: Any) -> str:
        """The processor's chat template, or its tokenizer's.

        Raises:
            ModelError: the checkpoint has no chat template.
        """
        for source in (processor, processor.tokenizer):
            if template := getattr(source, "chat_template", None):
                return str(template)
        raise ModelError(
            "the checkpoint has no chat template, so its prompt is not known",
            where=type(processor).__name__,
            fix="add the model's chat_template.jinja to the folder",
        )

    def request(self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples], question: Question) -> Inputs:
        """The model's inputs for a batch of clips and one question, up to where the response begins.

        Args:
            model: the model, for what the processor does not know.
            processor: the checkpoint's own.
            clips: float32 samples (n,), mono, at `sampling_rate`.
            question: what is asked.

        Returns:
            Keyword arguments of `model(**inputs)`: `input_ids` and `attention_mask` (B, T), padded on either side, and
            the audio.
        """
        text = self.prompts(processor, question, len(clips))
        if self.whole_windows:
            # A padding asked for here would reach the audio too, and shorten the window.
            return dict(processor(text=text, audio=list(clips)))
        return dict(processor(text=text, audio=list(clips), return_tensors="pt", padding=True))

    def response(self, text: str) -> str:
        """`text` as the model writes it when it is the answer."""
        return text

    def call(self, model: PreTrainedModel, inputs: dict[str, Any]) -> dict[str, Any]:
        """See `decoder_call`."""
        from shoal.models.families.decoder_call import decoder_call

        return decoder_call(model, self, self.forward_inputs(model, inputs))

    def with_response(self, processor: Any, line: TokenRow, ids: Sequence[int], samples: Samples) -> TokenRow:
        """One row of a batch with its response.

        Args:
            processor: the checkpoint's own.
            line: the row up to where the response begins.
            ids: the response (n,).
            samples: what is heard in the row.
        """
        return line.then(ids, Kind.TEXT)

    def own_batch(
        self,
        model: PreTrainedModel,
        processor: Any,
        names: Sequence[str],
        samples: Sequence[Samples],
        *,
        response: bool,
        padding_side: str,
    ) -> PreparedBatch | None:
        """A batch that is not made of a prompt's tokens, for a model whose words and audio share positions.

        Args:
            model: the model.
            processor: the checkpoint's own.
            names: of the clips.
            samples: the clips, as for `request`.
            response: up to the end of the response, else up to where it begins.
            padding_side: `left` or `right`.

        Returns:
            The batch; None where there is nothing unusual about it.
        """
        return None

    @property
    def speech_tokens(self) -> bool:
        """Whether the loss of the speech tokens of a clip, given its words, is known: see `spoken_losses`."""
        return type(self).spoken_losses is not AudioLLM.spoken_losses

    def check_talks(self, model: PreTrainedModel) -> None:
        """Make sure that `model` has the parts that speak, where a checkpoint of its class may lack them.

        Raises:
            ModelError: one is not there.
        """

    def check_spoken(self, row: Row) -> None:
        """Make sure that a row holds the speech tokens, where there is a `tokens_field`.

        Raises:
            ManifestError: it does not.
        """

    def spoken_batch(
        self, model: PreTrainedModel, processor: Any, clips: Sequence[Clip], task: Task
    ) -> PreparedBatch | None:
        """What `spoken_losses` takes; None where that is the clips with their words, padded on the right."""
        return None

    def spoken_losses(self, model: PreTrainedModel, batch: PreparedBatch) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the speech tokens of each clip, teacher-forced, given its words.

        Args:
            model: the model, with or without all its layers.
            batch: B clips with their words, from `spoken_batch`.

        Returns:
            Nats (N,) for each of the codes of all codebooks and frames, the end included where the model is given one,
            and the clips (N,) int64 that they belong to.

        Raises:
            ModelError: the model has no speech tokens, or what they are is not known here.
        """
        raise ModelError(
            "the loss of its speech tokens is not known",
            where=type(model).__name__,
            fix="add `spoken_losses` to its family in shoal/models/families",
        )

    @property
    def says(self) -> bool:
        """Whether `speak` is there."""
        return type(self).speak is not AudioLLM.speak

    def spoken_rate(self, processor: Any) -> int:
        """Of what `speak` gives, Hz: by default that of what is heard."""
        return self.sampling_rate(processor)

    def speak(
        self, model: PreTrainedModel, processor: Any, texts: Sequence[str], seconds: float, instruction: str = ""
    ) -> list[Samples]:
        """Say texts, greedily, by the class's own `generate` and the codec inside the checkpoint.

        Args:
            model: the model, with or without all its layers.
            processor: the checkpoint's own.
            texts: what to say.
            seconds: where speech that has not ended is cut, to the frame above.
            instruction: what a model is told that does not take every text for one to say.

        Returns:
            Samples (n,) of each at `spoken_rate`; none where the model ends at once.

        Raises:
            ModelError: the class does not speak, or how it does is not known here.
        """
        raise ModelError(
            "how it says a given text is not known",
            where=type(model).__name__,
            fix="add `speak` to its family in shoal/models/families",
        )

    def with_tokens(self, inputs: dict[str, Any], ids: Tensor, mask: Tensor) -> dict[str, Any]:
        """The model's inputs with other tokens `ids` and their `mask`, both (B, T), in the place of the request's."""
        return inputs | dict(zip(self.tokens, (ids, mask), strict=True))

    def silent_inputs(self, model: PreTrainedModel) -> dict[str, Tensor] | None:
        """A batch without audio, on which a checkpoint is verified: random tokens (2, T), the first row left-padded.

        Returns:
            Keyword arguments of `model(**inputs)`; None where the model cannot run without audio.
        """
        from shoal.models.random_tokens import token_batch

        config = self.text_config(model)
        pad = getattr(config, "pad_token_id", None) or 0
        return token_batch(config.vocab_size, pad=pad, avoid=self.audio_token(model, None))

    def without_audio(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What of `inputs` is left when no audio is heard: what belongs to the tokens."""
        return {name: value for name, value in inputs.items() if name in PER_TOKEN}
