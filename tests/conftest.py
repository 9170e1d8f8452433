"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forked_processes import Commands, Verifications, import_for_verification
from full_run import FULL

ROOT = Path(__file__).resolve().parents[1]
pytest_plugins = ["forked_workers"]
forks: dict[str, Any] = {}
"""What processes are forked from; empty where all are started as users start them."""


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
def fresh_processes() -> Iterator[dict[str, Callable[..., Any]]]:
    """Checkpoints are verified, and memory is measured, in processes that begin with their imports done.

    Gives what starts a fresh process instead, as users have it, by the name of what it stands in for.
    """
    if "torch" not in sys.modules or not forks:
        yield {}
        return
    from shoal.benchmarking import memory
    from shoal.pruning import verify

    fresh = {"_run_child": verify._run_child, "_measure": memory._measure}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "_run_child", forks["verifications"].verify)
        patch.setattr(memory, "_measure", forks["commands"].measure_memory)
        yield fresh


@pytest.fixture(scope="session")
def processes() -> Any:
    """What forks processes in which all is imported (`Commands`), or None."""
    return forks.get("commands")


@pytest.fixture(scope="session")
def verifications() -> Any:
    """What forks processes in which nothing of Shoal was ever imported (`Verifications`), or None."""
    return forks.get("verifications")


def pytest_configure(config: pytest.Config) -> None:
    """Before anything of Shoal is imported."""
    if "SHOAL_FRESH" in os.environ or config.option.collectonly:
        return
    workers = config.getoption("workers")
    if workers > 1:
        # All tests are run: what will be imported anyway need not be imported twice.
        import_for_verification()
    forks["verifications"] = Verifications(workers)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """When all is imported, and before any test has run."""
    if forks:
        forks["commands"] = Commands(session.config.getoption("workers"))
    return (yield)


def pytest_unconfigure() -> None:
    for processes in forks.values():
        processes.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is marked `full` is left to full runs."""
    if not FULL:
        left_out = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("full")]
