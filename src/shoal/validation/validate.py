"""Requirements on a checkpoint, judged on what was measured of it: a verdict that a build can stop at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from shoal.cards.attached import Labelled, attached, latest
from shoal.cards.facts import folder_of, gather, identity
from shoal.cards.identity import CheckpointIdentity, Fingerprint, fingerprints_of
from shoal.cards.measured import Measured
from shoal.errors import UsageError
from shoal.provenance import provenance
from shoal.schema import Bench, Document, Scores
from shoal.settings import takes
from shoal.validation.requirement_syntax import parse
from shoal.validation.requirements import Evidence, Finding, Requirement
from shoal.validation.settings import ValidateSettings


class Validation(Document):
    """Every requirement, and whether it holds."""

    kind: Literal["validation"] = "validation"
    schema_version: int = 2
    checkpoint: str | None = None
    """None: the systems of the documents that are compared with a baseline."""
    confident: bool
    """Whether intervals had to meet the requirements, too."""
    findings: list[Finding]
    sources: list[str] = Field(default_factory=list)
    """The documents."""

    @classmethod
    def upgrade(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Before version 2 a requirement was called a promise."""
        return {**data, "findings": [{**each, "requirement": each["promise"]} for each in data["findings"]]}

    @property
    def holds(self) -> bool:
        """Whether every requirement was measured and holds."""
        return all(each.verdict == "holds" for each in self.findings)

    @property
    def failures(self) -> list[Finding]:
        """The findings that do not hold, or cannot be told."""
        return [each for each in self.findings if each.verdict != "holds"]


@takes(ValidateSettings)
def validate(
    requirements: Sequence[Requirement | str] = (),
    documents: Sequence[Labelled | Scores | Bench] = (),
    settings: ValidateSettings | None = None,
    *,
    checkpoint: str | None = None,
    fingerprint: Fingerprint | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    **options: Any,
) -> Validation:
    """Judge what is required of a checkpoint on what was measured of it.

    Args:
        requirements: what must hold: `"WER<=10%"`, `"UAR drop<=2%"` or made in `shoal.validation.requirement_syntax`.
        documents: what was measured, alone or with the path it was read from.
        settings: further requirements, and how they are judged.
        checkpoint: the model that they must be about; if it is a folder, what lies in its `validation/` counts, too.
            None judges every system that the documents compare with a baseline, or the only one.
        fingerprint: of the checkpoint, where it is loaded already; else it is loaded if the documents need it.
        device: where.
        trust_remote_code: run code that the model brings along.
        **options: fields of `ValidateSettings`, instead of `settings` or in their place.

    Raises:
        UsageError: nothing is required, or a document is about another model.
        ShoalError: the checkpoint cannot be found, or a document in its folder cannot be read.
    """
    settings = ValidateSettings.of(settings, options)
    made = [parse(each) if isinstance(each, str) else each for each in requirements] + settings.listed()
    if not made:
        raise UsageError("nothing is required", fix='give --max-wer-increase 5%, --require "UAR>=0.6" …')
    labelled = [each if isinstance(each, tuple) else (each.kind, each) for each in documents]
    if checkpoint is None:
        evidence = _compared(labelled)
    else:
        labelled = latest([*_beside(checkpoint), *labelled])
        own = fingerprint or fingerprints_of(checkpoint, device=device, trust_remote_code=trust_remote_code)
        evidence = _of_checkpoint(checkpoint, own, labelled)
    findings = [finding for each in made for finding in each.judge(evidence, confident=settings.confident)]
    return Validation(
        provenance=provenance(device=device),
        checkpoint=checkpoint,
        confident=settings.confident,
        findings=findings,
        sources=[label for label, _ in labelled],
    )


def _beside(checkpoint: str) -> list[Labelled]:
    path = Path(checkpoint).expanduser()
    return attached(path) if path.is_dir() else []


def _of_checkpoint(checkpoint: str, own: Fingerprint, documents: Sequence[Labelled]) -> Evidence:
    from shoal.models.weights import resolve

    place = resolve(checkpoint).path
    who = _identity(checkpoint, place, own)
    return Evidence(
        measured=[who.scored(each, label=label) for label, each in documents if isinstance(each, Scores)],
        benches=[
            (each, who.timed(each, label=label)) for label, each in documents if isinstance(each, Bench)
        ],
        weight_bytes=_weight_bytes(place),
    )


def _identity(checkpoint: str, place: Path, own: Fingerprint) -> CheckpointIdentity:
    """Whatever its folder tells of how it was made; a model that Shoal did not make has its weights alone."""
    from shoal.models.lineage import plan_files

    if not plan_files(place):
        return CheckpointIdentity(checkpoint, own)
    return identity(gather(folder_of(place, checkpoint)), checkpoint, own)


def _weight_bytes(place: Path) -> int | None:
    """Of a whole checkpoint's weights; None for adapters, which are nothing without their base."""
    files = list(place.glob("*.safetensors"))
    if not files or not (place / "config.json").is_file():
        return None
    return sum(path.stat().st_size for path in files)


def _compared(documents: Sequence[Labelled]) -> Evidence:
    """Every system but the baseline; the only one of a document that compares nothing."""
    scores = [each for _, each in documents if isinstance(each, Scores)]
    benches = [each for _, each in documents if isinstance(each, Bench)]
    return Evidence(
        measured=[Measured(each, system) for each in scores for system in each.systems[1:] or each.systems],
        benches=[(each, system) for each in benches for system in each.systems[1:] or each.systems],
    )
