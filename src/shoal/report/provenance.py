"""Where every number comes from: plans, commands, versions, data, fingerprints, licences."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from shoal import wording
from shoal.report import figure_style
from shoal.report.bundle import Bundle, Named
from shoal.report.parts import Section
from shoal.schema import DataInfo, Document, Estimate, ModelInfo, Plan, PlanSource
from shoal.selection.mergekit import mergekit_yaml
from shoal.tables import Table

ID, TITLE, SHORT = "provenance", "Where the numbers come from", "Provenance"


def build(bundle: Bundle) -> Section:
    """Never missing: every document says how it was made."""
    view = {
        "plans": [_plan(plan) for plan in bundle.all_plans],
        "files": [_file(named) for named in bundle],
        "models": _models(bundle),
        "data": _data(bundle),
        "skipped": _skipped(bundle),
    }
    return Section(ID, TITLE, SHORT, template="provenance.html", view=view)


def _plan(plan: Plan) -> dict[str, Any]:
    source = plan.source
    chosen = "; ".join(map(_source, (source, *source.others))) if source else "by hand"
    return {
        "name": plan.name,
        "depth": plan.depth,
        "layers": plan.layers,
        "names": wording.removed_names(plan),
        "list": ", ".join(map(str, plan.layers)),
        "removed": wording.half_open(plan.layers),
        "kept": wording.half_open(plan.keep) if plan.part == "layer" else "all layers, some in part",
        "chosen": chosen,
        "metric": source.metric if source and source.metric else "–",
        "importance": _number(plan.importance),
        "distance": wording.number_estimate(plan.distance) if plan.distance else "–",
        "frequency": "–" if plan.selection_frequency is None else wording.percent(plan.selection_frequency, 0),
        "seed": "–" if plan.seed is None else str(plan.seed),
        "part": "" if plan.part == "layer" else figure_style.PART_NAMES[plan.part],
        "mergekit": mergekit_yaml(plan) if plan.part == "layer" else "",
    }


def _number(estimate: Estimate | None) -> str:
    return wording.with_interval(estimate, wording.number_of(estimate)) if estimate else "–"


def _source(source: PlanSource) -> str:
    weight = "" if source.weight is None else f", weight {source.weight:g}"
    return f"{source.path}, {source.input or '–'} input, scope {source.scope or '–'}{weight}"


def _file(named: Named[Document]) -> dict[str, Any]:
    made = named.document.provenance
    facts = [
        ("Made", made.created),
        ("Shoal", made.shoal),
        ("Python", made.python),
        ("Machine", made.platform),
        ("Device", f"{made.device}, {made.dtype}" + (f", {made.threads} threads" if made.threads else "")),
        ("Packages", ", ".join(f"{name} {version}" for name, version in made.packages.items())),
    ]
    return {
        "kind": named.document.kind,
        "label": named.label or "given in memory",
        "command": shlex.join(made.command) or "not recorded",
        "facts": [(name, value or "not recorded") for name, value in facts],
    }


def _used(bundle: Bundle) -> list[tuple[str, DataInfo]]:
    """All clips: those that were measured on, then those that were trained on."""
    used = [(_label(named), named.document.data) for named in bundle.described]
    used += [(f"{_label(named)}, to heal", named.document.train_data) for named in bundle.healings]
    used += [(f"{_label(named)}, to heal", named.document.data) for named in bundle.heals]
    used += [(f"{_label(named)}, to train", data) for named in bundle.trainings for data in named.document.data]
    return used


def _label(named: Named[Any]) -> str:
    return str(named.label or named.document.kind)


MODELS: dict[str, Callable[[ModelInfo], str]] = {
    "Model": lambda model: model.ref,
    "Class": lambda model: f"{model.class_name} ({model.family})",
    "Layers": lambda model: str(model.depth),
    "Width": lambda model: str(model.hidden_size),
    "Removed before": lambda model: wording.layer_names(model.removed_layers) if model.removed_layers else "none",
    "Licence": lambda model: model.licence or "not recorded",
    "Fingerprint of the weights": lambda model: model.fingerprint or "not recorded",
}
DATA: dict[str, Callable[[tuple[str, DataInfo]], str]] = {
    "Used by": lambda used: used[0],
    "Manifests": lambda used: ", ".join(used[1].manifests),
    "Clips": lambda used: f"{used[1].clips:,}",
    "Length": lambda used: wording.duration(used[1].seconds),
    "Speakers": lambda used: "not recorded" if used[1].speakers is None else str(used[1].speakers),
    "Languages": lambda used: ", ".join(used[1].languages) or "not recorded",
    "Rows skipped": lambda used: str(len(used[1].skipped)),
    "Audio decoder": lambda used: used[1].audio_decoder or "not recorded",
    "Resampler": lambda used: used[1].resampler or "not recorded",
    "Fingerprint of the rows": lambda used: used[1].fingerprint or "not recorded",
}


def _models(bundle: Bundle) -> Table:
    models = {model.fingerprint or model.ref: model for model in bundle.models}
    words = ("Class", "Removed before", "Licence", "Fingerprint of the weights")
    return Table.of("Models", MODELS, models.values(), words)


def _data(bundle: Bundle) -> Table:
    words = ("Manifests", "Languages", "Audio decoder", "Resampler", "Fingerprint of the rows")
    return Table.of("Data", DATA, _used(bundle), words)


def _skipped(bundle: Bundle) -> Table | None:
    reasons = {(row.manifest, row.line): row.reason for _, data in _used(bundle) for row in data.skipped}
    if not reasons:
        return None
    rows = [[manifest, str(line), reason] for (manifest, line), reason in reasons.items()]
    return Table(["Manifest", "Line", "Reason"], rows, "Rows left out", text_columns=frozenset({2}))
