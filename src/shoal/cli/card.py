"""`shoal card`: the model card of a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from shoal.cards.settings import CardSettings
from shoal.cli import options
from shoal.cli.printing import Printing
from shoal.settings import DATA, OUTPUT

if TYPE_CHECKING:
    from shoal.cards.attached import Evidence
    from shoal.cards.facts import CardFacts


@options.command
def card(
    folder: Annotated[Path, DATA, Parameter(name="DIR", help="Folder of the checkpoint.")],
    /,
    *,
    scores: options.Scores = (),
    bench: options.Benches = (),
    audit: Annotated[
        tuple[Path, ...],
        DATA,
        Parameter(metavar="FILE", help="An audit.json of the checkpoint, or of the unpruned model. Repeatable."),
    ] = (),
    settings: Annotated[CardSettings, options.Flat] = CardSettings(),
    out: Annotated[
        Path | None, OUTPUT, Parameter(metavar="FILE", help="File to write; default: DIR/README.md.")
    ] = None,
    printing: Annotated[Printing, options.Flat] = Printing(),
) -> None:
    """Write the model card of a checkpoint: what was done, what was measured, and what was not validated.

    Files in DIR/validation are used without being named.
    """
    from shoal.cards.attached import read
    from shoal.cards.writing import write_card

    documents = [read(path) for path in (*scores, *bench, *audit)]
    path, facts = write_card(folder, documents, settings, out=out)
    printing.show(_record(facts, path), summary(facts), path)
    if facts.unheard:
        warn_of_speech(str(folder))


def warn_of_speech(name: str) -> None:
    """One line on stderr for a changed model that answers in speech, which nobody has tested."""
    from shoal.cards.spoken_answers import warning

    print(f"shoal: {warning(name)}", file=sys.stderr)


def warn_if_unheard(documents: Sequence[Evidence], checkpoint: str | None) -> None:
    """The same where documents are about such a model, and neither they nor its folder hold a result.

    Args:
        documents: what was measured.
        checkpoint: what the user calls the model, if it was named; a folder may hold more.
    """
    from shoal.cards.spoken_answers import changed, speech_untested
    from shoal.schema import Bench, Scores

    folder = Path(checkpoint).expanduser() if checkpoint is not None and is_folder(checkpoint) else None
    for document in documents:
        pruned = isinstance(document, Scores | Bench) and any(system.absent_layers for system in document.systems)
        if (pruned or changed(document.model, folder)) and speech_untested(document.model, documents, folder=folder):
            warn_of_speech(checkpoint or document.model.ref)
            return


def is_folder(ref: str) -> bool:
    """Whether `ref` is a folder on this machine, in which documents may lie."""
    return Path(ref).expanduser().is_dir()


def summary(facts: CardFacts) -> list[str]:
    """What the card rests on, and what it says was not validated."""
    from shoal.cards.limits import limits

    tested = ", ".join(dict.fromkeys(result.task for result in facts.measured)) or "none"
    return [facts.title, f"tasks tested: {tested}", "not validated:", *(f"- {line}" for line in limits(facts))]


def _record(facts: CardFacts, path: Path) -> dict[str, object]:
    from shoal.cards.limits import limits

    return {
        "path": str(path),
        "title": facts.title,
        "removed": list(facts.removed),
        "tested": list(dict.fromkeys(result.task for result in facts.measured)),
        "not_validated": limits(facts),
    }
