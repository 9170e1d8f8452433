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
from shoal.benchmarking import bench
from shoal.cards import card
from shoal.comparison import compare, task_matrix
from shoal.data import Dataset, read_manifests
from shoal.errors import InputError, MeasureError, ShoalError, VerificationError
from shoal.evaluation import evaluate
from shoal.healing import heal
from shoal.measurement import audit
from shoal.models import load
from shoal.plan_search import search
from shoal.pruning import prune, prune_folder
from shoal.report import render
from shoal.schema import Audit, Bench, Comparison, Plan, Scores, Search, TaskMatrix
from shoal.selection import select
from shoal.training import train
from shoal.validation.validate import validate

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
