"""Whether a model can do what a task asks: hear, write or speak, and be scored that way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.errors import UsageError
from shoal.models.families.audio_llm import AudioLLM

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task


def check_hears(loaded: LoadedModel) -> None:
    """Refuse a model without an encoder.

    Raises:
        UsageError: it has none.
    """
    loaded.check_fed()
    if not loaded.family.writes:
        raise UsageError(
            f"{loaded.ref} answers in speech only, which is not text to be scored",
            where="MODEL",
            fix="choose --task tts, and listen to what the pruned model says",
        )
    if "speech" not in loaded.inputs:
        raise UsageError(
            f"{loaded.ref} takes no speech and cannot hear",
            where="MODEL",
            fix="give a SpeechLLM, such as pkg:reference",
        )


def check_can_answer(loaded: LoadedModel, task: Task) -> None:
    """Refuse a model that cannot do `task`.

    Raises:
        UsageError: it cannot hear, write or speak, as the task needs it, or its answers cannot be scored that way.
        ModelError: the checkpoint lacks the part that speaks.
    """
    if task.answers_in_speech:
        _check_speaks(loaded, task)
    elif task.input == "speech":
        check_hears(loaded)
        _check_has_likelihoods(loaded, task)
    else:
        loaded.check_fed()
        if "text" not in loaded.inputs or not loaded.family.writes:
            raise UsageError(
                f"{loaded.ref} takes no text, which the task {task.name} is about",
                where="MODEL",
                fix="give a SpeechLLM or a text LLM",
            )


def _check_speaks(loaded: LoadedModel, task: Task) -> None:
    loaded.check_fed()
    known = isinstance(loaded.family, AudioLLM) and loaded.family.speech_tokens
    if not isinstance(loaded.family, AudioLLM) or ("loss" in task.answered_by and not known):
        raise UsageError(
            f"the loss of speech tokens is not known for {loaded.ref} ({type(loaded.model).__name__}), "
            f"and the task {task.name} is measured by it",
            where="MODEL",
            fix="give a speech generator whose tokens are known, such as CSM",
        )
    loaded.family.check_talks(loaded.model)
    if "decode" not in task.answered_by:
        return
    if not loaded.family.says:
        raise UsageError(
            f"how {loaded.ref} ({type(loaded.model).__name__}) says a given text is not known",
            where="--asr",
            fix="leave it out: the loss of the speech tokens needs no recogniser",
        )
    if getattr(task, "listener", None) is None:
        raise UsageError(
            f"the task {task.name} is scored by what a recogniser hears, and there is none",
            where="--asr",
            fix="name a SpeechLLM that recognises speech",
        )


def _check_has_likelihoods(loaded: LoadedModel, task: Task) -> None:
    """A model that writes a word when it hears it has no likelihood of a given answer."""
    family = loaded.family
    by_likelihood = {"choose", "loss"} & set(task.answered_by)
    if by_likelihood and isinstance(family, AudioLLM) and family.no_training_reason:
        raise UsageError(
            f"the likelihood of a given answer is not known for {loaded.ref}: {family.no_training_reason}",
            where="MODEL",
            fix=f"leave it out: in a YAML of kind {task.settings.kind} write answered_by: [decode] and such scores",
        )
