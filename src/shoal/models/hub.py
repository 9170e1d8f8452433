"""The Hugging Face Hub as a source of model folders."""

from __future__ import annotations

import re
from pathlib import Path

from shoal.errors import WeightsError

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WANTED = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
_UNWANTED = ["onnx/*", "openvino/*", "coreml/*", "original/*", "metal/*", "consolidated*"]
"""The same weights again, in layouts that `from_pretrained` does not read."""


def is_id(ref: str) -> bool:
    """Whether `ref` has the form of a Hub id, `NAME` or `ORG/NAME`."""
    return _ID.fullmatch(ref) is not None


def fetch(repo: str) -> Path:
    """The local snapshot of a Hub model: safetensors, configs and tokenizer files only.

    `HF_HUB_OFFLINE=1`, `HF_HOME` and a login work as everywhere.

    Raises:
        WeightsError: no such model, not allowed, offline and not cached, or no safetensors in it.
    """
    from huggingface_hub import snapshot_download

    try:
        path = Path(snapshot_download(repo, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    except Exception as error:  # the Hub's own errors, its HTTP library's and the operating system's share no base
        raise _explain(repo, error) from error
    if not any(path.glob("*.safetensors")):
        raise WeightsError("has no safetensors weights on the Hub", where=repo, fix="Shoal loads no other format")
    return path


def _explain(repo: str, error: Exception) -> WeightsError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return WeightsError("is gated on the Hub", where=repo, fix="accept its terms there, then 'hf auth login'")
    if isinstance(error, errors.RepositoryNotFoundError):
        return WeightsError("no such folder, and no such model on the Hub", where=repo, fix="check the spelling")
    if isinstance(error, errors.LocalEntryNotFoundError | ConnectionError):
        return WeightsError(
            "no such folder, not in the Hub's cache here, and the Hub is out of reach or HF_HUB_OFFLINE set",
            where=repo,
            fix="check the path or the network, or use one of 'shoal weights ls'",
        )
    first = str(error).strip().splitlines()[:1] or [""]
    return WeightsError(f"cannot be fetched from the Hub ({type(error).__name__}: {first[0]})", where=repo)
