"""Requirements on a checkpoint, and what was found of each."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from shoal.schema.document import Document
from shoal.schema.record import Estimate, Record

Verdict = Literal["holds", "broken", "cannot tell", "not measured"]


class Finding(Record):
    """One requirement, as one document shows it."""

    requirement: str
    verdict: Verdict
    where: str = ""
    """Task and data, or the bench; empty where nothing was measured."""
    measured: Estimate | None = None
    shown: str = ""
    """The same for a person, in its unit."""
    reason: str = ""
    """Why it does not hold, or cannot be told."""


class Validation(Document):
    """Every requirement, and whether it holds."""

    kind: Literal["validation"] = "validation"
    schema_version: int = 2
    checkpoint: str | None = None
    """None: the systems of the documents that are compared with a baseline."""
    confident: bool
    """Whether intervals had to meet the requirements, too."""
    findings: list[Finding]
    sources: list[str] = Field(default_factory=list)
    """The documents."""

    @classmethod
    def upgrade(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Before version 2 a requirement was called a promise, and broken where it was not measured."""
        return {**data, "findings": [_finding_of_version_1(finding) for finding in data["findings"]]}

    @property
    def holds(self) -> bool:
        """Whether every requirement was measured and holds."""
        return all(finding.verdict == "holds" for finding in self.findings)

    @property
    def failures(self) -> list[Finding]:
        """The findings that do not hold, or cannot be told."""
        return [finding for finding in self.findings if finding.verdict != "holds"]


def _finding_of_version_1(old: dict[str, Any]) -> dict[str, Any]:
    unmeasured = old.get("measured") is None and not old.get("where")
    return {**old, "requirement": old["promise"], "verdict": "not measured" if unmeasured else old["verdict"]}
