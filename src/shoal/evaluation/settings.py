"""What decides the outputs, and what decides the intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BeforeValidator, Field

from shoal.settings import OUTPUT, SPEED, Intervals, Settings

if TYPE_CHECKING:
    from shoal.data.clip import Row
    from shoal.evaluation.comet import Comet
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

BASE_TOKENS = 16
TOKENS_PER_SECOND = 20
MOST_TOKENS = 448
"""The automatic limit. Fast English speech is about 6 tokens a second; 20 leave room for scripts that take
several tokens a letter. A limit that follows the clip keeps a loop on a short clip from outweighing the rest
of the corpus."""


@dataclass(frozen=True, slots=True)
class TokenLimit:
    """How many tokens a clip may get: a fixed number, or None for one that follows its duration."""

    fixed: int | None = None

    @classmethod
    def recorded(cls, decoding: Mapping[str, Any]) -> TokenLimit | None:
        """The limit whose `label` stands in a record; None where there is none, or of another rule than today's."""
        label = decoding.get("max_new_tokens")
        if isinstance(label, int):
            return cls(label)
        return cls() if label == cls().label else None

    def of(self, row: Row) -> int:
        """The limit for one clip, end token included."""
        return self.of_seconds(row.duration)

    def of_seconds(self, seconds: float) -> int:
        """The limit for a clip of this length."""
        if self.fixed is not None:
            return self.fixed
        return min(MOST_TOKENS, BASE_TOKENS + math.ceil(TOKENS_PER_SECOND * seconds))

    @property
    def label(self) -> int | str:
        """For the record."""
        if self.fixed is not None:
            return self.fixed
        return f"{BASE_TOKENS} + {TOKENS_PER_SECOND} a second, at most {MOST_TOKENS}"


def _batch_size(value: object) -> object:
    if value == "auto" or (str(value).isdecimal() and int(str(value)) > 0):
        return value
    raise ValueError(f"{value!r} is not a batch size; give a number above 0, or auto")


class DecodingSettings(Settings):
    """How clips are decoded."""

    batch_size: Annotated[
        int | Literal["auto"], BeforeValidator(_batch_size), SPEED, Parameter(metavar="N|auto", show_choices=False)
    ] = 16
    """Clips decoded at once, at most; auto is as many as the free memory allows."""
    max_new_tokens: Annotated[int | None, SPEED] = Field(default=None, ge=1)
    """Most tokens a clip may get; default: 16, and 20 more for every second of audio, up to 448."""

    @property
    def limit(self) -> TokenLimit:
        """How many tokens a clip may get."""
        return TokenLimit(self.max_new_tokens)


class AnswerSettings(DecodingSettings):
    """How clips are decoded, and with which audio."""

    controls: Annotated[bool, Parameter(negative="--no-controls")] = False
    """Answer every clip with the audio of another clip and with silence, too: is the model still listening?"""


class ScoringSettings(Intervals):
    """How outputs are scored, and what is written of them."""

    group_by: Annotated[tuple[str, ...] | None, Parameter(metavar="FIELD")] = None
    """Field of the manifest whose groups are scored apart; default: the speaker, where known. The data set is added
    where there are several. Many different ages (age) become bands of ten years. Repeatable."""
    out_of_domain: Annotated[tuple[str, ...], Parameter(metavar="SET")] = ()
    """Name of a data set that is unlike the others; these data sets are scored together, and so are the others.
    Repeatable."""
    comet: Annotated[str | None, Parameter(metavar="MODEL")] = None
    """COMET model, a checkpoint or a name, that scores translations too; it runs in the Python that the variable
    SHOAL_COMET_PYTHON names."""
    exports: Annotated[tuple[str, ...], OUTPUT, Parameter(name="--export", metavar="FORMAT")] = ()
    """Format to write the outputs in, under exports/: lm-eval, nemo or trn. Repeatable."""

    @property
    def intervals(self) -> dict[str, Any]:
        """How intervals were made, for the record."""
        return self.model_dump(include=set(Intervals.model_fields))

    def scorer(self, task: Task, out: Path | None) -> Comet | None:
        """Make sure, before anything is decoded, that all of this can be done; returns COMET if it is asked for.

        Raises:
            UsageError: it cannot.
        """
        from shoal.evaluation.comet import Comet
        from shoal.evaluation.export import check_formats

        check_formats(self.exports, out)
        return None if self.comet is None else Comet.of(self.comet, task)


class EvaluateSettings(AnswerSettings, ScoringSettings):
    """How clips are decoded, and outputs scored."""

    force: Annotated[bool, OUTPUT] = False
    """Score only what is asked for now, where the folder holds scores of other clips or of more systems."""


def limit_of(loaded: LoadedModel, limit: TokenLimit, row: Row) -> int:
    """The limit for one clip; a model may need more than the automatic one, but not more than the user allows."""
    tokens = limit.of(row)
    if limit.fixed is not None:
        return tokens
    return loaded.family.token_limit(loaded.processor, row.duration, tokens)
