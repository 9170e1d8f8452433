"""The words of generated speech: a speech generator says a text, and a recogniser writes down what it hears.

What is scored is then the generator and the recogniser together: the errors that the recogniser makes on good speech
are there for the unpruned model too, so the difference between the two is what pruning did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal import tasks
from shoal.data.clip import SAMPLE_RATE, Clip, Row
from shoal.decoder.prepare import prepare
from shoal.errors import UsageError
from shoal.evaluation.generate import decoded, written
from shoal.evaluation.model_checks import check_hears
from shoal.evaluation.settings import TokenLimit, limit_of
from shoal.models.families.audio_llm import AudioLLM, Samples

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

TIMES_AS_LONG, SECONDS_MORE = 2.0, 1.0
"""Speech is cut where it gets this much longer than the clip that says the same: a generator that goes on and on."""
SHORTEST = 0.1
"""Seconds; what is shorter says nothing."""


@dataclass(frozen=True, slots=True)
class RecognisedSpeech:
    """What was heard of one clip's words."""

    clip: Clip
    text: str
    truncated: bool
    """Whether the speech was cut."""
    seconds: float
    """Of speech."""


class Recogniser:
    """A recogniser that writes down generated speech.

    Args:
        asr: a SpeechLLM.

    Raises:
        UsageError: it cannot hear.
    """

    def __init__(self, asr: LoadedModel) -> None:
        check_hears(asr)
        self._asr, self._task, self._limit = asr, tasks.get("asr"), TokenLimit()

    @property
    def identity(self) -> dict[str, Any]:
        """Which recogniser: part of what decides raw outputs."""
        return {"fingerprint": self._asr.info().fingerprint, "note": {"ref": self._asr.ref}}

    def languages_told(self, languages: Sequence[str | None]) -> tuple[str | None, ...]:
        """See `LoadedModel.languages_told`."""
        return self._asr.languages_told(self._task, languages)

    @property
    def longest(self) -> float:
        """Seconds of a clip that it hears at most."""
        family = self._asr.family
        seconds = family.longest(self._asr.processor) if isinstance(family, AudioLLM) else None
        return np.inf if seconds is None else seconds

    def hear(self, clips: Sequence[Clip]) -> list[str]:
        """What is said in each clip, greedily; nothing in one that is too short to say anything."""
        texts = [""] * len(clips)
        audible = [index for index, clip in enumerate(clips) if clip.row.duration >= SHORTEST]
        if audible:
            for index, text in zip(audible, self._written([clips[index] for index in audible]), strict=True):
                texts[index] = text
        return texts

    def _written(self, clips: Sequence[Clip]) -> list[str]:
        asr = self._asr
        batch = prepare(asr, clips, self._task, input="speech", response=False, padding_side="left")
        limits = [limit_of(asr, self._limit, clip.row) for clip in clips]
        return written(asr, decoded(asr, batch, limits).tokens)


def check_answers_in_speech(task: Task) -> tasks.Tts:
    """The task, answered in speech.

    Raises:
        UsageError: it is answered in words.
    """
    if not isinstance(task, tasks.Tts):
        raise UsageError(
            f"the task {task.name} is not answered in speech", where="--asr", fix="leave it out, or choose --task tts"
        )
    return task


def with_recogniser(task: Task, asr: LoadedModel) -> Task:
    """A task that is answered in speech, with the word error rate of what `asr` hears beside the loss.

    Raises:
        UsageError: the task is answered in words, or `asr` cannot hear.
    """
    return check_answers_in_speech(task).heard_by(Recogniser(asr))


def without_unmeasurable_loss(task: Task, loaded: LoadedModel, rows: Sequence[Row]) -> Task:
    """A spoken task as it can be asked of these rows.

    Where what makes a model's speech tokens of audio is not at hand, the rows hold the tokens; with none in any row,
    the words that are heard are what is left to score.

    Raises:
        ManifestError: a row lacks its speech tokens, and others have them or nothing is heard.
    """
    family = loaded.family
    if not task.answers_in_speech or "loss" not in task.answered_by or not isinstance(family, AudioLLM):
        return task
    if not family.tokens_field:
        return task
    if "decode" in task.answered_by and not any(family.tokens_field in row.fields for row in rows):
        return task.only("decode")
    for row in rows:
        family.check_spoken(row)
    return task


def recognised(
    loaded: LoadedModel, clips: Sequence[Clip], task: Task, listener: Recogniser
) -> Iterator[RecognisedSpeech]:
    """Let a model, pruned or not, say the words of clips, and write down what is heard.

    Args:
        loaded: a speech generator.
        clips: B clips; their words are said, their audio is not used.
        task: says which words.
        listener: hears.
    """
    family = loaded.family
    assert isinstance(family, AudioLLM)
    most = [min(TIMES_AS_LONG * clip.row.duration + SECONDS_MORE, listener.longest) for clip in clips]
    words = [task.target(clip.row) for clip in clips]
    speech = family.speak(loaded.model, loaded.processor, words, max(most), task.instruction)
    spoken = [
        _cut(samples, family.spoken_rate(loaded.processor), seconds)
        for samples, seconds in zip(speech, most, strict=True)
    ]
    generated = [_clip(clip, samples) for clip, (samples, _) in zip(clips, spoken, strict=True)]
    for clip, speech_clip, (_, cut), text in zip(clips, generated, spoken, listener.hear(generated), strict=True):
        yield RecognisedSpeech(clip, text, cut, speech_clip.row.duration)


def _cut(samples: Samples, rate: int, seconds: float) -> tuple[Samples, bool]:
    """At 16 kHz, and whether it reached `seconds`."""
    import soxr

    most = int(seconds * rate)
    kept = samples[:most]
    resampled: Samples = soxr.resample(kept, rate, SAMPLE_RATE).astype("float32") if len(kept) else kept
    return resampled, len(samples) >= most


def _clip(clip: Clip, samples: Samples) -> Clip:
    row = Row(clip.id, Path("generated"), len(samples) / SAMPLE_RATE, lang=clip.row.lang)
    return Clip(row, np.nan_to_num(samples))
