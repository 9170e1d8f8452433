"""The card (README.md) of a healed model: what was removed, how it was healed, and what was not validated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shoal._version import __version__
from shoal.models.lineage import HEAL_FILE, heal_files, plan_files, removed_layers
from shoal.prune.card import checked, front_matter, not_validated, origin
from shoal.schema import HealRecord, Plan

if TYPE_CHECKING:
    from shoal.prune.verify import VerificationReport


def heal_card(
    record: HealRecord, history: Path, report: VerificationReport | None, *, base: str | None = None
) -> str:
    """README.md for a healed model, with front matter that the Hugging Face Hub reads.

    Args:
        record: how it was healed.
        history: the folder with the plans that were carried out on it, and the records of earlier healings.
        report: what was checked before the folder gets its name; None if nothing was.
        base: the model that this folder is an adapter for; None if it holds the whole model.
    """
    only = (
        f"Anything but {record.task} on clips like those it was healed on: what healing did to other tasks, languages "
        "and voices was not measured."
    )
    parts = [
        front_matter(
            record.model,
            base=base or "",
            library="transformers" if base is None else "peft",
            tags=("healed",),
        ),
        _title(record, history, base),
        _removed(record, history),
        _healed(record, _earlier(history, base)),
        checked(report, "healed"),
        not_validated(report, record.model, [only]),
        f"Written by Shoal {__version__}; the whole record is in `{HEAL_FILE}`.",
    ]
    return "\n\n".join(parts) + "\n"


def _title(record: HealRecord, history: Path, base: str | None) -> str:
    removed = removed_layers(history)
    without = f" without {len(removed)} decoder layers" if removed else ""
    title = f"# {record.model.ref}{without}, healed"
    if base is None:
        return title
    use = f'PeftModel.from_pretrained(model, "this folder")  # model: {base}, loaded with its stock class'
    return f"{title}\n\nAn adapter for PEFT, or `shoal.load` of this folder:\n\n```python\n{use}\n```"


def _removed(record: HealRecord, history: Path) -> str:
    plans = [(path.name, Plan.load(path)) for path in plan_files(history)]
    missing = ", ".join(map(str, removed_layers(history))) or "nothing that a plan in its folder tells of"
    of = f" of {plans[0][1].depth}" if plans else ""
    facts = [
        f"- Model: `{record.model.ref}` ({record.model.class_name})",
        f"- Decoder layers removed, 0-based, in the numbering of the unpruned model{of}: {missing}",
        *(f"- `{name}`: {_plan(plan)}" for name, plan in plans),
        f"- Licence of the model: {record.model.licence or 'not known to Shoal; see the model it comes from'}",
    ]
    return "## What was removed\n\n" + "\n".join(facts)


def _plan(plan: Plan) -> str:
    layers = ", ".join(map(str, plan.layers)) or "none"
    return f"layers {layers} of {plan.depth}, chosen by {plan.strategy}{origin(plan)}"


def _earlier(history: Path, base: str | None) -> list[HealRecord]:
    """Healings before this one, whose record lies in `history` already if that is the folder of the whole model."""
    paths = heal_files(history)
    return [HealRecord.load(path) for path in paths if base is not None or path.name != HEAL_FILE]


def _healed(record: HealRecord, earlier: Sequence[HealRecord]) -> str:
    facts = [
        f"- Trained: {record.target} ({record.trained_parameters:,} parameters)",
        f"- Task: {record.task}",
        f"- Clips: {_clips(record)}",
        f"- Steps: {record.steps if record.steps else 'none, a fit in closed form'}; {record.seconds:,.0f} s",
        f"- Loss, nats a response token on clips that were not trained on: {_loss(record)}",
        *([f"- Teacher: `{record.teacher}`"] if record.teacher else []),
        *(f"- Healed before: {each.target} on {each.task}, {each.steps} steps" for each in earlier),
        *(f"- Note: {note}" for note in record.notes),
    ]
    return "## How it was healed\n\n" + "\n".join(facts)


def _clips(record: HealRecord) -> str:
    data = record.data
    languages = f", {', '.join(data.languages)}" if data.languages else ""
    seen = f"; {record.clips:,} seen, repeated ones counted again" if record.clips else ""
    return f"{data.clips:,} ({data.seconds / 3600:.2f} h{languages}){seen}"


def _loss(record: HealRecord) -> str:
    if record.loss_before is None or record.loss_after is None:
        return "not measured"
    return f"{record.loss_before:.4g} before, {record.loss_after:.4g} after"
