"""What can be healed: one file a target, and this registry."""

from __future__ import annotations

from shoal.healing.targets.base import Target, TrainedParts
from shoal.healing.targets.decoder import DecoderTarget
from shoal.healing.targets.head import HeadTarget
from shoal.healing.targets.joint import JointDecoderTarget, JointTarget
from shoal.healing.targets.linear import LinearTarget
from shoal.healing.targets.projector import ProjectorTarget
from shoal.healing.targets.receiver import ReceiverTarget
from shoal.healing.targets.replace import ReplaceTarget

__all__ = ["TARGETS", "Target", "TrainedParts"]

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        ReceiverTarget(),
        ProjectorTarget(),
        DecoderTarget(),
        JointTarget(),
        JointDecoderTarget(),
        HeadTarget(),
        ReplaceTarget(),
        LinearTarget(),
    )
}
