"""The documents that lie in a checkpoint's folder, in `validation/`: its card can be made again from them alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from shoal.errors import UsageError
from shoal.schema import Audit, Bench, Document, Scores, load_document

FOLDER = "validation"
Evidence = Scores | Bench | Audit
Labelled = tuple[str, Evidence]
"""Where a document was read, and the document."""


def attached(folder: Path) -> list[Labelled]:
    """The documents in `folder`/validation, by name.

    Raises:
        FileFormatError: a JSON file there is none of Shoal's.
        UsageError: one is of a kind that says nothing about a checkpoint.
    """
    return [read(path) for path in sorted((folder / FOLDER).glob("*.json"))]


def read(path: Path) -> Labelled:
    """One document.

    Raises:
        FileFormatError: not a Shoal file.
        UsageError: it is of a kind that says nothing about a checkpoint.
    """
    document = load_document(path)
    if not isinstance(document, Scores | Bench | Audit):
        raise UsageError(
            f"a {document.kind} does not say what a checkpoint does",
            where=str(path),
            fix="give scores, a bench or an audit",
        )
    return str(path), document


def attach(folder: Path, documents: Iterable[Evidence]) -> list[Path]:
    """Copy documents into `folder`/validation; an older one on the same clips is replaced.

    The words of the clips stay behind: a checkpoint is published, and the clips may not be.

    Raises:
        FileFormatError: the folder cannot be written.
    """
    return [_bare(document).save(folder / FOLDER / f"{document.kind}-{_key(document)}.json") for document in documents]


def latest(documents: Sequence[Labelled]) -> list[Labelled]:
    """Of documents that measured the same thing in the same way, the one made last; in a fixed order."""
    newest: dict[str, Labelled] = {}
    for label, document in sorted(documents, key=lambda labelled: labelled[1].provenance.created):
        newest[f"{document.kind}-{_key(document)}"] = (label, document)
    return [newest[key] for key in sorted(newest)]


def _bare(document: Evidence) -> Document:
    return document.model_copy(update={"examples": []}) if isinstance(document, Scores) else document


def _key(document: Evidence) -> str:
    """What was measured on what: two documents with the same key say the same thing, of different days."""
    task = "speed" if isinstance(document, Bench) else document.task
    machine = [document.provenance.dtype]
    if isinstance(document, Bench):
        machine += [document.provenance.device, str(document.batch_size)]
    data = document.data.fingerprint or ",".join(document.data.manifests)
    # A comparison with a baseline says more than the system alone, and neither replaces the other.
    systems = [] if isinstance(document, Audit) else [str(min(len(document.systems), 2))]
    digest = hashlib.sha256("\n".join([task, data, *systems, *machine]).encode()).hexdigest()
    return f"{task}-{digest[:8]}"
