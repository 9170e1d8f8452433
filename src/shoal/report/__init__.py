"""One self-contained HTML file from any subset of Shoal's documents.

Nothing in the file is fetched: plotly.js, the style and the data are inside, and its content security policy
lets only the two scripts run that Shoal put there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.schema import Document

__all__ = ["render"]


def render(
    documents: Sequence[Document | tuple[str, Document]],
    out: str | Path,
    *,
    title: str | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write a report about `documents` under `out`.

    Args:
        documents: audits, comparisons, task matrices, searches, plans, scores, benches, validations, healings and
            records of training or healing in any number and order, each alone or with the path it was read from. A
            section whose document is missing says so; those of importance, trust, tasks, search, requirements,
            healing and training are then left out.
        out: the HTML file to write; replaced as a whole or not at all.
        title: heading; by default it names the model.
        notes: what a reader must know that no document says, such as which clips anything was fitted on.

    Returns:
        The path of the file.

    Raises:
        UsageError: `documents` is empty.
        FileFormatError: `out` cannot be written.
    """
    from shoal.report.bundle import collect
    from shoal.report.page import build_page
    from shoal.schema import write_text

    return write_text(out, build_page(collect(documents, notes), title=title))
