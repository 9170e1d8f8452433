"""The safetensors format, read and written as bytes: headers are parsed, values are copied and never become tensors.

A file is eight bytes (the header's length n, little-endian), n bytes of JSON padded with spaces to a multiple of
eight, and the values. The JSON maps a tensor's name to its `dtype`, `shape` and `data_offsets` (from, to; counted
from the end of the header); `__metadata__` holds strings. See https://github.com/huggingface/safetensors#format.

Copying takes a few buffers of memory whatever the file's size, and works for dtypes that nothing here understands.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from shoal.errors import ModelError
from shoal.prefetch import prefetch

CHUNK = 8 * 2**20
"""Bytes in flight while copying."""
LARGEST_HEADER = 100_000_000
"""The format's own limit, bytes."""
METADATA = "__metadata__"
BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one value; a tensor of another dtype is copied as it is, its size unchecked."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor in a file: what it is, and where its bytes are, counted from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.stop - self.start

    @property
    def values(self) -> int:
        """Number of values."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What a file says about itself; `tensors` in the order of their bytes."""

    path: Path
    tensors: dict[str, TensorEntry]
    metadata: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class TensorSlice:
    """Some of the equal parts that follow each other along one dimension of a tensor."""

    dim: int
    parts: int
    keep: tuple[int, ...]

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of what is left of a tensor of `shape`."""
        left = shape[self.dim] // self.parts * len(self.keep)
        return (*shape[: self.dim], left, *shape[self.dim + 1 :])


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor to write: its name in the new file, where its bytes come from, and what to leave out."""

    name: str
    source: TensorEntry
    cut: TensorSlice | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """As it will be written."""
        return self.cut.shape(self.source.shape) if self.cut else self.source.shape

    @property
    def size(self) -> int:
        """Bytes that will be written."""
        return self.source.size // self.cut.parts * len(self.cut.keep) if self.cut else self.source.size


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to write, as a path relative to the new folder."""

    name: str
    source: SafetensorsHeader
    pieces: list[Piece] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of values."""
        return sum(piece.size for piece in self.pieces)


def read_header(path: Path) -> SafetensorsHeader:
    """Read and check the header of `path`.

    Raises:
        ModelError: not there, not safetensors, a name twice, or values that are not all there.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(LARGEST_HEADER, size - 8):
                raise _damaged(path, f"its header should be {length} bytes long, the file has {size}")
            text = file.read(length)
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from None
    try:
        parsed = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except _TwiceError as error:
        raise _damaged(path, f"its header has {error} twice") from None
    except ValueError as error:
        raise _damaged(path, f"its header is not JSON ({error})") from None
    return _header(path, parsed, 8 + length, size)


def _header(path: Path, parsed: Any, begin: int, size: int) -> SafetensorsHeader:
    if not isinstance(parsed, dict):
        raise _damaged(path, "its header is not a JSON object")
    metadata = parsed.pop(METADATA, None)
    entries = {name: _entry(path, name, value, begin) for name, value in parsed.items()}
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)))
    at = begin
    for name, entry in entries.items():
        if entry.start != at:
            raise _damaged(path, f"the values of {name} begin at byte {entry.start}, not {at}")
        at = entry.stop
    if at != size:
        short = "shorter" if size < at else "longer"
        raise _damaged(path, f"the file is {short} than its header says ({size} bytes, not {at})")
    return SafetensorsHeader(path, entries, metadata)


def _entry(path: Path, name: str, value: Any, begin: int) -> TensorEntry:
    try:
        first, last = value["data_offsets"]
        entry = TensorEntry(str(value["dtype"]), tuple(value["shape"]), begin + first, begin + last)
        whole = all(isinstance(number, int) and number >= 0 for number in (first, last, *entry.shape))
    except (KeyError, TypeError, ValueError):
        raise _damaged(path, f"its header does not say where {name} is") from None
    bits = BITS.get(entry.dtype)
    if not whole or last < first or (bits and entry.values * bits != 8 * entry.size):
        raise _damaged(path, f"{name} ({entry.dtype}, {list(entry.shape)}) cannot have {entry.size} bytes of values")
    return entry


class _TwiceError(Exception):
    """A name that a JSON object has twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for name, value in pairs:
        if name in unique:
            raise _TwiceError(name)
        unique[name] = value
    return unique


def _damaged(path: Path, problem: str) -> ModelError:
    return ModelError(problem, where=str(path), fix="fetch or write the file again")


