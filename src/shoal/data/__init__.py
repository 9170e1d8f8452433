"""Manifests in, clips out: sources, checks, decoding, batches by duration."""

from shoal.data.audio import load_audio
from shoal.data.batches import MAX_BATCH_SECONDS, batches
from shoal.data.clip import SAMPLE_RATE, Clip, Row
from shoal.data.dataset import Dataset
from shoal.data.manifest import read_manifests
from shoal.data.rows import Rows, fingerprint

__all__ = [
    "MAX_BATCH_SECONDS",
    "SAMPLE_RATE",
    "Clip",
    "Dataset",
    "Row",
    "Rows",
    "batches",
    "fingerprint",
    "load_audio",
    "read_manifests",
]
