"""The cache of projected audio: right, asked once, bounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from shoal.data.clip import Clip, Row
from shoal.models.audio_cache import AudioCache


def clip(value: float) -> Clip:
    return Clip(Row(id=str(value), audio=Path("x.wav"), duration=1.0), np.full(4, value, dtype=np.float32))


def make(asked: list[float]):
    def encode(clips: list[Clip]) -> list[torch.Tensor]:
        asked.extend(float(each.samples[0]) for each in clips)
        return [torch.full((2, 3), float(each.samples[0])) for each in clips]

    return encode


def test_each_clip_is_encoded_once_and_answers_stay_in_order() -> None:
    cache, asked = AudioCache(), []
    cache.get([clip(1), clip(2)], make(asked))
    found = cache.get([clip(3), clip(2), clip(1)], make(asked))
    assert [float(vectors[0, 0]) for vectors in found] == [3, 2, 1]
    assert asked == [1, 2, 3]


def test_the_same_audio_under_another_name_is_the_same() -> None:
    cache, asked = AudioCache(), []
    cache.get([clip(1), clip(1)], make(asked))
    assert asked == [1]


def test_room_is_bounded_and_answers_stay_right() -> None:
    cache, asked = AudioCache(room=2 * 24), []
    for value in (1, 2, 3, 4):
        assert float(cache.get([clip(value)], make(asked))[0][0, 0]) == value
    assert len(cache._vectors) == 2
    assert cache._bytes <= cache.room
    cache.get([clip(1)], make(asked))
    assert asked == [1, 2, 3, 4, 1]


def test_a_batch_larger_than_the_room_still_comes_back_whole() -> None:
    found = AudioCache(room=10).get([clip(1), clip(2), clip(3)], make([]))
    assert [float(vectors[0, 0]) for vectors in found] == [1, 2, 3]
