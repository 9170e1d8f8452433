"""Requirements on a checkpoint, judged on what was measured of it: a verdict that a build can stop at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shoal.cards.attached import Labelled, attached, latest
from shoal.cards.facts import folder_of, gather, identity
from shoal.cards.identity import CheckpointIdentity, Fingerprint, fingerprints_of
from shoal.cards.measured import Measured
from shoal.errors import UsageError
from shoal.provenance import provenance
from shoal.schema import Bench, Scores, Validation
from shoal.settings import takes
from shoal.validation.requirement_syntax import parse
from shoal.validation.requirements import Evidence, Requirement
from shoal.validation.settings import ValidateSettings


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
    parsed = [parse(text) if isinstance(text, str) else text for text in requirements] + settings.listed()
    if not parsed:
        raise UsageError("nothing is required", fix='give --max-wer-increase 5%, --require "UAR>=0.6" …')
    labelled = [item if isinstance(item, tuple) else (item.kind, item) for item in documents]
    if checkpoint is None:
        evidence = _compared(labelled)
    else:
        labelled = latest([*_beside(checkpoint), *labelled])
        own = fingerprint or fingerprints_of(checkpoint, device=device, trust_remote_code=trust_remote_code)
        evidence = _of_checkpoint(checkpoint, own, labelled)
    evidence = replace(evidence, confident=settings.confident)
    findings = [finding for requirement in parsed for finding in requirement.judge(evidence)]
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

    folder = resolve(checkpoint).path
    who = _identity(checkpoint, folder, own)
    return Evidence(
        measured=[who.scored(scores, label=label) for label, scores in documents if isinstance(scores, Scores)],
        benches=[(bench, who.timed(bench, label=label)) for label, bench in documents if isinstance(bench, Bench)],
        weight_bytes=_weight_bytes(folder),
    )


def _identity(checkpoint: str, folder: Path, own: Fingerprint) -> CheckpointIdentity:
    """Whatever its folder tells of how it was made; a model that Shoal did not make has its weights alone."""
    from shoal.models.lineage import plan_files

    if not plan_files(folder):
        return CheckpointIdentity(checkpoint, own)
    return identity(gather(folder_of(folder, checkpoint)), checkpoint, own)


def _weight_bytes(folder: Path) -> int | None:
    """Of a whole checkpoint's weights; None for adapters, which are nothing without their base."""
    files = list(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        return None
    return sum(path.stat().st_size for path in files)


def _compared(documents: Sequence[Labelled]) -> Evidence:
    """Every system but the baseline; the only one of a document that compares nothing."""
    scores = [document for _, document in documents if isinstance(document, Scores)]
    benches = [document for _, document in documents if isinstance(document, Bench)]
    return Evidence(
        measured=[Measured(one, system) for one in scores for system in one.systems[1:] or one.systems],
        benches=[(bench, system) for bench in benches for system in bench.systems[1:] or bench.systems],
    )
