"""What was checked of a checkpoint before it got its name."""

from __future__ import annotations

from typing import Literal

from shoal.schema.document import Document
from shoal.schema.record import Record

REPORT_FILE = "shoal-verification.json"
"""Where the report lies in a verified checkpoint."""


class Check(Record):
    """One thing that was checked in the fresh process."""

    name: str
    passed: bool
    detail: str = ""
    difference: float | None = None
    """Largest absolute difference found, where the check compares numbers (None also if not finite)."""
    tolerance: float | None = None
    """Largest difference allowed."""


class VerificationReport(Document):
    """What was checked about a checkpoint, and what came out."""

    kind: Literal["verification"] = "verification"
    checks: list[Check]
    source_tensors: str = ""
    """What became of every tensor in the files of the model that was changed, where they were looked at."""

    @property
    def passed(self) -> bool:
        """Whether every check passed (and there was one)."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def complete(self) -> bool:
        """Whether the checkpoint was loaded and run, and not its structure alone looked at."""
        return any(check.name == "logits" for check in self.checks)

    @property
    def failures(self) -> list[Check]:
        """The checks that did not pass."""
        return [check for check in self.checks if not check.passed]
