"""The page: sections put together, with the scripts and the style inside."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from shoal import wording
from shoal._version import __version__
from shoal.report import (
    best_blocks,
    comparison,
    cost,
    examples,
    headline,
    healing,
    heatmaps,
    importance,
    limits,
    parameters,
    provenance,
    requirements,
    scores,
    search,
    task_matrix,
    trained,
    trust,
)
from shoal.report.bundle import Bundle
from shoal.report.parts import Section


class Builder(Protocol):
    """A module that builds one section, or None for one that is left out where it has no data."""

    ID: str

    def build(self, bundle: Bundle) -> Section | None: ...  # noqa: D102


SECTIONS: tuple[Builder, ...] = (
    parameters,
    heatmaps,
    best_blocks,
    importance,
    trust,
    comparison,
    task_matrix,
    search,
    scores,
    requirements,
    healing,
    examples,
    cost,
    trained,
    provenance,
)


def build_page(bundle: Bundle, *, title: str | None = None) -> str:
    """The whole HTML of a report.

    Args:
        bundle: the documents.
        title: heading; by default it names the model.
    """
    sections = [section for module in SECTIONS if (section := module.build(bundle))]
    return (
        environment()
        .get_template("page.html")
        .render(
            title=title or _title(bundle),
            subtitle=_subtitle(bundle),
            headline=headline.build(bundle),
            sections=sections,
            version=__version__,
            style=Markup(_packaged("report.css")),
            **_scripts(sections),
        )
    )


def environment() -> Environment:
    """Templates with escaping on everywhere: whatever comes from data is text."""
    made = Environment(
        loader=PackageLoader("shoal.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["footnotes"] = wording.footnotes
    return made


def _scripts(sections: list[Section]) -> dict[str, str | list[Markup]]:
    """The scripts, and a policy that lets only them run and nothing be fetched.

    A policy by hash holds even if markup from the data slipped through the templates: it would not be run.
    """
    scripts = [_packaged("report.js")]
    if any(section.draws for section in sections):
        scripts.insert(0, get_plotlyjs())
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    return {"policy": policy, "scripts": [Markup(script) for script in scripts]}


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _packaged(name: str) -> str:
    return (resources.files("shoal.report") / "templates" / name).read_text(encoding="utf-8")


def _title(bundle: Bundle) -> str:
    reference = bundle.model.ref if bundle.model else bundle.plans[0].document.model_ref if bundle.plans else ""
    if reference:
        return f"How shallow can {reference} be?"
    return "How was it trained?" if bundle.trainings else "How alike are the audits?"


def _subtitle(bundle: Bundle) -> str:
    facts = []
    if bundle.model:
        facts.append(f"{bundle.model.class_name}, {bundle.model.depth} decoder layers")
        facts.append(f"{wording.count(bundle.model.total_parameters)} parameters")
    if bundle.tasks:
        facts.append(wording.listing([limits.TASK_NAMES.get(task, task) for task in bundle.tasks]))
    if bundle.data:
        facts.append(f"{wording.plural(bundle.data.clips, 'clip')}, {wording.duration(bundle.data.seconds)}")
        if bundle.data.speakers:
            facts.append(wording.plural(bundle.data.speakers, "speaker"))
    return " · ".join(facts)
