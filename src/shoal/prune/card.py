"""The card (README.md) of a pruned checkpoint: what was removed, and what was not validated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shoal._version import __version__
from shoal.schema import ModelInfo, Plan

if TYPE_CHECKING:
    from shoal.prune.verify import VerificationReport

HUB_LICENCES = frozenset({"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "gemma", "openrail"})
"""Licences that the Hub knows by these names; any other is `other`, with its name beside it."""
SPEAKS = (
    "**What it says aloud.** This model answers in speech, and nothing was tested of what the removed layers do to "
    "that: listen before you use it."
)
UNLOADED = (
    "That the checkpoint loads and gives the logits of the pruned model: the unpruned one did not fit in memory "
    "where it was pruned."
)
NOT_VALIDATED = (
    "Accuracy on any task, language, speaker group or recording condition. Measure it: "
    "`shoal evaluate` with your own data, against the unpruned model.",
    "Generation of speech. Nothing here assumes that it survives.",
    "Quantised, compiled or other ways of running the checkpoint than PyTorch with transformers.",
)


def card(plan: Plan, info: ModelInfo, report: VerificationReport | None) -> str:
    """README.md for a checkpoint, with front matter that the Hugging Face Hub reads.

    Args:
        plan: what was removed.
        info: the model it was removed from.
        report: what was checked before the checkpoint gets its name; None if nothing was.
    """
    return (
        "\n\n".join(
            [
                front_matter(info),
                *_what(plan, info),
                checked(report),
                not_validated(report, info),
                _plan(plan),
            ]
        )
        + "\n"
    )


def speaks(info: ModelInfo) -> bool:
    """Whether the model, or a part that reads its decoder's states, answers in speech."""
    from shoal.models.families import families
    from shoal.models.families.audio_llm import AudioLLM

    family = next((each for each in families() if each.name == info.family), None)
    return isinstance(family, AudioLLM) and family.speaks(info.class_name)


def front_matter(
    info: ModelInfo, *, base: str = "", library: str = "transformers", tags: Sequence[str] = ()
) -> str:
    """What the Hub reads of a card.

    Args:
        info: the model that the checkpoint was made of.
        base: what it is called, if not as in `info`.
        library: that loads the checkpoint.
        tags: more than those of every pruned model.
    """
    lines = [
        f"library_name: {library}",
        f"base_model: {quoted(base or info.ref)}",
        *licence_lines(info.licence),
        f"tags: [{', '.join(['shoal', 'layer-pruning', *tags])}]",
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


def _what(plan: Plan, info: ModelInfo) -> list[str]:
    removed = ", ".join(map(str, plan.layers)) or "none"
    block = f" (the block [{plan.block[0]}, {plan.block[1]}))" if plan.block else ""
    gone = sum(info.decoder_layer_parameters[layer] for layer in plan.layers)
    share = f" ({gone / info.total_parameters:.1%})" if info.total_parameters else ""
    earlier = ", ".join(map(str, info.removed_layers))
    facts = [
        f"- Model: `{info.ref}` ({info.class_name}, {info.depth} decoder layers)",
        f"- Removed, 0-based: {removed}{block}; {len(plan.keep)} of {plan.depth} layers stay",
        f"- Parameters: {info.total_parameters - gone:,} of {info.total_parameters:,}; {gone:,} gone{share}",
        f"- Chosen by: {plan.strategy}{origin(plan)}",
        f"- Licence of the model: {info.licence or 'not known to Shoal; see the model it comes from'}",
        *([f"- The model had been pruned before; missing already: {earlier}"] if earlier else []),
    ]
    return [f"# {info.ref} without {len(plan.layers)} decoder layers", "\n".join(facts)]


def origin(plan: Plan) -> str:
    """The audit that a plan was chosen from, as the end of a sentence; empty if there was none."""
    if plan.source is None:
        return ""
    parts = [
        f"{name} {value}" for name in ("input", "scope", "metric") if (value := getattr(plan.source, name))
    ]
    return f", from `{plan.source.path}`" + (f" ({', '.join(parts)})" if parts else "")


def checked(report: VerificationReport | None, done: str = "pruned") -> str:
    """The section on what was checked; `done` says what was done to the model in memory."""
    if report is None:
        return "## Checked\n\nNothing: this checkpoint was written without verification."
    how = (
        f"Loaded in a fresh process with the stock class, and compared with the {done} model in memory"
        if report.complete
        else "Written shard by shard and not loaded; the bytes are those of the unpruned checkpoint"
    )
    items = "\n".join(f"- {check.name.replace('_', ' ')}: {check.detail}" for check in report.checks)
    return f"## Checked\n\n{how}:\n\n{items}"


def not_validated(report: VerificationReport | None, info: ModelInfo, more: Sequence[str] = ()) -> str:
    """The section on what nobody has checked; `more` comes first."""
    unloaded = report is not None and not report.complete
    items = [
        *more,
        *([SPEAKS] if speaks(info) else []),
        *([UNLOADED] if unloaded else []),
        *NOT_VALIDATED,
    ]
    return "## Not validated\n\n" + "\n".join(f"- {item}" for item in items)


def _plan(plan: Plan) -> str:
    return f"## The plan\n\nWritten by Shoal {__version__}.\n\n```json\n{plan.model_dump_json(indent=1)}\n```"
