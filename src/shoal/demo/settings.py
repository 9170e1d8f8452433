"""What the demo runs."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from pydantic import Field

from shoal.healing.settings import TargetName
from shoal.selection.settings import StrategyName
from shoal.settings import INTERVALS, SHARE, SPEED, CommaSeparated, Settings, Share

Size = Annotated[int, Field(ge=1)]


class DemoSettings(Settings):
    """What the demo runs: `sizes` × `strategies` are the plans that are scored; those of one block are healed, too."""

    sizes: Annotated[tuple[Size, ...], CommaSeparated, Parameter(name="--layers", metavar="N,N…")] = (4, 6, 8)
    """Numbers of layers to remove, each in turn."""
    strategies: Annotated[
        tuple[StrategyName, ...], CommaSeparated, Parameter(name="--strategy", metavar="NAME,NAME…")
    ] = ("contiguous",)
    """Strategies that choose the layers, each in turn."""
    max_increase: Annotated[Share, SHARE, Parameter(name="--max-wer-increase")] = 0.25
    """Highest relative increase of the WER; the checkpoint is that of the largest plan whose upper bound is within it,
    healed or not, else of the largest whose value is."""
    heal: Annotated[TargetName | None, Parameter(name="--target", metavar="TARGET", negative="--no-heal")] = "linear"
    """Heal target; --no-heal leaves the plans as they are."""
    controls: Annotated[bool, Parameter(negative="--no-controls")] = True
    """Answer every clip with the audio of another clip and with silence, too: is the model still listening?"""
    ablation: Annotated[bool, Parameter(negative="--no-ablation")] = True
    """Measure by leaving out every single layer too; only then is it known which metric to trust."""
    batch_size: Annotated[int, SPEED] = Field(default=24, ge=1)
    """Clips decoded at once, at most."""
    max_new_tokens: Annotated[int | None, SPEED] = Field(default=None, ge=1)
    """Most tokens a clip may get; default: by its length, or 40 on the clips that ship with Shoal."""
    seed: Annotated[int, INTERVALS] = 0
    """Seed of every random draw."""
