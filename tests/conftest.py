"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
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


@pytest.fixture(scope="module", autouse=True)
def little_to_collect() -> None:
    """Nothing that is there before a module runs is looked at again by the garbage collector.

    Some libraries collect after every run (the Trainer does), which takes longer than the run when torch and
    transformers are loaded.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def forked_verification() -> Iterator[Callable[..., None] | None]:
    """Checkpoints are verified in processes that begin with their imports done; see `forked_verification`.

    Gives what starts a fresh process instead; None if that is what is done.
    """
    if "torch" not in sys.modules or "SHOAL_FRESH" in os.environ:
        yield None
        return
    from forked_verification import Verifier
    from shoal.pruning import verify

    verifier, fresh = Verifier(), verify._run_child
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "_run_child", verifier.run)
        yield fresh
    verifier.close()
