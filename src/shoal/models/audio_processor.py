"""A checkpoint's processor with its ears only.

Processors of models that also see need image libraries to be made at all. Shoal feeds audio and text, so where those
libraries are missing, what sees is replaced by a stand-in that does nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoFeatureExtractor, AutoTokenizer

SEEING = ("image_processor", "video_processor")
"""What a processor's parts that see are called."""
CONFIGS = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
"""Where the processor's class may be named."""


class ImagePlaceholder:
    """Stands in the place of an image or video processor, and does nothing."""

    model_input_names: tuple[str, ...] = ()


def audio_processor(path: Path) -> Any | None:
    """The stock processor of the checkpoint in `path`, for audio and text only.

    It does not save itself: a checkpoint made from this one takes over the processor's files as they are.

    Returns:
        The processor; None if its class is not one of transformers, or has nothing that sees.
    """
    stock = getattr(transformers, _class_name(path), None)
    if stock is None or not set(SEEING) & set(stock.get_attributes()):
        return None
    parts = [_part(name, path) for name in stock.get_attributes()]
    settings, _ = stock.get_processor_dict(path)
    return _hearing(stock).from_args_and_dict(parts, settings)


def _class_name(path: Path) -> str:
    for name in CONFIGS:
        if (path / name).is_file():
            named = json.loads((path / name).read_text(encoding="utf-8")).get("processor_class")
            if named:
                return str(named)
    return ""


def _hearing(stock: Any) -> Any:
    """`stock` with blind parts allowed, and unsaved."""

    def check(self: Any, name: str, part: Any) -> Any:
        return (
            ImagePlaceholder
            if isinstance(part, ImagePlaceholder)
            else stock.check_argument_for_proper_class(self, name, part)
        )

    def save(self: Any, folder: Any, **options: Any) -> None:
        del self, folder, options

    own = {"check_argument_for_proper_class": check, "save_pretrained": save, "__repr__": object.__repr__}
    return type(stock.__name__, (stock,), own)


def _part(name: str, path: Path) -> Any:
    if name in SEEING:
        return ImagePlaceholder()
    return (AutoTokenizer if name == "tokenizer" else AutoFeatureExtractor).from_pretrained(path)
