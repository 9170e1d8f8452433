"""How models were trained or healed, as their own records tell it: no test, only what it took and losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from shoal import wording
from shoal.cards.history import STAGES, VALIDATION, loss_text
from shoal.report.bundle import Bundle, Named
from shoal.report.healing_words import target_title
from shoal.report.parts import Section
from shoal.schema import HealRecord, TrainingRecord
from shoal.tables import Table

ID, TITLE, SHORT = "training", "What was trained", "Training"


def build(bundle: Bundle) -> Section | None:
    """Healed models in one table, and an article for each trained one; None without any."""
    if not bundle.heals and not bundle.trainings:
        return None
    caption = "Healed models; losses in nats a response token, on clips that were not trained on"
    words = ("What is trained", "Notes", "File")
    view = {
        "healed": Table.of(caption, HEALED, bundle.heals, words) if bundle.heals else None,
        "sentence": _healed_words([named.document for named in bundle.heals]),
        "articles": [_article(named) for named in bundle.trainings],
    }
    return Section(ID, TITLE, SHORT, template="trained.html", view=view)


HEALED: dict[str, Callable[[Named[HealRecord]], str]] = {
    "Healed by": lambda named: named.document.target,
    "What is trained": lambda named: target_title(named.document.target),
    "Model": lambda named: named.document.model.ref,
    "Task": lambda named: named.document.task,
    "Steps": lambda named: f"{named.document.steps:,}" if named.document.steps else "none, a fit",
    "Clips seen": lambda named: f"{named.document.clips:,}" if named.document.clips else "–",
    "Time": lambda named: wording.duration(named.document.seconds),
    "Parameters trained": lambda named: wording.count(named.document.trained_parameters),
    "Fitted on": lambda named: wording.fitted_on(named.document.fitted_clips, named.document.fitted_positions),
    "Loss before": lambda named: loss_text(named.document.loss_before),
    "Loss after": lambda named: loss_text(named.document.loss_after),
    "Notes": lambda named: "; ".join(named.document.notes) or "–",
    "File": lambda named: named.label or "–",
}


def _healed_words(records: Sequence[HealRecord]) -> str:
    """One record in a sentence, or how many of several lost less afterwards."""
    if len(records) == 1:
        return _one_healed(records[0])
    pairs = [(r.loss_before, r.loss_after) for r in records]
    measured = [(a, b) for a, b in pairs if a is not None and b is not None]
    fell = sum(after < before for before, after in measured)
    known = f"the loss fell in {fell} of the {len(measured)} that measured it" if measured else "none measured a loss"
    return f"{wording.plural(len(records), 'healed model')}: {known}. A loss has no interval here." if records else ""


def _one_healed(record: HealRecord) -> str:
    fitted = wording.fitted_on(record.fitted_clips, record.fitted_positions) if record.fitted_clips else ""
    took = (
        f"Healing {record.model.ref} by {record.target} set {wording.count(record.trained_parameters)} parameters in "
        f"{wording.duration(record.seconds)}" + (f", fitted on {fitted}" if fitted else "")
    )
    if record.loss_before is None or record.loss_after is None:
        return f"{took}. What it did to the loss was not measured."
    return (
        f"{took}; on clips it was not trained on, the loss went from {loss_text(record.loss_before)} to "
        f"{loss_text(record.loss_after)} nats a token. It has no interval here."
    )


def _article(named: Named[TrainingRecord]) -> dict[str, Any]:
    record = named.document
    losses = Table.of("On clips it was not trained on", VALIDATION, record.validation, ("Task",))
    return {
        "heading": f"{_parts(record)}" + (f" · {named.label}" if named.label else ""),
        "sentence": _training_words(record),
        "stages": Table.of("Stages; losses on the training clips, nats a token", STAGES, record.stages),
        "validation": losses if record.validation else None,
        "notes": record.notes,
    }


def _parts(record: TrainingRecord) -> str:
    parts = [str(record.recipe[name]) for name in ("encoder", "decoder") if record.recipe.get(name)]
    return wording.listing(parts) or "a model"


def _training_words(record: TrainingRecord) -> str:
    """What it took, and what it loses on other clips."""
    took = wording.duration(sum(stage.seconds for stage in record.stages))
    encoded = f" and {wording.duration(record.encode_seconds)} to encode clips" if record.encode_seconds else ""
    clips = wording.plural(sum(data.clips for data in record.data), "clip")
    length = wording.duration(sum(data.seconds for data in record.data))
    return (
        f"{wording.plural(len(record.stages), 'stage')} in {took}{encoded}, on {clips} ({length}) of "
        f"{wording.plural(len(record.data), 'source')}.{_held_out(record)}"
    )


def _held_out(record: TrainingRecord) -> str:
    if not record.validation:
        return " No loss on other clips was measured."
    losses = [f"{loss_text(clips.loss)} on {clips.data} ({clips.task})" for clips in record.validation]
    return f" Loss on clips it was not trained on, nats a token: {wording.listing(losses)}."
