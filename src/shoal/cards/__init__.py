"""The card of a checkpoint: what was done to it, what was measured of it, and what was not validated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.schema import Audit, Bench, Scores

__all__ = ["card"]


def card(
    folder: str | os.PathLike[str],
    documents: Sequence[Scores | Bench | Audit] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    attach: bool = False,
    force: bool = False,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> Path:
    """Write the model card of a checkpoint folder.

    Args:
        folder: a checkpoint that Shoal pruned, healed or trained, or any other.
        documents: what was measured of it, besides what lies in its `validation/`. Of two that measured the same on the
            same clips the later one counts.
        out: the file to write; None is README.md in the folder.
        attach: copy the documents into `validation/`, without the clips' words, so that the card can be made again
            from the folder alone.
        force: replace a card that Shoal did not write.
        device: where the model is loaded, if documents must be told apart by its weights.
        trust_remote_code: run code that the model brings along.

    Returns:
        The path of the card. The same folder and documents give the same text.

    Raises:
        UsageError: there is no such folder, a document is about another model, or a card that Shoal did not write is
            in the way.
        ShoalError: the folder holds no model, or a record in it cannot be read.
    """
    from shoal.cards.writing import write_card

    labelled = [(f"document {number}", each) for number, each in enumerate(documents, start=1)]
    return write_card(
        folder,
        labelled,
        out=out,
        keep=attach,
        force=force,
        device=device,
        trust_remote_code=trust_remote_code,
    )[0]
