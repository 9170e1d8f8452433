"""The files between the steps, as pydantic models.

Every file says what it is (`kind`) and which shape it has (`schema_version`). Reading is strict about both and
tolerant of keys added by newer versions. Writing goes to a temporary name first and is then renamed, so a file
either has its final name and is whole, or is not there.

Words: a *block* `(l, n)` is layers `l … l+n-1`; a triangle is stored as rows `[n-1][l]`, so row `n-1` has `L-n+1`
entries; angular distances are a share of pi (0 = parallel, 0.5 = orthogonal, 1 = opposite).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from shoal.errors import FileFormatError
from shoal.schema.audit import Audit as Audit
from shoal.schema.audit import BestBlock as BestBlock
from shoal.schema.audit import Importance as Importance
from shoal.schema.audit import InputAudit as InputAudit
from shoal.schema.audit import Look as Look
from shoal.schema.audit import MetricTrust as MetricTrust
from shoal.schema.audit import MetricValues as MetricValues
from shoal.schema.audit import ScopeAudit as ScopeAudit
from shoal.schema.audit import Trust as Trust
from shoal.schema.audit import Until as Until
from shoal.schema.bench import Bench as Bench
from shoal.schema.bench import SystemBench as SystemBench
from shoal.schema.comparison import BlockOverlap as BlockOverlap
from shoal.schema.comparison import ComparedAudit as ComparedAudit
from shoal.schema.comparison import Comparison as Comparison
from shoal.schema.comparison import MetricComparison as MetricComparison
from shoal.schema.comparison import ScopeComparison as ScopeComparison
from shoal.schema.comparison import TaskLoss as TaskLoss
from shoal.schema.comparison import TaskMatrix as TaskMatrix
from shoal.schema.document import SCHEMA_VERSION as SCHEMA_VERSION
from shoal.schema.document import BadRow as BadRow
from shoal.schema.document import DataInfo as DataInfo
from shoal.schema.document import Document as Document
from shoal.schema.document import ModelInfo as ModelInfo
from shoal.schema.document import Provenance as Provenance
from shoal.schema.files import read_json as read_json
from shoal.schema.files import write_text as write_text
from shoal.schema.heal import Healing as Healing
from shoal.schema.heal import HealingCell as HealingCell
from shoal.schema.heal import HealRecord as HealRecord
from shoal.schema.plan import Plan as Plan
from shoal.schema.plan import PlanSource as PlanSource
from shoal.schema.plan import plan_problem as plan_problem
from shoal.schema.record import Drawn as Drawn
from shoal.schema.record import Estimate as Estimate
from shoal.schema.record import Record as Record
from shoal.schema.record import SystemRecord as SystemRecord
from shoal.schema.scores import Cliff as Cliff
from shoal.schema.scores import ControlScore as ControlScore
from shoal.schema.scores import Counts as Counts
from shoal.schema.scores import Delta as Delta
from shoal.schema.scores import Example as Example
from shoal.schema.scores import Failure as Failure
from shoal.schema.scores import FailureShare as FailureShare
from shoal.schema.scores import GroupScore as GroupScore
from shoal.schema.scores import MeasuredScore as MeasuredScore
from shoal.schema.scores import Scores as Scores
from shoal.schema.scores import SystemScores as SystemScores
from shoal.schema.search import Budget as Budget
from shoal.schema.search import Confirmation as Confirmation
from shoal.schema.search import Search as Search
from shoal.schema.search import SearchStep as SearchStep
from shoal.schema.training import StageRecord as StageRecord
from shoal.schema.training import TrainingRecord as TrainingRecord
from shoal.schema.training import ValidationLoss as ValidationLoss
from shoal.schema.validation import Finding as Finding
from shoal.schema.validation import Validation as Validation
from shoal.terms import PARTS as PARTS
from shoal.terms import SCOPES as SCOPES
from shoal.terms import InputKind as InputKind
from shoal.terms import Part as Part
from shoal.terms import Scope as Scope
from shoal.terms import Triangle as Triangle

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
        Validation,
    )
}


def _kind(data: Any) -> Any:
    return data.get("kind") if isinstance(data, dict) else None


def load_document(path: str | os.PathLike[str]) -> Document:
    """Read any Shoal file by its `kind`.

    Raises:
        FileFormatError: not a Shoal file.
    """
    data = read_json(path)
    kind = _kind(data)
    if kind not in KINDS:
        raise FileFormatError(
            f"unknown kind {kind!r}", where=str(path), fix=f"give a Shoal file ({', '.join(sorted(KINDS))})"
        )
    return KINDS[kind].parse(data, where=str(path))


def load_documents(path: Path) -> list[tuple[str, Document]]:
    """A Shoal file, or all of them in a folder and in its `validation/`, each with its path.

    Raises:
        FileFormatError: not a Shoal file, or a folder without one.
    """
    if not path.is_dir():
        return [(str(path), load_document(path))]
    files = [*sorted(path.glob("*.json")), *sorted(path.glob("validation/*.json"))]
    documents = [(str(file), load_document(file)) for file in files if _kind(read_json(file)) in KINDS]
    if not documents:
        raise FileFormatError("no Shoal file in this folder", where=str(path), fix="give the file or its folder")
    return documents
