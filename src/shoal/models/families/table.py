"""What Shoal can do with which class, as a table: made of what the contract tests recorded, not of intentions.

`verified.json` beside this file is written by `make families` (the contract tests in writing mode) and checked by
every other run of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from shoal.models import families
from shoal.models.families.audio_llm import AudioLLM
from shoal.tables import Table

RECORD = Path(__file__).with_name("verified.json")
ENTRIES: Mapping[str, str] = {
    "slot": "audio tokens",
    "added": "added to every token",
    "cross": "cross-attention",
    "codes": "codec tokens",
    "none": "none",
    "text": "text only",
}
"""How audio enters, in words."""


@dataclass(frozen=True)
class Support:
    """One class and what has been shown for it."""

    class_name: str
    family: str
    decoder: str = ""
    """Class of the decoder stack."""
    depth_field: str = ""
    """Where in the config the number of decoder layers stands."""
    layers: str = ""
    """Where in the model the layers are."""
    audio: str = "text"
    """How audio enters: a key of `ENTRIES`."""
    audit: tuple[str, ...] = ()
    """Inputs with which the audit equals loops over the stock forward."""
    prune: tuple[str, ...] = ()
    """`memory`, `disk`: ways whose checkpoint the stock class loads and which is the model that was pruned."""
    evaluate: str = ""
    """`engine`, `generate` or nothing: what decodes, with the tokens of the stock `generate`."""
    heal: tuple[str, ...] = ()
    """Targets of which a step has been shown to change what they say and nothing else."""
    checks: tuple[str, ...] = ()
    """What was checked in a fresh process."""
    how: str = ""
    """How that was, if not in a fresh process."""
    processor: str = "stock"
    """`stock`, or why a processor could not be built for the tests."""
    stand_in: str = ""
    """What of the processor is a stand-in in the tests."""
    generates_speech: bool = False
    limits: str = ""
    """What a user should know besides."""


@cache
def supported() -> tuple[Support, ...]:
    """Every class that the contract tests cover, those that hear first, by family."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))["classes"]
    classes = [_support(name, facts) for name, facts in record.items()]
    return tuple(sorted(classes, key=lambda support: (support.audio == "text", support.family, support.class_name)))


def transformers_version() -> str:
    """The version of transformers that the record was made with."""
    return str(json.loads(RECORD.read_text(encoding="utf-8"))["transformers"])


def _support(name: str, facts: Mapping[str, Any]) -> Support:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    family = next((family for family in families.families() if family.name == facts["family"]), None)
    if isinstance(family, AudioLLM):
        values |= {"audio": family.entry, "generates_speech": family.speaks(name), "limits": family.limits_of(name)}
    return Support(class_name=name, **values)


def as_document() -> dict[str, Any]:
    """The record for machines."""
    return {"transformers": transformers_version(), "classes": [asdict(support) for support in supported()]}


def as_table() -> Table:
    """The table for people; `docs/families.md` holds it as Markdown."""
    rows = [_cells(support) for support in supported()]
    headings = list(rows[0])
    return Table(headings, [list(row.values()) for row in rows], text_columns=frozenset(range(len(headings))))


def _cells(support: Support) -> dict[str, str]:
    speaks = "Answers in speech: what pruning does to that is not validated. " if support.generates_speech else ""
    no_processor = "" if support.processor == "stock" else f"No processor in the tests: {support.processor}. "
    stand_in = f"In the tests a stand-in does the work of {support.stand_in}. " if support.stand_in else ""
    return {
        "family": support.family,
        "class": support.class_name if " " in support.class_name else f"`{support.class_name}`",
        "decoder": f"{support.decoder}, `{support.depth_field}`",
        "audio enters as": ENTRIES[support.audio],
        "audit": ", ".join(support.audit),
        "prune": ", ".join(support.prune),
        "heal": ", ".join(support.heal),
        "evaluate": support.evaluate,
        "verified": verified(support),
        "limits": (speaks + no_processor + stand_in + _sentence(support.limits)).strip(),
    }


def _sentence(text: str) -> str:
    """With a capital at the start and a full stop at the end."""
    return text and text[0].upper() + text[1:].rstrip(".") + "."


def verified(support: Support) -> str:
    """How it was verified, in a few words."""
    if support.how:
        return support.how
    where = "fresh process" if "load" in support.checks else "not verified"
    missing = [name for name in ("logits", "round_trip", "cache") if name not in support.checks]
    return where if not missing or where == "not verified" else f"{where}, without {', '.join(missing)}"
