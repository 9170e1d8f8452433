"""The record of what each class passed, from which `shoal families` and `docs/families.md` are made.

A test notes what it has just shown. Normally that must be what the record says already; with `SHOAL_WRITE_FAMILIES=1`
(`make families`) it is written there instead.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import Any

import transformers
from transformers import PreTrainedModel

from shoal.models import families
from shoal.models.families.table import RECORD
from shoal.schema import write_text

LIBRARY = ("processor", "stand_in", "audit", "evaluate", "heal")
"""Facts that depend on what feeds a model."""


def parts_of(model: PreTrainedModel) -> dict[str, Any]:
    """What the record says of where a model's parts are."""
    family = families.find(model)
    return {
        "family": family.name,
        "decoder": type(family.decoder(model)).__name__,
        "layers": family.layers_path(model),
        "depth_field": ".".join([*family.config_path(model), family.depth_field(family.text_config(model))]),
    }


def note(name: str, **facts: Any) -> None:
    """Class `name` has been shown to be as `facts` say."""
    if os.environ.get("SHOAL_WRITE_FAMILIES"):
        _write(name, facts)
        return
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))["classes"].get(name, {})
    if recorded.get("processor", "stock") != "stock":
        # Shown where a library was missing that may be here: what it brings is not in the record.
        facts = {fact: value for fact, value in facts.items() if fact not in LIBRARY}
    differing = {fact: recorded.get(fact) for fact, value in facts.items() if recorded.get(fact) != value}
    assert not differing, f"the record says {differing} of {name}, shown was {facts}; run `make families`"


def _write(name: str, facts: dict[str, Any]) -> None:
    with RECORD.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {"classes": {}}
        record["transformers"] = transformers.__version__
        record["classes"].setdefault(name, {}).update(facts)
        record["classes"] = dict(sorted(record["classes"].items()))
        write_text(RECORD, json.dumps(record, indent=1) + "\n")
