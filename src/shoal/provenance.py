"""Where and how a file was made."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from shoal._version import __version__
from shoal.schema import Provenance

PACKAGES = ("torch", "transformers", "peft", "numpy", "soundfile", "soxr", "jiwer", "whisper-normalizer")


def provenance(*, device: str = "cpu", dtype: str = "float32", command: list[str] | None = None) -> Provenance:
    """The record for a file made now by this process.

    Args:
        device: where the model ran.
        dtype: what it ran in.
        command: the command line; default is this process's own.
    """
    return Provenance(
        shoal=__version__,
        command=["shoal", *sys.argv[1:]] if command is None else command,
        python=platform.python_version(),
        platform=platform.platform(),
        packages={name: version for name in PACKAGES if (version := _version(name))},
        device=device,
        dtype=dtype,
        threads=_threads(),
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _threads() -> int | None:
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else None
