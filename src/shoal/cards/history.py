"""The sections on what was done to a checkpoint: removed, healed, trained; and on what was checked of the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from shoal import wording
from shoal.cards.facts import CHECKED, CardFacts, shown_name
from shoal.cards.markdown import bullets, code, section
from shoal.data_names import data_name
from shoal.schema import DataInfo, HealRecord, Plan, StageRecord, TrainingRecord, ValidationLoss
from shoal.tables import Table
from shoal.wording import fitted_on

if TYPE_CHECKING:
    from shoal.schema.verification import VerificationReport

LICENCE_UNKNOWN = "not known to Shoal; see the model it comes from"


def removed(facts: CardFacts) -> str:
    """Which layers are missing, and who chose them."""
    if facts.training is not None and not facts.changed:
        return ""
    licence = f"Licence of the model: {facts.licence or LICENCE_UNKNOWN}"
    if not facts.plans:
        model = f"Model: {_model(facts)}; no plan in its folder tells of a layer that was removed"
        return section("What was removed", bullets([model, licence]))
    first, last = facts.plans[0][1], facts.plans[-1][1]
    block = f" (the block [{last.block[0]}, {last.block[1]}))" if last.block and len(facts.plans) == 1 else ""
    missing = ", ".join(map(str, facts.removed)) or "none"
    facts_of = [
        f"Model: {_model(facts)}",
        f"Decoder layers removed, 0-based, in the numbering of the unpruned model of {first.depth}: {missing}{block}",
        f"{first.depth - len(facts.removed)} of {first.depth} layers stay",
        *_parameters(facts),
        *(f"{code(name)}: {_plan(plan)}" for name, plan in facts.plans),
        licence,
    ]
    return section("What was removed", bullets(facts_of))


def healed(facts: CardFacts) -> str:
    """How it was healed, the last time in full."""
    if not facts.healings:
        return ""
    record, earlier = facts.healings[-1], facts.healings[:-1]
    lines = [
        f"Trained: {record.target} ({record.trained_parameters:,} parameters)",
        f"Task: {record.task}",
        f"Clips: {_clips(record)}",
        f"Fitted on: {fitted_on(record.fitted_clips, record.fitted_positions)}",
        f"Steps: {record.steps if record.steps else 'none, a fit in closed form'}; {record.seconds:,.0f} s",
        f"Loss, nats a response token on clips that were not trained on: {_loss(record)}",
        *([f"Teacher: {code(shown_name(record.teacher))}"] if record.teacher else []),
        *(f"Healed before: {heal.target} on {heal.task}, {heal.steps} steps" for heal in earlier),
        *([] if facts.healed_last else ["Layers were removed after it was healed"]),
        *(f"Note: {note}" for note in record.notes),
    ]
    return section("How it was healed", bullets(lines))


def trained(facts: CardFacts) -> str:
    """How it was trained, where Shoal did that."""
    record = facts.training
    if record is None:
        return ""
    recipe = record.recipe
    parts = [
        recipe.get("about") or "",
        section("Made of", bullets(_made_of(recipe))),
        section("Trained on", bullets([_source(*pair) for pair in zip(record.data, recipe["train"], strict=True)])),
        section("Stages", Table.of("", STAGES, record.stages).as_markdown()),
        _validation(record),
    ]
    return "\n\n".join(part for part in parts if part)


def checked(facts: CardFacts) -> str:
    """What was checked of the files before the checkpoint got its name."""
    if facts.report is None:
        if not facts.changed and not facts.checked:
            return ""
        return section(CHECKED, facts.checked or "Nothing: this checkpoint was written without verification.")
    return section(CHECKED, _checks(facts.report, "healed" if facts.healed_last else "pruned"))


def plan(facts: CardFacts) -> str:
    """The last plan, word by word."""
    if not facts.plans:
        return ""
    return section("The plan", f"```json\n{facts.plans[-1][1].model_dump_json(indent=1)}\n```")


def usage(facts: CardFacts) -> str:
    """How to load it."""
    if not facts.loading:
        return ""
    kind = "An adapter for PEFT. " if facts.adapter_of is not None else ""
    if facts.adapters:
        kind = "Adapters only; `speech_llm.json` says what belongs to them. "
    return section(
        "How to load it",
        f"{kind}In this folder, or with its name on the Hub in place of the dot:\n\n```python\n{facts.loading}\n```",
    )


def origin(plan: Plan) -> str:
    """The audit that a plan was chosen from, as the end of a sentence; empty if there was none."""
    if plan.source is None:
        return ""
    parts = [f"{name} {value}" for name in ("input", "scope", "metric") if (value := getattr(plan.source, name))]
    return f", from {code('/'.join(PurePath(plan.source.path).parts[-2:]))}" + (
        f" ({', '.join(parts)})" if parts else ""
    )


def _model(facts: CardFacts) -> str:
    if facts.model is None:
        return code(facts.name)
    return f"{code(facts.name)} ({facts.model.class_name})"


def _plan(plan: Plan) -> str:
    layers = ", ".join(map(str, plan.layers)) or "none"
    how_sure = f"; {plan.note}" if plan.note else ""
    return f"layers {layers} of {plan.depth}, chosen by {plan.strategy}{origin(plan)}{how_sure}"


def _parameters(facts: CardFacts) -> list[str]:
    """Where the models before are known; a healing that puts layers back leaves the count open."""
    if facts.source is None or any(heal.target == "replace" for heal in facts.healings):
        return []
    before, last = facts.source.model, facts.plans[-1][1]
    whole = facts.source.unpruned.total_parameters
    left = before.total_parameters - sum(before.decoder_layer_parameters[layer] for layer in last.layers)
    share = f" ({1 - left / whole:.1%})" if whole else ""
    return [f"Parameters: {left:,} of {whole:,}; {whole - left:,} gone{share}"]


def _clips(record: HealRecord) -> str:
    data = record.data
    languages = f", {', '.join(data.languages)}" if data.languages else ""
    seen = f"; {record.clips:,} seen, repeated ones counted again" if record.clips else ""
    return f"{data.clips:,} ({data.seconds / 3600:.2f} h{languages}){seen}"


def _loss(record: HealRecord) -> str:
    if record.loss_before is None or record.loss_after is None:
        return "not measured"
    return f"{record.loss_before:.4g} before, {record.loss_after:.4g} after"


def _made_of(recipe: dict[str, Any]) -> list[str]:
    lora = recipe["lora"]
    low_rank = f", low-rank updates of the decoder (rank {lora['rank']}, alpha {lora['alpha']:g})"
    return [
        f"Encoder: {code(recipe['encoder'])}, frozen",
        f"Projector: {', '.join(f'{name} {value}' for name, value in recipe['projector'].items()) or 'mlp'}",
        f"Decoder: {code(recipe['decoder'])}",
        f"Trained: the projector{low_rank if recipe['condition'] == 'projector+lora' else ''}",
    ]


def _source(info: DataInfo, source: dict[str, Any]) -> str:
    kept = ", ".join(f"{name} {value}" for name, value in source["where"].items())
    speakers = f", {info.speakers} speakers" if info.speakers else ""
    languages = f", {' '.join(info.languages)}" if info.languages else ""
    return (
        f"{code(data_name(info))}{f' ({kept})' if kept else ''}, {source['task']}: {info.clips:,} clips, "
        f"{info.seconds / 3600:.2f} h{speakers}{languages}"
    )


STAGES: dict[str, Callable[[StageRecord], str]] = {
    "Stage": lambda stage: stage.name,
    "Steps": lambda stage: f"{stage.steps:,}",
    "Clips seen": lambda stage: f"{stage.clips:,}",
    "Time": lambda stage: wording.duration(stage.seconds),
    "Parameters trained": lambda stage: wording.count(stage.trained_parameters),
    "Loss, first step": lambda stage: loss_text(stage.first_loss),
    "Loss, last tenth": lambda stage: loss_text(stage.last_loss),
}
VALIDATION: dict[str, Callable[[ValidationLoss], str]] = {
    "Data": lambda loss: loss.data,
    "Task": lambda loss: loss.task,
    "Clips": lambda loss: f"{loss.clips:,}",
    "Loss, nats a token": lambda loss: loss_text(loss.loss),
    "The same as saved": lambda loss: loss_text(loss.loss_as_saved),
}


def loss_text(value: float | None) -> str:
    """A loss with three decimals."""
    return wording.MISSING if value is None else wording.fixed(value, 3)


def _validation(record: TrainingRecord) -> str:
    if not record.validation:
        return ""
    return section("On clips it was not trained on", Table.of("", VALIDATION, record.validation).as_markdown())


def _checks(report: VerificationReport, done: str) -> str:
    how = (
        f"Loaded in a fresh process with the stock class, and compared with the {done} model in memory"
        if report.complete
        else "Written shard by shard and not loaded; the bytes are those of the unpruned checkpoint"
    )
    items = [f"{check.name.replace('_', ' ')}: {check.detail}" for check in report.checks]
    if report.source_tensors:
        items.append(f"tensors of the source: {report.source_tensors}")
    return f"{how}:\n\n{bullets(items)}"
