"""The terms of the field as types: scopes, inputs, parts, triangles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator


def scope_now(name: Any) -> Any:
    """A scope as it is called now: the response was called `text`, which is an input, too."""
    return "response" if name == "text" else name


Scope = Annotated[Literal["all", "audio", "prompt", "response", "last"], BeforeValidator(scope_now)]
"""Which positions count. `response` is teacher-forced; `last` is the last position before it."""
SCOPES: tuple[Scope, ...] = ("all", "audio", "prompt", "response", "last")

DEFAULT_SCOPE: Scope = "all"
"""What select, search, audit and report go by unless told: audio and text alike, as in ShortGPT."""
SUMMARY_SIZES = (1, 2, 4, 8)
"""Sizes of blocks that a summary of an audit names."""

InputKind = Literal["speech", "text"]
"""What stands in the audio slot: the projected audio, or the transcript's tokens."""

Triangle = list[list[float]]
"""Row `n-1`, column `l`: the value of block `(l, n)`."""

Part = Literal["layer", "attention", "mlp"]
"""What of a layer is meant: all of it, or one of its two contributions to the residual stream."""
PARTS: tuple[Part, ...] = ("layer", "attention", "mlp")

Caution = Literal["few clusters", "one speaker"]
"""Why an interval is not to be relied on: fewer clusters than `FEW_CLUSTERS` were drawn, or all clips are of one
speaker."""
FEW_CLUSTERS = 20

Control = Literal["shuffled", "silent"]
"""Audio that is not a clip's own: that of another clip, or silence."""

Candidate = tuple[int, ...]
"""Layers to go without, ascending."""


def is_block(layers: Sequence[int]) -> bool:
    """Whether layers (ascending, at least one) lie together."""
    return layers[-1] - layers[0] == len(layers) - 1
