"""The card (README.md) of a trained SpeechLLM: what it is made of, what it has seen, and what was not validated."""

from __future__ import annotations

from typing import Any

from shoal._version import __version__
from shoal.models.adapters import ADAPTERS_FILE
from shoal.prune.card import licence_lines, quoted
from shoal.schema import DataInfo, TrainingRecord

NOT_VALIDATED = (
    "Word error rate or any other score of its answers: what is given is the loss on held-out clips. "
    "Measure it with `shoal evaluate` on your own data.",
    "Any task, language, speaker group or recording condition that is not in the data above.",
    "Generation of speech: it answers in text.",
)


def training_card(record: TrainingRecord) -> str:
    """README.md for a folder of adapters, with front matter that the Hugging Face Hub reads."""
    recipe = record.recipe
    parts = [
        _front_matter(record),
        f"# A SpeechLLM of {recipe['encoder']} and {recipe['decoder']}",
        recipe.get("about") or "",
        f"Adapters only (`{ADAPTERS_FILE}` says what belongs to them). Load them with `shoal.load(FOLDER)`, or write a "
        "merged checkpoint with `shoal prune FOLDER --layers-list … --out DIR`.",
        "## Made of\n\n" + "\n".join(_made_of(recipe)),
        "## Trained on\n\n"
        + "\n".join(_source(info, each) for info, each in zip(record.data, recipe["train"], strict=True)),
        "## Stages\n\n" + _stages(record),
        *([_validation(record)] if record.validation else []),
        "## Not validated\n\n" + "\n".join(f"- {each}" for each in NOT_VALIDATED),
        f"Written by Shoal {__version__}; `shoal-training.json` has the whole recipe.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(record: TrainingRecord) -> str:
    recipe = record.recipe
    lines = [
        "library_name: shoal",
        f"base_model: [{quoted(recipe['encoder'])}, {quoted(recipe['decoder'])}]",
        *licence_lines(recipe.get("licence")),
        "tags: [shoal, speech, automatic-speech-recognition]",
    ]
    return "\n".join(["---", *lines, "---"])


def _made_of(recipe: dict[str, Any]) -> list[str]:
    lora = recipe["lora"]
    low_rank = f", low-rank updates of the decoder (rank {lora['rank']}, alpha {lora['alpha']:g})"
    return [
        f"- Encoder: `{recipe['encoder']}`, frozen",
        f"- Projector: {', '.join(f'{name} {value}' for name, value in recipe['projector'].items()) or 'mlp'}",
        f"- Decoder: `{recipe['decoder']}`",
        f"- Trained: the projector{low_rank if recipe['condition'] == 'projector+lora' else ''}",
    ]


def _source(info: DataInfo, source: dict[str, Any]) -> str:
    kept = ", ".join(f"{name} {value}" for name, value in source["where"].items())
    speakers = f", {info.speakers} speakers" if info.speakers else ""
    languages = f", {' '.join(info.languages)}" if info.languages else ""
    return (
        f"- `{', '.join(info.manifests)}`{f' ({kept})' if kept else ''}, {source['task']}: {info.clips:,} clips, "
        f"{info.seconds / 3600:.2f} h{speakers}{languages}"
    )


def _stages(record: TrainingRecord) -> str:
    lines = [
        "| Stage | Steps | Clips | Seconds | Parameters | Loss, first | Loss, last |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.name} | {each.steps:,} | {each.clips:,} | {each.seconds:,.0f} | {each.trained_parameters:,} | "
        f"{each.first_loss:.3f} | {each.last_loss:.3f} |"
        for each in record.stages
    ]
    return "\n".join(lines)


def _validation(record: TrainingRecord) -> str:
    lines = ["| Data | Task | Clips | Loss, nats a token | As saved |", "|---|---|---|---|---|"]
    for each in record.validation:
        saved = "" if each.loss_as_saved is None else f"{each.loss_as_saved:.3f}"
        lines.append(f"| `{each.data}` | {each.task} | {each.clips} | {each.loss:.3f} | {saved} |")
    return "## On clips it was not trained on\n\n" + "\n".join(lines)
