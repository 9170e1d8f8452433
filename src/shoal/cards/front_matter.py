"""What the Hugging Face Hub reads of a card: its front matter, with the scores as a `model-index`.

The fields are those of https://github.com/huggingface/hub-docs/blob/main/modelcard.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import yaml

from shoal.data_names import data_name
from shoal.schema import DataInfo, MeasuredScore

if TYPE_CHECKING:
    from shoal.cards.measured import Measured

HUB_LICENCES = frozenset({"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "gemma", "openrail"})
"""Licences that the Hub knows by these names; any other is `other`, with its name beside it."""
HUB_TASKS = {
    "asr": "automatic-speech-recognition",
    "ast": "translation",
    "ser": "audio-classification",
    "sqa": "audio-text-to-text",
    "tts": "text-to-speech",
    "lm": "text-generation",
}
HUB_METRICS = {"UAR": "recall", "macro-F1": "f1", "exact match": "exact_match", "token F1": "f1"}
"""Where the Hub's name of a score is not Shoal's in lower case."""

PLAIN_NAMES = frozenset({"manifest", "train", "test", "dev", "validation"})
"""Names of manifests that say less than those of their folders."""


def front_matter(
    *,
    library: str,
    base: str | Sequence[str],
    licence: str | None,
    tags: Sequence[str],
    name: str = "",
    measured: Sequence[Measured] = (),
) -> str:
    """The lines between `---` and `---`.

    Args:
        library: that loads the checkpoint.
        base: the model or models it was made of.
        licence: if known.
        tags: what the Hub files it under.
        name: of the checkpoint, for the `model-index`.
        measured: its scores.
    """
    bases = quoted(base) if isinstance(base, str) else f"[{', '.join(map(quoted, base))}]"
    lines = [
        f"library_name: {library}",
        f"base_model: {bases}",
        *licence_lines(licence),
        f"tags: [{', '.join(tags)}]",
        *_languages(measured),
        *_model_index(name, measured),
    ]
    return "\n".join(["---", *lines, "---"])


def licence_lines(licence: str | None) -> list[str]:
    """A licence as the Hub wants it named; nothing where it is not known."""
    if not licence:
        return []
    if licence.lower() in HUB_LICENCES:
        return [f"license: {licence.lower()}"]
    return ["license: other", f"license_name: {quoted(licence)}"]


def quoted(text: str) -> str:
    """`text` in one line, as YAML takes it in quotation marks."""
    escaped = " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _languages(measured: Sequence[Measured]) -> list[str]:
    """In quotation marks: `no` is a language."""
    found = sorted({language for each in measured for language in each.scores.data.languages})
    return [f"language: [{', '.join(map(quoted, found))}]"] if found else []


def _model_index(name: str, measured: Sequence[Measured]) -> list[str]:
    results = [result for each in measured if (result := _result(each))]
    if not results:
        return []
    index = {"model-index": [{"name": name, "results": results}]}
    text = yaml.safe_dump(index, sort_keys=False, allow_unicode=True, width=1000)
    return text.rstrip().splitlines()


def _result(each: Measured) -> dict[str, Any] | None:
    """One task on one data set; None for a task that the Hub does not know."""
    if each.kind not in HUB_TASKS:
        return None
    return {
        "task": {"type": HUB_TASKS[each.kind]},
        "dataset": _dataset(each.scores.data),
        "metrics": [_metric(name, score) for name, score in each.system.measures.items()],
    }


def _dataset(data: DataInfo) -> dict[str, str]:
    """A data set of the Hub by its id; any other by its file's name."""
    first = data.manifests[0] if data.manifests else "clips"
    if first.startswith("hf:"):
        return {"name": data_name(data), "type": first.removeprefix("hf:").partition(":")[0]}
    path = PurePath(first)
    own = path.parent.name if path.stem in PLAIN_NAMES and path.parent.name else path.stem
    slug = re.sub(r"[^a-z0-9_-]+", "-", own.lower()).strip("-") or "clips"
    return {"name": data_name(data), "type": slug}


def _metric(name: str, score: MeasuredScore) -> dict[str, Any]:
    value = score.value.value * (100 if score.fraction else 1)
    metric = HUB_METRICS.get(name, name.lower().replace(" ", "_"))
    return {"type": metric, "value": round(value, 2), "name": name}
