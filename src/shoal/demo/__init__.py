"""What `shoal demo` needs and ships: real clips, the reference model's adapters, and the run itself."""

from __future__ import annotations

from pathlib import Path

__all__ = ["clips_manifest"]


def clips_manifest() -> Path:
    """The manifest of the 55 English clips that ship with Shoal (122 s; licence: `ATTRIBUTION.md`)."""
    return Path(__file__).parent / "clips" / "manifest.jsonl"