def cut_problem(entry: TensorEntry, cut: TensorSlice) -> str | None:
    """Why `entry` cannot be cut; None if it can."""
    bits = BITS.get(entry.dtype)
    if not -1 < cut.dim < len(entry.shape) or entry.shape[cut.dim] % cut.parts:
        return f"shape {list(entry.shape)} has not {cut.parts} equal parts along dimension {cut.dim}"
    step = entry.shape[cut.dim] // cut.parts * prod(entry.shape[cut.dim + 1 :])
    if bits is None or bits * step % 8:
        return f"dtype {entry.dtype} cannot be cut between bytes"
    return None


def write_file(new: NewFile, target: Path, progress: Callable[[int], None] | None = None) -> dict[str, str]:
    """Write `new` to `target`, to the disk and not only to its cache.

    Args:
        new: what to write; pieces in the order of their bytes.
        target: where; replaced if there.
        progress: called with the number of bytes after each write.

    Returns:
        Name → SHA-256 of the tensor's bytes, in hexadecimal.
    """
    digests = {}
    # Hashing takes as long as copying and holds no lock: it runs beside the write. It also is why the bytes pass
    # through here at all, instead of being copied by the kernel.
    with new.source.path.open("rb") as source, target.open("wb", buffering=0) as file:
        with ThreadPoolExecutor(1) as beside:
            _write(file, memoryview(_header_bytes(new)))
            for piece in new.pieces:
                digest = hashlib.sha256()
                for chunk in _chunks(source, piece):
                    hashed = beside.submit(digest.update, chunk)
                    _write(file, chunk)
                    hashed.result()
                    if progress is not None:
                        progress(len(chunk))
                digests[piece.name] = digest.hexdigest()
        # Else a power cut after the rename could leave the final name on a file without its bytes.
        os.fsync(file.fileno())
    return digests


def _header_bytes(new: NewFile) -> bytes:
    header: dict[str, Any] = {} if new.source.metadata is None else {METADATA: new.source.metadata}
    at = 0
    for piece in new.pieces:
        offsets = [at, at := at + piece.size]
        header[piece.name] = {"dtype": piece.source.dtype, "shape": list(piece.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # Values then begin at a multiple of eight, so that a loader can map them into memory as they are.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write(file: BinaryIO, chunk: memoryview) -> None:
    written = 0
    while written < len(chunk):
        written += file.write(chunk[written:])


def _chunks(source: BinaryIO, piece: Piece) -> Iterator[memoryview]:
    entry = piece.source
    if piece.cut is None:
        yield from _range(source, entry.start, entry.stop)
        return
    cut = piece.cut
    row = entry.size // prod(entry.shape[: cut.dim]) if entry.size else 0
    runs = _runs(cut.keep, row // cut.parts)
    if row > CHUNK:
        for start in range(entry.start, entry.stop, row):
            for first, last in runs:
                yield from _range(source, start + first, start + last)
    elif row:
        # Whole rows at a time: each has a part of every layer, and what stays of it lies in one piece or in few.
        for chunk in _range(source, entry.start, entry.stop, CHUNK // row * row):
            rows = np.frombuffer(chunk, np.uint8).reshape(-1, row)
            left = np.concatenate([rows[:, first:last] for first, last in runs], axis=1)
            yield left.data.cast("B")


def _runs(keep: Sequence[int], size: int) -> list[tuple[int, int]]:
    """Byte ranges of the parts in `keep` (ascending), each of `size` bytes, joined where they touch."""
    runs: list[tuple[int, int]] = []
    for part in keep:
        first = part * size
        if runs and runs[-1][1] == first:
            first = runs.pop()[0]
        runs.append((first, (part + 1) * size))
    return runs


def _range(source: BinaryIO, start: int, stop: int, size: int = CHUNK) -> Iterator[memoryview]:
    """The bytes in [start, stop) of a file, `size` at a time, the next ones read while the last are in use."""

    def read(at: int) -> memoryview:
        source.seek(at)
        chunk = source.read(min(size, stop - at))
        if len(chunk) < min(size, stop - at):
            raise _damaged(Path(source.name), f"the file ends at byte {at + len(chunk)}")
        return memoryview(chunk)

    chunks = map(read, range(start, stop, size))
    # Most tensors are one chunk, which a thread would only delay.
    return prefetch(chunks, depth=1) if stop - start > size else chunks
