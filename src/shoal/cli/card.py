"""`shoal card`: the model card of a checkpoint."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli import typer_options as options

if TYPE_CHECKING:
    from shoal.cards.attached import Evidence
    from shoal.cards.facts import CardFacts

Files = list[Path] | None


def card(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The checkpoint's folder.")],
    scores: Annotated[
        Files, typer.Option("--scores", metavar="FILE", help="A scores.json of it. Repeatable.")
    ] = None,
    bench: Annotated[
        Files, typer.Option("--bench", metavar="FILE", help="A bench.json of it. Repeatable.")
    ] = None,
    audit: Annotated[
        Files,
        typer.Option(
            "--audit", metavar="FILE", help="An audit.json of it, or of the unpruned model. Repeatable."
        ),
    ] = None,
    attach: Annotated[
        bool,
        typer.Option(
            "--attach",
            help="Copy these files, without the clips' words, to DIR/validation for the next time.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to write; default DIR/README.md.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a card that Shoal did not write.")] = False,
    device: options.Device = "cpu",
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Write the card of a checkpoint: what was done to it, what was measured, and what was not validated.

    Files in DIR/validation count without being named.
    """
    from shoal.cards.attached import read
    from shoal.cards.writing import write_card

    given = [read(path) for path in (*(scores or ()), *(bench or ()), *(audit or ()))]
    path, facts = write_card(
        folder,
        given,
        out=out,
        keep=attach,
        force=force,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    typer.echo(_json(facts, path) if json else summary(facts, path))
    if facts.unheard:
        warn_of_speech(str(folder))


def warn_of_speech(name: str) -> None:
    """One line on stderr for a changed model that answers in speech, which nobody has tested."""
    from shoal.cards.speaking import warning

    typer.echo(f"shoal: {warning(name)}", err=True)


def warn_if_unheard(documents: Sequence[Evidence], checkpoint: str | None) -> None:
    """The same where documents are about such a model, and neither they nor its folder hold a result.

    Args:
        documents: what was measured.
        checkpoint: what the user calls the model, if it was named; a folder may hold more.
    """
    from shoal.cards.speaking import changed, speech_untested
    from shoal.schema import Bench, Scores

    folder = Path(checkpoint).expanduser() if checkpoint is not None and is_folder(checkpoint) else None
    for document in documents:
        pruned = isinstance(document, Scores | Bench) and any(system.removed for system in document.systems)
        if (pruned or changed(document.model, folder)) and speech_untested(
            document.model, documents, folder=folder
        ):
            warn_of_speech(checkpoint or document.model.ref)
            return


def is_folder(ref: str) -> bool:
    """Whether `ref` is a folder on this machine, in which documents may lie."""
    return Path(ref).expanduser().is_dir()


def summary(facts: CardFacts, path: Path) -> str:
    """What the card rests on, and what it says was not validated."""
    from shoal.cards.limits import limits

    tested = ", ".join(dict.fromkeys(each.task for each in facts.measured)) or "none"
    lines = [facts.title, f"tasks tested: {tested}", "not validated:"]
    return "\n".join([*lines, *(f"- {line}" for line in limits(facts)), str(path)])


def _json(facts: CardFacts, path: Path) -> str:
    from shoal.cards.limits import limits

    record = {
        "path": str(path),
        "title": facts.title,
        "removed": list(facts.removed),
        "tested": list(dict.fromkeys(each.task for each in facts.measured)),
        "not_validated": limits(facts),
    }
    return json_format.dumps(record, indent=1, ensure_ascii=False)
