"""A validation as JUnit XML, which build servers read (https://github.com/testmoapp/junitxml)."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from shoal import wording
from shoal.schema import Finding, Validation, write_text


def write_junit(validation: Validation, path: Path) -> Path:
    """Write one test case for each finding; one that does not hold, or cannot be told, is a failure.

    Raises:
        FileFormatError: the file cannot be written.
    """
    return write_text(path, junit(validation))


def junit(validation: Validation) -> str:
    """The XML."""
    counts = {"tests": str(len(validation.findings)), "failures": str(len(validation.failures))}
    suites = ElementTree.Element("testsuites", counts)
    name = f"shoal validate {validation.checkpoint or ''}".strip()
    suite = ElementTree.SubElement(
        suites, "testsuite", {**counts, "name": _plain(name), "errors": "0", "timestamp": validation.provenance.created}
    )
    for finding in validation.findings:
        _case(suite, finding)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, finding: Finding) -> None:
    where = finding.where or "not measured"
    case = ElementTree.SubElement(suite, "testcase", {"classname": _plain(where), "name": _plain(finding.requirement)})
    if finding.verdict != "holds":
        message = ": ".join(filter(None, [finding.verdict, finding.shown, finding.reason]))
        failure = {"type": finding.verdict, "message": _plain(message)}
        lines = [finding.requirement, where, message, *wording.footnotes(message)]
        ElementTree.SubElement(case, "failure", failure).text = _plain("\n".join(lines))
    elif finding.shown:
        lines = [finding.shown, *wording.footnotes(finding.shown)]
        ElementTree.SubElement(case, "system-out").text = _plain("\n".join(lines))


def _plain(text: str) -> str:
    """Without the control characters that XML cannot hold."""
    return "".join(character for character in text if character >= " " or character in "\n\t")
