"""The tokenizer file of a Mistral model that hears."""

from __future__ import annotations

import json
import tempfile
from base64 import b64encode
from functools import cache
from pathlib import Path
from typing import Any

from transformers.utils.import_utils import is_mistral_common_available

AVAILABLE = is_mistral_common_available()
MISSING = "mistral-common is not installed"
SPECIAL = {
    0: "<unk>",
    1: "<s>",
    2: "</s>",
    3: "[INST]",
    4: "[/INST]",
    5: "[AVAILABLE_TOOLS]",
    6: "[/AVAILABLE_TOOLS]",
    7: "[TOOL_RESULTS]",
    8: "[/TOOL_RESULTS]",
    9: "[TOOL_CALLS]",
    11: "<pad>",
    14: "[PREFIX]",
    15: "[MIDDLE]",
    16: "[SUFFIX]",
    17: "[SYSTEM_PROMPT]",
    18: "[/SYSTEM_PROMPT]",
    19: "[TOOL_CONTENT]",
    22: "[ARGS]",
    23: "[CALL_ID]",
    24: "[AUDIO]",
    25: "[BEGIN_AUDIO]",
    32: "[STREAMING_PAD]",
    33: "[STREAMING_WORD]",
    34: "[TRANSCRIBE]",
}
"""Ids as in the checkpoints."""
SPECIAL_COUNT = 40
VOCABULARY = SPECIAL_COUNT + 256
MEL_BINS = 80


def tokenizer(**audio: Any) -> Any:
    """The stock tokenizer, with bytes as tokens."""
    from transformers.tokenization_mistral_common import MistralCommonBackend

    return MistralCommonBackend(_file(json.dumps(audio, sort_keys=True)))


def converted_tokenizer(**audio: Any) -> Any:
    """What transformers makes of the same file where mistral-common is not installed."""
    from transformers.integrations.mistral import convert_tekken_tokenizer

    return convert_tekken_tokenizer(str(_file(json.dumps(audio, sort_keys=True))))


@cache
def _file(audio: str) -> Path:
    path = Path(tempfile.mkdtemp(prefix="shoal-tekken-")) / "tekken.json"
    names = [SPECIAL.get(rank, f"<SPECIAL_{rank}>") for rank in range(SPECIAL_COUNT)]
    content = {
        "config": {
            "pattern": r"\s+|[^\s]+",
            "num_vocab_tokens": 256,
            "default_vocab_size": VOCABULARY,
            "default_num_special_tokens": SPECIAL_COUNT,
            "version": "v11",
        },
        "vocab": [
            {"rank": byte, "token_bytes": b64encode(bytes([byte])).decode(), "token_str": None} for byte in range(256)
        ],
        "special_tokens": [{"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(names)],
        "audio": {
            "sampling_rate": 16_000,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": MEL_BINS, "hop_length": 160, "window_size": 400},
        }
        | json.loads(audio),
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
