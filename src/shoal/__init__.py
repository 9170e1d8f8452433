"""Shoal finds out how shallow a speech large language model can be.

    >>> import shoal
    >>> model = shoal.load("pkg:reference")                     # doctest: +SKIP
    >>> data = shoal.read_manifests(["manifest.jsonl"])         # doctest: +SKIP
    >>> audit = shoal.audit(model, data)                        # doctest: +SKIP
    >>> plan = shoal.select(audit, "20%")                       # doctest: +SKIP
    >>> shoal.prune(model, plan, out="shallower")               # doctest: +SKIP
    >>> shoal.heal(shoal.load("shallower"), data, out="healed") # doctest: +SKIP
    >>> shoal.evaluate(model, data, plans=[plan])               # doctest: +SKIP

Importing is cheap: torch and transformers are loaded by the functions that need them.
"""

from __future__ import annotations

from shoal._version import __version__
from shoal.bench import bench
from shoal.card import card
from shoal.data import Dataset, read_manifests
from shoal.errors import InputError, MeasureError, ShoalError, VerificationError
from shoal.evaluate import evaluate
from shoal.evaluate.validate import validate
from shoal.heal import heal
from shoal.measure import audit, compare, task_matrix
from shoal.models import load
from shoal.prune import prune, prune_folder
from shoal.report import render
from shoal.schema import Audit, Bench, Comparison, Plan, Scores, Search, TaskMatrix
from shoal.search import search
from shoal.select import select
from shoal.training import train

__all__ = [
    "Audit",
    "Bench",
    "Comparison",
    "Dataset",
    "InputError",
    "MeasureError",
    "Plan",
    "Scores",
    "Search",
    "ShoalError",
    "TaskMatrix",
    "VerificationError",
    "__version__",
    "audit",
    "bench",
    "card",
    "compare",
    "evaluate",
    "heal",
    "load",
    "prune",
    "prune_folder",
    "read_manifests",
    "render",
    "search",
    "select",
    "task_matrix",
    "train",
    "validate",
]
