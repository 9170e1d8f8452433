"""What a checkpoint's folder tells of it: what was removed, healed and trained, and how that was verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shoal.cards.identity import CheckpointIdentity, Fingerprint, parents_of
from shoal.cards.loading import loading_lines
from shoal.cards.measured import Measured
from shoal.models.lineage import HEAL_FILE, SOURCE_FILE, TRAINING_FILE, heal_files, plan_files, removed_layers
from shoal.schema import Audit, Bench, Document, HealRecord, ModelInfo, Plan, Provenance, SystemBench, TrainingRecord
from shoal.wording import plural

if TYPE_CHECKING:
    from shoal.schema.verification import VerificationReport


CHECKED = "Checked"
OURS = "Written by Shoal"
"""In every card that Shoal wrote."""


@dataclass(frozen=True)
class CardFacts:
    """Everything that a card is written from."""

    model: ModelInfo | None
    """The model that the last step was done to; of a checkpoint without a step, the checkpoint. None for adapters that
    were trained, which `training` describes."""
    plans: Sequence[tuple[str, Plan]] = ()
    """With the names of their files, in the order in which they were carried out."""
    removed: Sequence[int] = ()
    """In the numbering of the model before any of the plans."""
    healings: Sequence[HealRecord] = ()
    healed_last: bool = False
    """Whether healing came after the last plan."""
    training: TrainingRecord | None = None
    source: SourceRecord | None = None
    report: VerificationReport | None = None
    checked: str = ""
    """The section of an earlier card, where there is no report."""
    licence: str | None = None
    adapter_of: str | None = None
    """The base of a PEFT adapter; None for a whole model."""
    loading: str = ""
    """Lines of Python that load it, see `cards.loading`."""
    adapters: bool = False
    """Whether the folder holds Shoal's adapters and no whole model."""
    measured: Sequence[Measured] = ()
    benches: Sequence[tuple[Bench, SystemBench]] = ()
    audits: Sequence[Audit] = ()
    unheard: bool = False
    """Whether it answers in speech, was changed, and nobody has tested what it says."""

    @property
    def changed(self) -> bool:
        """Whether Shoal has changed a model that was there before."""
        return bool(self.plans or self.healings)

    @property
    def original(self) -> str:
        """The model before anything that Shoal knows of was done to it, as the user called it; empty if not known."""
        if self.source is not None:
            return self.source.unpruned.ref
        if self.plans:
            return self.plans[0][1].model_ref
        return self.model.ref if self.model is not None else ""

    @property
    def name(self) -> str:
        """What the model is called without what was done to it."""
        return shown_name(self.original) or "a SpeechLLM"

    @property
    def title(self) -> str:
        """What the card is headed by."""
        if self.training is not None and not self.changed:
            recipe = self.training.recipe
            return f"A SpeechLLM of {recipe['encoder']} and {recipe['decoder']}"
        without = f" without {plural(len(self.removed), 'decoder layer')}" if self.removed else ""
        return f"{self.name}{without}{', healed' if self.healed_last else ''}"

    def with_report(self, report: VerificationReport | None) -> CardFacts:
        """The same, verified."""
        return replace(self, report=report)

    def with_stored_report(self, path: Path) -> CardFacts:
        """The same, with what the folder `path` says of its verification.

        Raises:
            FileFormatError: it cannot be read.
        """
        return replace(self, report=_report(path), checked=_old_section(path))


def published(ref: str) -> bool:
    """Whether a model's name says something on other machines: an id of the Hub or `pkg:NAME`, not a folder."""
    path = Path(ref).expanduser()
    return bool(ref) and not (path.is_absolute() or ref.startswith(".") or ref.count("/") > 1 or path.exists())


def shown_name(ref: str) -> str:
    """A model as a card names it: of a folder its name alone, for where it lies is nobody's business."""
    return ref if published(ref) else Path(ref).expanduser().name


@dataclass(frozen=True)
class Folder:
    """Where the history of a checkpoint lies: for an adapter that is in its base's folder, too."""

    path: Path
    base: Path | None = None
    base_name: str | None = None

    @property
    def history(self) -> Path:
        """With the plans."""
        return self.base or self.path


def gather(folder: Folder, model: ModelInfo | None = None, *, trust_remote_code: bool = False) -> CardFacts:
    """Read what was done to a checkpoint.

    Args:
        folder: where they lie.
        model: what the last step was done to, where the caller knows; else the folder's records say it, and without
            any the model's class is built to look.
        trust_remote_code: run code that the model brings along, to build it.

    Raises:
        ShoalError: a record cannot be read, or nothing in the folder says what it holds.
    """
    from shoal.models.lineage import ADAPTERS_FILE

    path, history = folder.path, folder.history
    plans = [(path.name, Plan.load(path)) for path in plan_files(history)]
    healings = [HealRecord.load(file) for path in _folders(folder) for file in heal_files(path)]
    trained = history / TRAINING_FILE
    training = TrainingRecord.load(trained) if trained.is_file() else None
    source = source_record(history)
    adapters = (path / ADAPTERS_FILE).is_file()
    healed_last = (path / HEAL_FILE).is_file()
    known = model or _recorded(source, healings, healed_last)
    if known is None and not (adapters and training is not None):
        known = _looked_at(path, trust_remote_code)
    return CardFacts(
        model=known,
        plans=plans,
        removed=removed_layers(history),
        healings=healings,
        healed_last=healed_last,
        training=training,
        source=source,
        licence=_licence(known, source, training),
        adapter_of=folder.base_name,
        loading=loading_lines(path, folder.base, folder.base_name),
        adapters=adapters,
    )


