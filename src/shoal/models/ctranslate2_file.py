"""Reads a CTranslate2 `model.bin` without CTranslate2.

The layout (little endian), as `ctranslate2.specs.ModelSpec` writes it in binary version 6::

    u32 version · string spec · u32 revision · u32 variables
    per variable: string name · u8 rank · u32 × rank shape · u8 type · u32 bytes · data
    u32 aliases
    per alias:    string alias · string name
    string = u16 length with the closing NUL · UTF-8 · NUL

Versions 4 and 5 have the same layout.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from shoal.errors import WeightsError

Array = npt.NDArray[Any]

_VERSIONS = range(4, 7)
_DTYPES: Mapping[int, str] = {0: "<f4", 1: "|i1", 2: "<i2", 3: "<i4", 4: "<f2"}
"""CTranslate2's type ids (`ctranslate2/types.h`); bfloat16 (5) has no numpy type and is not needed here."""


@dataclass(frozen=True, slots=True)
class CTranslate2File:
    """The variables of a CTranslate2 model, by name; aliases are resolved."""

    spec: str
    revision: int
    variables: dict[str, Array]

    def tensor(self, name: str) -> Array:
        """The variable in float32; int8 and int16 weights are multiplied out with their scale.

        CTranslate2 quantises a row `w` of a linear or embedding weight to `round(w * scale)`.

        Raises:
            WeightsError: there is no variable of that name.
        """
        value = self._get(name)
        if value.dtype.kind == "f":
            return value.astype(np.float32)
        scale = np.asarray(self._get(f"{name}_scale"), dtype=np.float32)
        rows = scale.reshape(-1, *([1] * (value.ndim - 1))) if scale.ndim else scale
        return value.astype(np.float32) / rows

    def number(self, name: str) -> int:
        """A scalar variable as an int.

        Raises:
            WeightsError: there is no variable of that name.
        """
        return int(self._get(name).item())

    def count(self, prefix: str) -> int:
        """How many consecutive `prefix0/…`, `prefix1/…` there are."""
        number = 0
        while any(name.startswith(f"{prefix}{number}/") for name in self.variables):
            number += 1
        return number

    def _get(self, name: str) -> Array:
        if name not in self.variables:
            raise WeightsError(f"the CTranslate2 file has no variable {name!r}")
        return self.variables[name]


def read(path: Path) -> CTranslate2File:
    """Read `path` completely.

    Raises:
        WeightsError: not a CTranslate2 file of a known version, or cut short.
    """
    try:
        with path.open("rb") as stream:
            return _read(stream)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise WeightsError(f"not a whole CTranslate2 model file ({error})", where=str(path)) from None


def _read(stream: BinaryIO) -> CTranslate2File:
    (version,) = _unpack(stream, "<I")
    if version not in _VERSIONS:
        raise ValueError(f"binary version {version}, known are {_VERSIONS.start} to {_VERSIONS.stop - 1}")
    spec = _string(stream)
    revision, count = _unpack(stream, "<II")
    variables = dict(_variable(stream) for _ in range(count))
    for _ in range(_unpack(stream, "<I")[0]):
        alias, name = _string(stream), _string(stream)
        if name not in variables:
            raise ValueError(f"alias {alias!r} of an unknown variable {name!r}")
        variables[alias] = variables[name]
    return CTranslate2File(spec, revision, variables)


def _variable(stream: BinaryIO) -> tuple[str, Array]:
    name = _string(stream)
    (rank,) = _unpack(stream, "<B")
    shape = _unpack(stream, f"<{rank}I")
    type_id, size = _unpack(stream, "<BI")
    if type_id not in _DTYPES:
        raise ValueError(f"variable {name!r} has the unknown type {type_id}")
    values = np.frombuffer(_bytes(stream, size), dtype=_DTYPES[type_id])
    return name, values.reshape(shape)


def _string(stream: BinaryIO) -> str:
    (length,) = _unpack(stream, "<H")
    return _bytes(stream, length)[:-1].decode()


def _unpack(stream: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, _bytes(stream, struct.calcsize(layout)))


def _bytes(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ValueError("it ends too early")
    return data
