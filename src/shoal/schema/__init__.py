"""The files between the steps, as pydantic models.

Every file says what it is (`kind`) and which shape it has (`schema_version`). Reading is strict about both and
tolerant of keys added by newer versions. Writing goes to a temporary name first and is then renamed, so a file
either has its final name and is whole, or is not there.

Words: a *block* `(l, n)` is layers `l … l+n-1`; a triangle is stored as rows `[n-1][l]`, so row `n-1` has `L-n+1`
entries; distances are in units of pi radians (0 = parallel, 0.5 = orthogonal, 1 = opposite).
"""

from __future__ import annotations

import os

from shoal.errors import FileFormatError
from shoal.schema.audit import (
    Audit,
    BestBlock,
    Importance,
    InputAudit,
    MetricTrust,
    MetricValues,
    ScopeAudit,
    Trust,
)
from shoal.schema.bench import Bench, SystemBench
from shoal.schema.comparison import (
    BlockOverlap,
    ComparedAudit,
    Comparison,
    MetricComparison,
    ScopeComparison,
    TaskLoss,
    TaskMatrix,
)
from shoal.schema.document import SCHEMA_VERSION, BadRow, DataInfo, Document, ModelInfo, Provenance
from shoal.schema.files import read_json, write_text
from shoal.schema.heal import Healing, HealingCell, HealRecord
from shoal.schema.plan import Plan, PlanSource, plan_problem
from shoal.schema.record import Estimate, Record
from shoal.schema.scores import Counts, Delta, Example, GroupScore, MeasuredScore, Scores, SystemScores
from shoal.schema.search import Budget, Confirmation, Search, SearchStep
from shoal.schema.training import StageRecord, TrainingRecord, ValidationLoss
from shoal.schema.words import PARTS, SCOPES, InputKind, Part, Scope, Triangle

__all__ = [
    "KINDS",
    "PARTS",
    "SCHEMA_VERSION",
    "SCOPES",
    "Audit",
    "BadRow",
    "Bench",
    "BestBlock",
    "BlockOverlap",
    "Budget",
    "ComparedAudit",
    "Comparison",
    "Confirmation",
    "Counts",
    "DataInfo",
    "Delta",
    "Document",
    "Estimate",
    "Example",
    "GroupScore",
    "HealRecord",
    "Healing",
    "HealingCell",
    "Importance",
    "InputAudit",
    "InputKind",
    "MeasuredScore",
    "MetricComparison",
    "MetricTrust",
    "MetricValues",
    "ModelInfo",
    "Part",
    "Plan",
    "PlanSource",
    "Provenance",
    "Record",
    "Scope",
    "ScopeAudit",
    "ScopeComparison",
    "Scores",
    "Search",
    "SearchStep",
    "StageRecord",
    "SystemBench",
    "SystemScores",
    "TaskLoss",
    "TaskMatrix",
    "TrainingRecord",
    "Triangle",
    "Trust",
    "ValidationLoss",
    "load_document",
    "plan_problem",
    "read_json",
    "write_text",
]

KINDS: dict[str, type[Document]] = {
    cls.model_fields["kind"].default: cls
    for cls in (
        Audit,
        Plan,
        Scores,
        Bench,
        Comparison,
        TaskMatrix,
        Search,
        HealRecord,
        Healing,
        TrainingRecord,
    )
}


def load_document(path: str | os.PathLike[str]) -> Document:
    """Read any Shoal file by its `kind`.

    Raises:
        FileFormatError: not a Shoal file.
    """
    data = read_json(path)
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind not in KINDS:
        raise FileFormatError(
            f"unknown kind {kind!r}", where=str(path), fix=f"give a Shoal file ({', '.join(sorted(KINDS))})"
        )
    return KINDS[kind].parse(data, where=str(path))
