"""A file: what it is, in which shape, and where it comes from."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError

from shoal.errors import FileFormatError
from shoal.schema.files import read_json, write_text
from shoal.schema.record import Record
from shoal.settings import first_problem

SCHEMA_VERSION = 1
"""Of kinds whose shape has not changed."""


class Provenance(Record):
    """Where and how a file was made."""

    shoal: str
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    command: list[str] = Field(default_factory=list)
    python: str = ""
    platform: str = ""
    packages: dict[str, str] = Field(default_factory=dict)
    device: str = "cpu"
    dtype: str = "float32"
    threads: int | None = None


class ModelInfo(Record):
    """Which model, and where its parameters are (counts; tied weights counted once)."""

    ref: str
    kind: Literal["speech_llm", "causal_lm", "audio_llm"]
    class_name: str
    family: str
    depth: int
    hidden_size: int
    encoder_parameters: int = 0
    projector_parameters: int = 0
    decoder_layer_parameters: list[int] = Field(default_factory=list)
    decoder_other_parameters: int = 0
    total_parameters: int = 0
    removed_layers: list[int] = Field(default_factory=list)
    """Layers already missing from this checkpoint, in the numbering of the unpruned model."""
    licence: str | None = None
    fingerprint: str = ""
    """SHA-256 over names, shapes and sampled values of the weights: tells models apart."""


class BadRow(Record):
    """A manifest row that was left out, and why."""

    manifest: str
    line: int
    reason: str


class DataInfo(Record):
    """Which clips were used."""

    manifests: list[str]
    clips: int
    seconds: float
    speakers: int | None = None
    languages: list[str] = Field(default_factory=list)
    skipped: list[BadRow] = Field(default_factory=list)
    audio_decoder: str = ""
    """Name and version of the library that decoded the audio."""
    resampler: str = ""
    fingerprint: str = ""
    """SHA-256 over the rows used (paths, durations, texts)."""


class Document(Record):
    """A file: has a kind, a schema version and a provenance."""

    kind: str
    schema_version: int = SCHEMA_VERSION
    """A kind counts its own versions: it has another default once its shape has changed."""
    provenance: Provenance

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write as JSON under `path`, atomically; returns the path."""
        return write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read from `path`.

        Raises:
            FileFormatError: not there, not JSON, another kind, a newer schema or a missing field.
        """
        return cls.parse(read_json(path), where=str(path))

    @classmethod
    def parse(cls, data: Any, *, where: str) -> Self:
        """Check `data` (parsed JSON) and build the document; see `load`."""
        kind = cls.model_fields["kind"].default
        actual = data.get("kind") if isinstance(data, dict) else None
        if actual != kind:
            raise FileFormatError(
                f"this is not a Shoal {kind} file (kind: {actual!r})", where=where, fix=f"give a {kind} file"
            )
        version, newest = data.get("schema_version"), cls.model_fields["schema_version"].default
        if not isinstance(version, int) or not 1 <= version <= newest:
            raise FileFormatError(
                f"schema version {version!r} is not one this Shoal reads (1 to {newest})",
                where=where,
                fix="upgrade Shoal or make the file again",
            )
        try:
            if version < newest:
                data = {**cls.upgrade(data), "schema_version": newest}
            return cls.model_validate(data)
        except ValidationError as error:
            raise FileFormatError(problem_of(error), where=where, fix=f"make the {kind} again") from None
        except (KeyError, TypeError, AttributeError) as error:
            reason = f"not what version {version} of this file holds ({type(error).__name__}: {error})"
            raise FileFormatError(reason, where=where, fix=f"make the {kind} again") from None

    @classmethod
    def upgrade(cls, data: dict[str, Any]) -> dict[str, Any]:
        """The content of an older version in the shape of this one; only kinds whose shape has changed need it."""
        return data


def problem_of(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first of the problems in a file, and how many more there are, in one line; arguments as `first_problem`."""
    place = ".".join(map(str, error.errors()[0]["loc"])) or "file"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}: {'; '.join(filter(None, first_problem(error, 'key', model)))}{more}"
