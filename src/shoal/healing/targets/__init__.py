"""What can be healed: one file a target, and this registry."""

from __future__ import annotations

from shoal.errors import UsageError
from shoal.healing.targets.base import Choice, Target
from shoal.healing.targets.decoder import Decoder
from shoal.healing.targets.head import Head
from shoal.healing.targets.joint import Joint, JointDecoder
from shoal.healing.targets.linear import Linear
from shoal.healing.targets.projector import Projector
from shoal.healing.targets.receiver import Receiver
from shoal.healing.targets.replace import Replace

__all__ = ["TARGETS", "Choice", "Target", "get"]

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (Receiver(), Projector(), Decoder(), Joint(), JointDecoder(), Head(), Replace(), Linear())
}


def get(name: str) -> Target:
    """The target of that name.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    if name not in TARGETS:
        raise UsageError(
            f"unknown target {name!r}", where="--target", fix=f"choose one of {', '.join(TARGETS)}"
        )
    return TARGETS[name]
