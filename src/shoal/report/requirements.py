"""What was required of a checkpoint, and whether it holds."""

from __future__ import annotations

from collections.abc import Callable

from shoal import wording
from shoal.report.bundle import Bundle
from shoal.report.parts import Section
from shoal.schema import Finding, Validation
from shoal.tables import NONE, Table

ID, TITLE, SHORT = "requirements", "What was required, and whether it holds", "Requirements"
COLUMNS: dict[str, Callable[[Finding], str]] = {
    "Requirement": lambda finding: finding.requirement,
    "Verdict": lambda finding: finding.verdict,
    "Measured": lambda finding: finding.shown or NONE,
    "On": lambda finding: finding.where or NONE,
    "Why": lambda finding: finding.reason or NONE,
}


def build(bundle: Bundle) -> Section | None:
    """A table for each validation; None without one."""
    if not bundle.validations:
        return None
    articles = [
        {
            "heading": named.label or named.document.checkpoint or "validation",
            "sentence": verdict(named.document),
            "table": Table.of("Requirements", COLUMNS, named.document.findings, list(COLUMNS)),
        }
        for named in bundle.validations
    ]
    return Section(ID, TITLE, SHORT, template="requirements.html", view={"articles": articles})


def verdict(validation: Validation) -> str:
    """How many requirements hold, and which do not."""
    count = wording.plural(len(validation.findings), "requirement")
    judged = "the interval’s bound" if validation.confident else "the value alone"
    if validation.holds:
        return f"All of {count} hold, judged by {judged}."
    failures = wording.listing([f"{finding.requirement} ({finding.verdict})" for finding in validation.failures])
    return f"Of {count}, judged by {judged}, these do not hold: {failures}."
