"""Language modelling: the transcripts as plain text, to see what the LLM itself loses."""

from __future__ import annotations

from typing import ClassVar

from shoal.tasks.base import Task


class Lm(Task):
    """The text stands alone; measured by its loss. Nothing is asked and nothing is heard."""

    plain_text: ClassVar[bool] = True
