"""Decoder and projector together (arXiv 2603.05121: far better than the decoder alone)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from shoal.healing.cuts import Cut
from shoal.healing.targets.base import Target, TrainedParts
from shoal.healing.targets.decoder import DecoderTarget
from shoal.healing.targets.projector import ProjectorTarget
from shoal.healing.targets.receiver import ReceiverTarget

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel


class JointTarget(Target):
    """`receiver` and `projector`: the paper's joint healing."""

    name: ClassVar[str] = "joint"
    needs_cuts: ClassVar[bool] = True

    def choose(self, loaded: LoadedModel, cuts: Sequence[Cut]) -> TrainedParts:
        """Both choices."""
        return ReceiverTarget().choose(loaded, cuts) + ProjectorTarget().choose(loaded, cuts)


class JointDecoderTarget(Target):
    """`decoder` and `projector`."""

    name: ClassVar[str] = "joint-decoder"

    def choose(self, loaded: LoadedModel, cuts: Sequence[Cut]) -> TrainedParts:
        """Both choices."""
        return DecoderTarget().choose(loaded, cuts) + ProjectorTarget().choose(loaded, cuts)
