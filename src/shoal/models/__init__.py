"""Models: where weights come from, our SpeechLLM, the families Shoal understands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel

__all__ = ["load"]


def load(
    ref: str, *, device: str = "cpu", dtype: str = "auto", trust_remote_code: bool = False
) -> LoadedModel:
    """Load a model and everything that belongs to it.

    Args:
        ref: a folder, a Hugging Face Hub id or `pkg:NAME`.
        device: where it runs, such as `cpu` or `cuda:0`.
        dtype: `float32`, `bfloat16`, `float16`; `stored` is the checkpoint's own; `auto` is float32 on the CPU, where
            lower precision is slower, and the checkpoint's own elsewhere.
        trust_remote_code: run code that a model brings along.

    Raises:
        ModelError: not there, not understood, or not whole.
        WeightsError: cannot be downloaded or checked.
    """
    from shoal.models.loading import load_model

    return load_model(ref, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
