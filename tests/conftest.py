"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def speech() -> Path:
    """The folder of real speech, `../shared/speech`; tests that need it skip without it."""
    folder = Path(os.environ.get("SHOAL_SHARED", ROOT.parent / "shared")) / "speech"
    if not folder.is_dir():
        pytest.skip(f"no real speech at {folder}")
    return folder
