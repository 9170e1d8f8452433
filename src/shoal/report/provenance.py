"""Where every number comes from: plans, commands, versions, data, fingerprints, licences."""

from __future__ import annotations

import shlex
from typing import Any

from shoal import wording
from shoal.report import figure_style
from shoal.report.bundle import Bundle, Described, Named
from shoal.report.parts import Section, Table
from shoal.report.units import number_of
from shoal.schema import DataInfo, Document, Estimate, HealRecord, Plan, PlanSource
from shoal.selection.mergekit import mergekit_yaml

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
    chosen = "; ".join(_source(each) for each in (source, *source.others)) if source else "by hand"
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
        "stability": wording.percent(plan.stability, 0) if plan.stability is not None else "–",
        "seed": "–" if plan.seed is None else str(plan.seed),
        "part": "" if plan.part == "layer" else figure_style.PART_NAMES[plan.part],
        "mergekit": mergekit_yaml(plan) if plan.part == "layer" else "",
    }


def _number(estimate: Estimate | None) -> str:
    return wording.with_interval(estimate, number_of(estimate)) if estimate else "–"


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


def _described(bundle: Bundle) -> list[Described | Named[HealRecord]]:
    return [*bundle.described, *bundle.heals]


def _used(bundle: Bundle) -> list[tuple[str, DataInfo]]:
    """All clips: those that were measured on, then those that were trained on."""
    used = [(_label(named), named.document.data) for named in bundle.described]
    used += [(f"{_label(named)}, to heal", named.document.train_data) for named in bundle.healings]
    used += [(f"{_label(named)}, to heal", named.document.data) for named in bundle.heals]
    used += [(f"{_label(named)}, to train", data) for named in bundle.trainings for data in named.document.data]
    return used


def _label(named: Named[Any]) -> str:
    return str(named.label or named.document.kind)


def _models(bundle: Bundle) -> Table:
    found = [named.document.model for named in _described(bundle)]
    models = {model.fingerprint or model.ref: model for model in found}
    rows = [
        [
            model.ref,
            f"{model.class_name} ({model.family})",
            str(model.depth),
            str(model.hidden_size),
            wording.layer_names(model.removed_layers) if model.removed_layers else "none",
            model.licence or "not recorded",
            model.fingerprint or "not recorded",
        ]
        for model in models.values()
    ]
    columns = ["Model", "Class", "Layers", "Width", "Removed before", "Licence", "Fingerprint of the weights"]
    return Table("Models", columns, rows, text_columns=frozenset({1, 4, 5, 6}))


def _data(bundle: Bundle) -> Table:
    rows = [
        [
            label,
            ", ".join(data.manifests),
            f"{data.clips:,}",
            wording.duration(data.seconds),
            "not recorded" if data.speakers is None else str(data.speakers),
            ", ".join(data.languages) or "not recorded",
            str(len(data.skipped)),
            data.audio_decoder or "not recorded",
            data.resampler or "not recorded",
            data.fingerprint or "not recorded",
        ]
        for label, data in _used(bundle)
    ]
    columns = [
        "Used by",
        "Manifests",
        "Clips",
        "Length",
        "Speakers",
        "Languages",
        "Rows skipped",
        "Audio decoder",
        "Resampler",
        "Fingerprint of the rows",
    ]
    return Table("Data", columns, rows, text_columns=frozenset({1, 5, 7, 8, 9}))


def _skipped(bundle: Bundle) -> Table | None:
    found = {(r.manifest, r.line): r.reason for _, data in _used(bundle) for r in data.skipped}
    if not found:
        return None
    rows = [[manifest, str(line), reason] for (manifest, line), reason in found.items()]
    return Table("Rows left out", ["Manifest", "Line", "Reason"], rows, text_columns=frozenset({2}))
