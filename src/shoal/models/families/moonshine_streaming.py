"""Streaming Moonshine: as Moonshine, with a decoder that adds positions to the encoder's output, in place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from shoal.models.families.moonshine import Moonshine


class MoonshineStreaming(Moonshine):
    """`MoonshineStreamingForConditionalGeneration`."""

    name = "moonshine_streaming"
    classes = ("MoonshineStreamingForConditionalGeneration",)
    # Without a cache, positions are added once more at every step.
    cacheless = False

    def stacked(self, rows: Sequence[Any]) -> Any:
        """As in Moonshine, but what is read of it is a copy, so that every use finds it as it was."""
        return _copied()(**super().stacked(rows))


@cache
def _copied() -> type[Any]:
    from transformers.models.moonshine_streaming.modeling_moonshine_streaming import (
        MoonshineStreamingEncoderModelOutput,
    )

    class Copied(MoonshineStreamingEncoderModelOutput):
        """Gives its states away as copies."""

        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            return value.clone() if name == "last_hidden_state" and value is not None else value

    return Copied


FAMILY = MoonshineStreaming()
