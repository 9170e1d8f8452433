"""Audits and comparisons written while metrics had fields of their own: read as if they were written today."""

from __future__ import annotations

from typing import Any

TITLES = {
    "angular": ("angular distance", "share of pi"),
    "influence": ("block influence", "1 - cosine"),
    "gradient absolute": ("gradient importance, absolute per position", ""),
    "gradient signed": ("signed gradient importance", ""),
}
UNITS = {"share of a half turn": TITLES["angular"][1]}
"""What units were called → what they are called now."""
IMPORTANCES = {
    ("gradient", "absolute"): {
        "option": "gradient-absolute",
        "title": "absolute value of each position",
        "additive": True,
    },
    ("gradient", "signed"): {"option": "gradient-signed", "title": "signed", "additive": True},
    ("ablation", "loss"): {"option": "ablation", "title": "rise of the loss", "noun": "Loss", "measured": True},
    ("ablation", "kl"): {"option": "ablation-kl", "title": "KL from the full model", "noun": "KL", "measured": True},
    ("ablation", "score"): {"option": "ablation-score", "title": "rise of {unit}", "measured": True},
}
ONCE_FIRST = {"gradient": "gradient-absolute"}
"""Metric → what plans were chosen by first in audits that lack what they are chosen by first today."""


def scope_audit(data: Any) -> Any:
    """`angular`, `influence` and their bounds become `metrics`."""
    if not isinstance(data, dict) or "metrics" in data or not {"angular", "influence"} <= data.keys():
        return data
    best = {name: data[name] for name in ("best", "best_keeping_last") if name in data}
    metrics = {name: _metric(data, name) for name in ("angular", "influence")}
    return {**data, "metrics": {**metrics, "angular": {**metrics["angular"], **best}}}


def _metric(data: dict[str, Any], name: str) -> dict[str, Any]:
    rows = {key: data.get(f"{name}_{key}".removesuffix("_values")) for key in ("values", "low", "high")}
    per = "block" if name == "angular" else "layer"
    if per == "layer":
        rows = {key: None if row is None else [row] for key, row in rows.items()}
    title, unit = TITLES[name]
    return {"title": title, "unit": unit, "per": per, **rows}


def unit(name: Any) -> Any:
    """A unit as it is called now."""
    return UNITS.get(name, name)


def importance(data: Any) -> Any:
    """What is known of a metric by its name; `gradient` was the absolute value of each position once."""
    if not isinstance(data, dict):
        return data
    about = IMPORTANCES.get((data.get("metric", ""), data.get("quantity", "")), {})
    if "option" in data:
        return {**data, **about} if data.get("title") == "absolute" else data
    about = {**about, "title": str(about.get("title", "")).format(unit=data.get("unit", ""))}
    return {**about, **data}


def metric_trust(data: Any) -> Any:
    """The same of a metric that was held against the truth."""
    if not isinstance(data, dict):
        return data
    name = str(data.get("metric", ""))
    known = {"title": TITLES.get(name, (name, ""))[0]}
    if "title" in data:
        return {**data, **known} if data["title"] == "absolute gradient importance" else data
    return {**known, "measured": name.startswith("ablation"), **data}


def scope_comparison(data: Any) -> Any:
    """The fields of the angular distance, and the correlation of the influence, become `metrics`."""
    if not isinstance(data, dict) or "metrics" in data or "spearman" not in data:
        return data
    angular = {"title": TITLES["angular"][0], **data}
    influence = {"title": TITLES["influence"][0], "spearman": data.get("influence_spearman")}
    return {"metrics": {"angular": angular, "influence": influence}}


def without_intervals(data: Any) -> Any:
    """The same with every estimate in it as a value: the interval held the truth far less often than it said."""
    if isinstance(data, list):
        return [without_intervals(item) for item in data]
    if not isinstance(data, dict):
        return data
    bounds = {name: None for name in ("low", "high") if name in data and "value" in data}
    return {name: without_intervals(item) for name, item in data.items()} | bounds
