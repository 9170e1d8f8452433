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

from typing import TYPE_CHECKING

from shoal._version import __version__
from shoal.lazy import lazy_exports

if TYPE_CHECKING:
    from shoal.benchmarking.run import bench
    from shoal.cards.writing import card
    from shoal.comparison.audits import compare
    from shoal.comparison.task_matrix import task_matrix
    from shoal.data.dataset import Dataset
    from shoal.data.manifest import read_manifests
    from shoal.errors import InputError, MeasureError, ShoalError, VerificationError
    from shoal.evaluation.run import evaluate
    from shoal.healing.run import heal
    from shoal.measurement.audit import audit
    from shoal.models.loading import load
    from shoal.plan_search.run import search
    from shoal.pruning.from_folder import prune_folder
    from shoal.pruning.on_disk import prune
    from shoal.report import render
    from shoal.schema import Audit, Bench, Comparison, Plan, Scores, Search, TaskMatrix
    from shoal.selection.choose import select
    from shoal.training.run import train
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

__getattr__ = lazy_exports(
    __name__,
    {
        **dict.fromkeys(("Audit", "Bench", "Comparison", "Plan", "Scores", "Search", "TaskMatrix"), "schema"),
        **dict.fromkeys(("InputError", "MeasureError", "ShoalError", "VerificationError"), "errors"),
        "Dataset": "data.dataset",
        "audit": "measurement.audit",
        "bench": "benchmarking.run",
        "card": "cards.writing",
        "compare": "comparison.audits",
        "evaluate": "evaluation.run",
        "heal": "healing.run",
        "load": "models.loading",
        "prune": "pruning.on_disk",
        "prune_folder": "pruning.from_folder",
        "read_manifests": "data.manifest",
        "render": "report",
        "search": "plan_search.run",
        "select": "selection.choose",
        "task_matrix": "comparison.task_matrix",
        "train": "training.run",
        "validate": "validation.validate",
    },
)
