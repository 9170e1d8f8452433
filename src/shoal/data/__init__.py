"""Manifests in, clips out: sources, checks, decoding, batches by duration (`shoal.data.batches`)."""

from typing import TYPE_CHECKING

from shoal.lazy import lazy_exports

if TYPE_CHECKING:
    from shoal.data.audio import load_audio
    from shoal.data.clip import SAMPLE_RATE, Clip, Row
    from shoal.data.dataset import Dataset
    from shoal.data.manifest import read_manifests
    from shoal.data.rows import Rows, fingerprint

__all__ = ["SAMPLE_RATE", "Clip", "Dataset", "Row", "Rows", "fingerprint", "load_audio", "read_manifests"]

__getattr__ = lazy_exports(
    __name__,
    {
        **dict.fromkeys(("SAMPLE_RATE", "Clip", "Row"), "clip"),
        **dict.fromkeys(("Rows", "fingerprint"), "rows"),
        "Dataset": "dataset",
        "load_audio": "audio",
        "read_manifests": "manifest",
    },
)
