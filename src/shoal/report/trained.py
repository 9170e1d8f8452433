"""How models were trained or healed, as their own records tell it: no test, only what it took and losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shoal import wording
from shoal.report.bundle import Bundle, Named
from shoal.report.healing_words import target_title
from shoal.report.parts import Section, Table
from shoal.schema import HealRecord, StageRecord, TrainingRecord, ValidationLoss

ID, TITLE, SHORT = "training", "What was trained", "Training"


def build(bundle: Bundle) -> Section | None:
    """Healed models in one table, and an article for each trained one; None without any."""
    if not bundle.heals and not bundle.trainings:
        return None
    view = {
        "healed": _healed(bundle.heals) if bundle.heals else None,
        "sentence": _healed_words([named.document for named in bundle.heals]),
        "articles": [_article(named) for named in bundle.trainings],
    }
    return Section(ID, TITLE, SHORT, template="trained.html", view=view)


def _healed(heals: Sequence[Named[HealRecord]]) -> Table:
    columns = [
        "Healed by",
        "What is trained",
        "Model",
        "Task",
        "Steps",
        "Clips seen",
        "Time",
        "Parameters trained",
        "Loss before",
        "Loss after",
        "Notes",
        "File",
    ]
    caption = "Healed models; losses in nats a response token, on clips that were not trained on"
    rows = [_heal_row(named) for named in heals]
    return Table(caption, columns, rows, text_columns=frozenset({1, 2, 10, 11}))


def _heal_row(named: Named[HealRecord]) -> list[str]:
    record = named.document
    return [
        record.target,
        target_title(record.target),
        record.model.ref,
        record.task,
        f"{record.steps:,}" if record.steps else "none, a fit",
        f"{record.clips:,}" if record.clips else "–",
        wording.duration(record.seconds),
        wording.count(record.trained_parameters),
        _loss(record.loss_before),
        _loss(record.loss_after),
        "; ".join(record.notes) or "–",
        named.label or "–",
    ]


def _loss(value: float | None) -> str:
    return wording.MISSING if value is None else wording.fixed(value, 3)


def _healed_words(records: Sequence[HealRecord]) -> str:
    """One record in a sentence, or how many of several lost less afterwards."""
    if len(records) == 1:
        return _one_healed(records[0])
    pairs = [(r.loss_before, r.loss_after) for r in records]
    measured = [(a, b) for a, b in pairs if a is not None and b is not None]
    fell = sum(after < before for before, after in measured)
    known = (
        f"the loss fell in {fell} of the {len(measured)} that measured it"
        if measured
        else "none measured a loss"
    )
    return (
        f"{wording.plural(len(records), 'healed model')}: {known}. A loss has no interval here."
        if records
        else ""
    )


def _one_healed(record: HealRecord) -> str:
    took = (
        f"Healing {record.model.ref} by {record.target} set {wording.count(record.trained_parameters)} parameters in "
        f"{wording.duration(record.seconds)}"
    )
    if record.loss_before is None or record.loss_after is None:
        return f"{took}. What it did to the loss was not measured."
    return (
        f"{took}; on clips it was not trained on, the loss went from {_loss(record.loss_before)} to "
        f"{_loss(record.loss_after)} nats a token. It has no interval here."
    )


def _article(named: Named[TrainingRecord]) -> dict[str, Any]:
    record = named.document
    return {
        "heading": f"{_parts(record)}" + (f" · {named.label}" if named.label else ""),
        "sentence": _training_words(record),
        "stages": _stages(record.stages),
        "validation": _validation(record.validation) if record.validation else None,
        "notes": record.notes,
    }


def _parts(record: TrainingRecord) -> str:
    found = [str(record.recipe[name]) for name in ("encoder", "decoder") if record.recipe.get(name)]
    return wording.listing(found) or "a model"


def _training_words(record: TrainingRecord) -> str:
    """What it took, and what it loses on other clips."""
    took = wording.duration(sum(stage.seconds for stage in record.stages))
    encoded = (
        f" and {wording.duration(record.encode_seconds)} to encode clips" if record.encode_seconds else ""
    )
    clips = wording.plural(sum(data.clips for data in record.data), "clip")
    length = wording.duration(sum(data.seconds for data in record.data))
    return (
        f"{wording.plural(len(record.stages), 'stage')} in {took}{encoded}, on {clips} ({length}) of "
        f"{wording.plural(len(record.data), 'source')}.{_held_out(record)}"
    )


def _held_out(record: TrainingRecord) -> str:
    if not record.validation:
        return " No loss on other clips was measured."
    losses = [f"{_loss(each.loss)} on {each.data} ({each.task})" for each in record.validation]
    return f" Loss on clips it was not trained on, nats a token: {wording.listing(losses)}."


def _stages(stages: Sequence[StageRecord]) -> Table:
    rows = [
        [
            each.name,
            f"{each.steps:,}",
            f"{each.clips:,}",
            wording.duration(each.seconds),
            wording.count(each.trained_parameters),
            _loss(each.first_loss),
            _loss(each.last_loss),
        ]
        for each in stages
    ]
    columns = [
        "Stage",
        "Steps",
        "Clips seen",
        "Time",
        "Parameters trained",
        "Loss, first step",
        "Loss, last tenth",
    ]
    return Table("Stages; losses on the training clips, nats a token", columns, rows)


def _validation(losses: Sequence[ValidationLoss]) -> Table:
    rows = [
        [each.data, each.task, f"{each.clips:,}", _loss(each.loss), _loss(each.loss_as_saved)]
        for each in losses
    ]
    columns = ["Data", "Task", "Clips", "Loss, nats a token", "The same as saved"]
    return Table("On clips it was not trained on", columns, rows, text_columns=frozenset({1}))