def identity(facts: CardFacts, name: str, own: Fingerprint) -> CheckpointIdentity:
    """Who the checkpoint is, for documents."""
    plan = facts.plans[-1][1] if facts.plans and not facts.healed_last else None
    before = facts.source.model.fingerprint if facts.source is not None else ""
    return CheckpointIdentity(name, own, parents_of(plan, before), plan)


def folder_of(path: Path, ref: str) -> Folder:
    """The folder of a checkpoint, and of its base if it is an adapter alone.

    Raises:
        ModelError: the adapter does not say what its base is.
        WeightsError: its base cannot be found.
    """
    from shoal.models import weights
    from shoal.models.peft_folder import base_of, is_adapter_alone

    if not is_adapter_alone(path):
        return Folder(path)
    return Folder(path, base=weights.resolve(base_of(path, ref)).path, base_name=_named_base(path))


def _named_base(path: Path) -> str:
    """As the adapter's config has it, which holds wherever both folders are moved together."""
    from shoal.models.peft_folder import CONFIG
    from shoal.schema import read_json

    return str(read_json(path / CONFIG)["base_model_name_or_path"])


def _folders(folder: Folder) -> list[Path]:
    return [folder.path] if folder.base is None else [folder.base, folder.path]


def _recorded(source: SourceRecord | None, healings: Sequence[HealRecord], healed_last: bool) -> ModelInfo | None:
    if healed_last:
        return healings[-1].model
    return None if source is None else source.model


def _looked_at(path: Path, trust_remote_code: bool) -> ModelInfo:
    """From the config and the class alone; no weights are read."""
    from shoal.models.families import find
    from shoal.models.info import model_info
    from shoal.models.meta_model import CONFIG, meta_model
    from shoal.models.weights import resolve

    if not (path / CONFIG).is_file():
        from shoal.models.loading import load_model

        return load_model(str(path), device="cpu", dtype="stored", trust_remote_code=trust_remote_code).info()
    skeleton = meta_model(path, trust_remote_code=trust_remote_code)
    return model_info(skeleton, find(skeleton), path, ref=str(path), licence=resolve(str(path)).licence)


def _report(path: Path) -> VerificationReport | None:
    from shoal.schema.verification import REPORT_FILE, VerificationReport

    return VerificationReport.load(path / REPORT_FILE) if (path / REPORT_FILE).is_file() else None


def _old_section(path: Path) -> str:
    """What a card that Shoal wrote says under Checked: folders of earlier versions have it nowhere else."""
    card = path / "README.md"
    if not card.is_file():
        return ""
    text = card.read_text(encoding="utf-8", errors="replace")
    _, heading, rest = text.partition(f"\n## {CHECKED}\n\n")
    return rest.partition("\n## ")[0].rstrip() if heading and OURS in text else ""


def _licence(model: ModelInfo | None, source: SourceRecord | None, training: TrainingRecord | None) -> str | None:
    known = [info.licence for info in (model, source.unpruned if source else None) if info is not None]
    known.append(training.recipe.get("licence") if training is not None else None)
    return next((licence for licence in known if licence), None)


class SourceRecord(Document):
    """The models that a pruned checkpoint comes from."""

    kind: Literal["source"] = "source"
    model: ModelInfo
    """What the last plan was carried out on."""
    unpruned: ModelInfo
    """What it was before any pruning that Shoal knows of; the same after one plan."""


def write_source_record(draft: Path, info: ModelInfo, before: Path | None, provenance: Provenance) -> None:
    """Write down in the folder of a pruned checkpoint what it was pruned from.

    Args:
        draft: the checkpoint's folder.
        info: the model that was pruned.
        before: its folder, which may hold such a record of its own; None if there is no folder.
        provenance: of this pruning.

    Raises:
        FileFormatError: the record in `before` cannot be read.
    """
    earlier = None if before is None else source_record(before)
    unpruned = info if earlier is None else earlier.unpruned
    SourceRecord(provenance=provenance, model=info, unpruned=unpruned).save(draft / SOURCE_FILE)


def source_record(folder: Path) -> SourceRecord | None:
    """The record in `folder`, if there is one.

    Raises:
        FileFormatError: it cannot be read.
    """
    path = folder / SOURCE_FILE
    return SourceRecord.load(path) if path.is_file() else None
