"""What decides the outputs, and what decides the intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shoal.data.clip import Row
from shoal.errors import UsageError
from shoal.evaluation.significance import PairedBootstrap

if TYPE_CHECKING:
    from shoal.evaluation.comet import Comet
    from shoal.evaluation.engine import BatchSize
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

    def __post_init__(self) -> None:
        if self.fixed is not None and self.fixed < 1:
            raise UsageError(f"{self.fixed} tokens", where="--max-new-tokens", fix="give a number above 0")

    def of(self, row: Row) -> int:
        """The limit for one clip, end token included."""
        if self.fixed is not None:
            return self.fixed
        return min(MOST_TOKENS, BASE_TOKENS + math.ceil(TOKENS_PER_SECOND * row.duration))

    @property
    def label(self) -> int | str:
        """For the record."""
        if self.fixed is not None:
            return self.fixed
        return f"{BASE_TOKENS} + {TOKENS_PER_SECOND} a second, at most {MOST_TOKENS}"


@dataclass(frozen=True, slots=True)
class DecodingSettings:
    """How clips are decoded."""

    batch_size: BatchSize = 16
    """Clips that are decoded at once, at most; `auto` is as many as memory allows."""
    limit: TokenLimit = field(default_factory=TokenLimit)


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals are made."""

    replicates: int = 1000
    level: float = 0.95
    cluster: Literal["utterance", "speaker"] = "utterance"
    seed: int = 0

    def draw_over(self, speakers: Sequence[str | None]) -> PairedBootstrap:
        """A bootstrap over clips of these speakers, None where a clip names none."""
        clusters = speakers if self.cluster == "speaker" else [None] * len(speakers)
        return PairedBootstrap.draw(clusters, replicates=self.replicates, seed=self.seed, level=self.level)


@dataclass(frozen=True, slots=True)
class ScoringSettings:
    """How outputs are scored, and what is written of them."""

    resampling: Resampling = field(default_factory=Resampling)
    group_by: Sequence[str] | None = None
    """Manifest fields; None is the speaker where known. The data set is added where there are several, except for an
    empty list."""
    out_of_domain: Sequence[str] = ()
    """Names of data sets; those and all others are pooled as groups of the field `domain`."""
    comet: str | None = None
    """A checkpoint or a name of a model of COMET, which scores translations too."""
    exports: Sequence[str] = ()
    """Formats of `shoal.evaluation.export`."""

    def scorer(self, task: Task, out: Path | None) -> Comet | None:
        """Make sure, before anything is decoded, that all of this can be done; returns COMET if it is asked for.

        Raises:
            UsageError: it cannot.
        """
        from shoal.evaluation.comet import Comet
        from shoal.evaluation.export import check_formats

        check_formats(self.exports, out)
        return None if self.comet is None else Comet.of(self.comet, task)


def limit_of(loaded: LoadedModel, limit: TokenLimit, row: Row) -> int:
    """The limit for one clip; a model may need more than the automatic one, but not more than the user allows."""
    given = limit.of(row)
    if limit.fixed is not None:
        return given
    return loaded.family.token_limit(loaded.processor, row.duration, given)
