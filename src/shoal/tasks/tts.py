"""Speech generation: say a text. Measured by the loss of the speech tokens of a clip that says it."""

from __future__ import annotations

from typing import Any, ClassVar

from shoal.tasks.base import Task
from shoal.tasks.settings import Answering


class Tts(Task):
    """The words of a clip are given, and the clip is the right answer, as the model's own codec writes it."""

    answers_in_speech: ClassVar[bool] = True

    listener: Any = None
    """A `shoal.evaluation.generated_speech.Listener`, where the model is to say the words too; see `heard_by`."""

    def heard_by(self, listener: Any) -> Tts:
        """The task with speech generated too, and the word error rate of what `listener` hears, the headline."""
        ways = tuple(dict.fromkeys(("decode", *self.answered_by)))
        names = tuple(dict.fromkeys(("WER", "CER", *self.scored_by)))
        task = Tts(self.settings.model_copy(update={"answered_by": ways, "scored_by": names}))
        task.listener = listener
        return task

    def only(self, *ways: Answering) -> Tts:
        """See `Task.only`; heard by the same recogniser."""
        task = super().only(*ways)
        task.listener = self.listener
        return task

    @property
    def decides(self) -> dict[str, Any]:
        """With the recogniser."""
        return super().decides | ({"asr": self.listener.identity} if self.listener else {})
