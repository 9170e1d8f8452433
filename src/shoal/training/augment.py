"""How a clip is altered before it is encoded: speed perturbation and SpecAugment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from shoal.data import SAMPLE_RATE
from shoal.errors import UsageError

Samples = npt.NDArray[np.float32]

_MASKS_PER_AXIS = 2
_MELS, _WIDEST_MEL_MASK = 80, 27
_LONGEST_TIME_MASK, _LARGEST_TIME_SHARE = 100, 0.2


@dataclass(frozen=True, slots=True)
class Variant:
    """How a clip is altered.

    Args:
        speed: factor on the speed, above 0.5 and below 2; the pitch changes too (Ko et al. 2015).
        masks: 0 for none; k > 0 for the k-th draw of SpecAugment masks (Park et al. 2019, arXiv 1904.08779).

    Raises:
        UsageError: a value out of range.
    """

    speed: float = 1.0
    masks: int = 0

    def __post_init__(self) -> None:
        if not 0.5 < self.speed < 2:
            raise UsageError(f"a speed of {self.speed:g} is out of range", fix="stay above 0.5 and below 2")
        if self.masks < 0:
            raise UsageError(f"there is no draw of masks {self.masks}", fix="count from 1, 0 is none")


PLAIN = Variant()
"""The clip as it is."""


def at_speed(samples: Samples, speed: float) -> Samples:
    """Samples (n,) played `speed` times as fast: (about n / speed,) at the same rate."""
    import soxr

    if speed == 1:
        return samples
    played = round(speed * SAMPLE_RATE, 3)  # 1.1 is not 11 : 10 in floating point
    return np.asarray(soxr.resample(samples, played, SAMPLE_RATE, quality="HQ"), dtype=np.float32)


def masked(features: Tensor, valid: int, seed: int) -> Tensor:
    """Two masks over mels and two over time, filled with the mean of the clip.

    A mask takes 0 to 27 of 80 mels (in proportion for other numbers), or 0 to min(100, valid / 5) mel frames.
    What lies behind the clip stays as it is.

    Args:
        features: (windows, mels, mel frames), log-mel of one clip.
        valid: mel frames of the clip over all its windows.
        seed: what the masks are drawn from.

    Returns:
        A new tensor of the same shape.
    """
    windows, mels, frames = features.shape
    # The windows of a clip follow each other in time, so masks may cross their borders.
    mel = features.transpose(0, 1).reshape(mels, windows * frames).clone()
    clip = mel[:, :valid]
    fill, random = clip.mean(), np.random.default_rng(seed)
    widest = round(_WIDEST_MEL_MASK * mels / _MELS)
    longest = min(_LONGEST_TIME_MASK, int(_LARGEST_TIME_SHARE * valid))
    for _ in range(_MASKS_PER_AXIS):
        clip[_span(random, widest, mels)] = fill
    for _ in range(_MASKS_PER_AXIS):
        clip[:, _span(random, longest, valid)] = fill
    return mel.reshape(mels, windows, frames).transpose(0, 1).contiguous()


def _span(random: np.random.Generator, longest: int, size: int) -> slice:
    """A run of 0 to `longest` of `size` places; both ends of every range count."""
    length = int(random.integers(0, longest + 1))
    start = int(random.integers(0, size - length + 1))
    return slice(start, start + length)
