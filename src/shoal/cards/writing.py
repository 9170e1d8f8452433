"""The card of a folder: gather what it says, add what was measured, write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal._version import __version__
from shoal.cards import history, results
from shoal.cards.attached import Labelled, attach, attached, latest
from shoal.cards.facts import OURS, CardFacts, Folder, folder_of, gather, identity
from shoal.cards.front_matter import front_matter
from shoal.cards.identity import CheckpointIdentity, fingerprints_of
from shoal.cards.limits import not_validated
from shoal.cards.settings import CardSettings
from shoal.cards.spoken_answers import GENERATION, speech_untested
from shoal.errors import UsageError
from shoal.models.lineage import HEAL_FILE, TRAINING_FILE
from shoal.schema import Audit, Bench, ModelInfo, Scores, write_text
from shoal.settings import takes

if TYPE_CHECKING:
    from shoal.schema.verification import VerificationReport


CARD = "README.md"


def first_card(folder: Folder, model: ModelInfo | None = None, report: VerificationReport | None = None) -> str:
    """The card of a checkpoint that is being written, before anything was measured of it.

    Args:
        folder: where its files lie.
        model: what the last step was done to; None for adapters that were trained.
        report: what was checked before it gets its name; None if nothing was.
    """
    facts = gather(folder, model).with_report(report)
    return page(_with(facts, (), CheckpointIdentity("", lambda _: "")))


@takes(CardSettings)
def card(
    folder: str | os.PathLike[str],
    documents: Sequence[Scores | Bench | Audit] = (),
    settings: CardSettings | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Path:
    """Write the model card of a checkpoint folder.

    Args:
        folder: a checkpoint that Shoal pruned, healed or trained, or any other.
        documents: what was measured of it, besides what lies in its `validation/`. Of two that measured the same on the
            same clips the later one counts.
        settings: how it is written.
        out: the file to write; None is README.md in the folder.
        **options: fields of `CardSettings`, instead of `settings` or in their place.

    Returns:
        The path of the card. The same folder and documents give the same text.

    Raises:
        UsageError: there is no such folder, a document is about another model, or a card that Shoal did not write is
            in the way.
        ShoalError: the folder holds no model, or a record in it cannot be read.
    """
    labelled = [(f"document {number}", document) for number, document in enumerate(documents, start=1)]
    return write_card(folder, labelled, CardSettings.of(settings, options), out=out)[0]


def write_card(
    folder: str | os.PathLike[str],
    documents: Sequence[Labelled],
    settings: CardSettings,
    *,
    out: str | os.PathLike[str] | None = None,
) -> tuple[Path, CardFacts]:
    """The same of documents with the names that errors call them by; also returns what the card was written from."""
    checkpoint = _checkpoint(folder)
    target = checkpoint / CARD if out is None else Path(out)
    if not settings.force:
        _check_ours(target)
    facts = _facts_of(checkpoint, documents, settings)
    if settings.attach:
        attach(checkpoint, [document for _, document in documents])
    return write_text(target, page(facts)), facts


def _facts_of(folder: Path, documents: Sequence[Labelled], settings: CardSettings) -> CardFacts:
    """What the folder tells, and what was measured of it: `documents` and those in its `validation/`."""
    history, trust = folder_of(folder, str(folder)), settings.trust_remote_code
    facts = gather(history, trust_remote_code=trust).with_stored_report(folder)
    own = fingerprints_of(str(folder), device=settings.device, trust_remote_code=trust)
    evidence = latest([*attached(folder), *documents])
    return _with(facts, evidence, identity(facts, str(folder), own))


def _checkpoint(folder: str | os.PathLike[str]) -> Path:
    """The folder of a model on this machine.

    Raises:
        UsageError: it is none.
    """
    from shoal.models.weights import resolve

    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UsageError("no such folder", where=str(folder), fix="give the folder of a checkpoint")
    return resolve(str(path)).path


def _check_ours(path: Path) -> None:
    """Do not replace a card that somebody else wrote.

    Raises:
        UsageError: there is one.
    """
    if path.is_file() and OURS not in path.read_text(encoding="utf-8", errors="replace"):
        raise UsageError(
            "this was not written by Shoal", where=str(path), fix="choose another with --out, or give --force"
        )


def _with(facts: CardFacts, evidence: Sequence[Labelled], who: CheckpointIdentity) -> CardFacts:
    """`facts` with what was measured."""
    documents = [document for _, document in evidence]
    measured = [who.scored(item, label=label) for label, item in evidence if isinstance(item, Scores)]
    benches = [(item, who.timed(item, label=label)) for label, item in evidence if isinstance(item, Bench)]
    audits = [who.checked_audit(item, label=label) for label, item in evidence if isinstance(item, Audit)]
    silent = facts.changed and facts.model is not None and speech_untested(facts.model, documents)
    return replace(facts, measured=measured, benches=benches, audits=audits, unheard=silent)


UNHEARD = (
    "> [!WARNING]\n> This model answers in speech, and nothing was tested of what the changes to its decoder do to "
    f"that. This stands here until a `{GENERATION}` result is attached."
)


def page(facts: CardFacts) -> str:
    """README.md of a checkpoint, with front matter that the Hugging Face Hub reads.

    Args:
        facts: everything that is known of the checkpoint; the same facts give the same text.
    """
    parts = [
        front_matter(facts),
        f"# {facts.title}",
        UNHEARD if facts.unheard else "",
        history.usage(facts),
        history.removed(facts),
        history.healed(facts),
        history.trained(facts),
        history.checked(facts),
        results.scores(facts),
        results.costs(facts),
        results.audits(facts),
        not_validated(facts),
        history.plan(facts),
        _footer(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _footer(facts: CardFacts) -> str:
    files = [HEAL_FILE] if facts.healed_last else []
    files += [TRAINING_FILE] if facts.training is not None else []
    whole = f"; the whole record is in {' and '.join(f'`{name}`' for name in files)}" if files else ""
    return f"{OURS} {__version__}{whole}."
