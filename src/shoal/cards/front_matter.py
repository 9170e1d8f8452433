"""What the Hugging Face Hub reads of a card: its front matter, with the scores as a `model-index`.

The fields are those of https://github.com/huggingface/hub-docs/blob/main/modelcard.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult, ModelCardData

from shoal.cards.facts import CardFacts, published
from shoal.data_names import data_name
from shoal.schema import DataInfo

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


def front_matter(facts: CardFacts) -> str:
    """The lines between `---` and `---`."""
    trained_only = facts.training is not None and not facts.changed
    bases = [facts.original]
    if facts.training is not None and trained_only:
        bases = [facts.training.recipe["encoder"], facts.training.recipe["decoder"]]
    # The folder of the step before says nothing to whoever finds the card on the Hub.
    bases = [_one_line(name) for name in bases if published(name)]
    tags = [
        "shoal",
        *(["speech", "automatic-speech-recognition"] if trained_only else []),
        *(["layer-pruning"] if facts.changed else []),
        *(["healed"] if facts.healed_last else []),
    ]
    own = facts.adapters and facts.adapter_of is None
    results = list(_results(facts.measured))
    licence, licence_name = _licence(facts.licence)
    card = ModelCardData(
        library_name="peft" if facts.adapter_of else "shoal" if own else "transformers",
        base_model=bases[0] if len(bases) == 1 else bases or None,
        license=licence,
        license_name=licence_name,
        tags=tags,
        language=sorted({language for result in facts.measured for language in result.data.languages}) or None,
        model_name=facts.title if results else None,
        eval_results=results or None,
    )
    return f"---\n{card.to_yaml()}\n---"


def _licence(licence: str | None) -> tuple[str | None, str | None]:
    """A licence as the Hub wants it: one of its own, or `other` and a name; nothing where it is not known."""
    if not licence:
        return None, None
    if licence.lower() in HUB_LICENCES:
        return licence.lower(), None
    return "other", _one_line(licence)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _results(measured: Sequence[Measured]) -> Iterator[EvalResult]:
    """Every score of the tasks that the Hub knows."""
    for result in measured:
        dataset, config = _dataset(result.data)
        for measure, score in result.system.measures.items() if result.kind in HUB_TASKS else ():
            yield EvalResult(
                task_type=HUB_TASKS[result.kind],
                dataset_type=dataset,
                dataset_name=data_name(result.data),
                dataset_config=config,
                metric_type=HUB_METRICS.get(measure, measure.lower().replace(" ", "_")),
                metric_value=round(score.value.value * (100 if score.fraction else 1), 2),
                metric_name=measure,
            )


def _dataset(data: DataInfo) -> tuple[str, str]:
    """A data set of the Hub by its id and what of it, any other by its file's name and where that lies.

    Without the second, scores of corpora that are called alike would count as scores of one.
    """
    first = data.manifests[0] if data.manifests else "clips"
    if first.startswith("hf:"):
        dataset, _, part = first.removeprefix("hf:").partition(":")
        return dataset, part or "default"
    path = PurePath(first)
    own = path.parent.name if path.stem in PLAIN_NAMES and path.parent.name else path.stem
    return re.sub(r"[^a-z0-9_-]+", "-", own.lower()).strip("-") or "clips", data_name(data)
