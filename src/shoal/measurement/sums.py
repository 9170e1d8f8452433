"""Per-utterance sums: streamed to disk while measuring, kept beside the audit as `.npz`.

With them every interval (over utterances or speakers) and every comparison is a second look at a small file, never a
second forward pass.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from shoal.errors import FileFormatError
from shoal.measurement.importance import ImportanceSums, from_arrays, to_arrays
from shoal.measurement.metrics import column_count, metric_slices
from shoal.schema import SCOPES, InputKind, Scope
from shoal.schema.files import replaced
from shoal.statistics import Floats, Ints, Units
from shoal.terms import scope_now

if TYPE_CHECKING:
    from shoal.measurement.collector import UtteranceSums

Cluster = Literal["utterance", "speaker"]


@dataclass(frozen=True)
class Sums:
    """Sums of one input over U utterances.

    `values` is (U, scopes, columns) float64 and may be a memory map; `counts` is (U, scopes) int64; `slices` says which
    columns belong to which metric, by default those that are measured now.
    """

    depth: int
    utterances: list[str]
    speakers: list[str | None]
    values: Floats
    counts: Ints
    slices: dict[str, slice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.slices:
            self.slices.update(metric_slices(self.depth))

    def scope(self, scope: Scope, metric: str) -> tuple[Floats, Ints]:
        """`(U, columns of the metric)` sums and `(U,)` counts of one scope."""
        index = SCOPES.index(scope)
        return self.values[:, index, self.slices[metric]], self.counts[:, index]

    def mean(self, scope: Scope, metric: str) -> Floats:
        """Position-weighted mean over all utterances, shape (columns,); NaN without positions."""
        sums, counts = self.scope(scope, metric)
        total = counts.sum()
        return sums.sum(0) / total if total else np.full(sums.shape[1], np.nan)

    def lengthened(self, more: Sums) -> Sums:
        """These utterances and more."""
        return replace(
            self,
            utterances=self.utterances + more.utterances,
            speakers=self.speakers + more.speakers,
            values=np.concatenate([self.values, more.values]),
            counts=np.concatenate([self.counts, more.counts]),
        )


def units_of(sums: Sums, cluster: Cluster) -> Units:
    """What intervals are drawn over."""
    return Units.of(sums.speakers, cluster)


@dataclass
class SumsWriter:
    """Takes utterances one by one and writes them to an unnamed temporary file: memory stays flat.

    Args:
        depth: number of layers L.
        folder: where the temporary file lives (the system's default if None).
    """

    depth: int
    folder: Path | None = None
    utterances: list[str] = field(default_factory=list)
    _counts: list[Ints] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._columns = column_count(self.depth)
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 lives as long as its map

    def add(self, item: UtteranceSums) -> None:
        """Append one utterance."""
        self._file.write(np.ascontiguousarray(item.sums).tobytes())
        self._counts.append(item.counts)
        self.utterances.append(item.id)

    def finish(self, speakers: Sequence[str | None]) -> Sums:
        """Everything added so far as `Sums` over a memory map; `speakers` in the order of `utterances`."""
        self._file.flush()
        shape = (len(self.utterances), len(SCOPES), self._columns)
        values = np.memmap(self._file, dtype=np.float64, mode="r", shape=shape) if self.utterances else np.zeros(shape)
        counts = np.stack(self._counts) if self._counts else np.zeros(shape[:2], dtype=np.int64)
        return Sums(self.depth, self.utterances, list(speakers), values, counts)


@dataclass
class SumsFile:
    """What an audit's `.npz` holds.

    `measured_on` says what was measured, so that the same audit asked for again need not measure; `seconds` is what it
    took. `importance` holds what the gradient and ablation metrics measured, if they were asked for, and
    `importance_options` the options that each of these measurements depends on, by `INPUT:METRIC`.
    """

    inputs: dict[InputKind, Sums]
    measured_on: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    importance: dict[InputKind, list[ImportanceSums]] = field(default_factory=dict)
    importance_options: dict[str, dict[str, Any]] = field(default_factory=dict)


def save_sums(path: Path, content: SumsFile) -> Path:
    """Write the sums as `.npz` at `path`, atomically.

    Raises:
        FileFormatError: the place cannot be written.
    """
    inputs = content.inputs
    meta: dict[str, Any] = {
        "schema_version": 1,
        "measured_on": content.measured_on,
        "seconds": content.seconds,
        "scopes": list(SCOPES),
        "inputs": list(inputs),
        "depth": next(iter(inputs.values())).depth,
        "columns": {name: [s.start, s.stop] for name, s in next(iter(inputs.values())).slices.items()},
        "importance_options": content.importance_options,
        "importance": {},
    }
    arrays: dict[str, Any] = {}
    for name, items in content.importance.items():
        meta["importance"][name], more = to_arrays(items, name)
        arrays |= more
    arrays["meta"] = np.array(json.dumps(meta))
    for name, sums in inputs.items():
        arrays[f"{name}_values"], arrays[f"{name}_counts"] = sums.values, sums.counts
        arrays[f"{name}_utterances"] = np.array(sums.utterances, dtype=np.str_)
        arrays[f"{name}_speakers"] = np.array([speaker or "" for speaker in sums.speakers], dtype=np.str_)
    with replaced(path) as file:
        np.savez(file, **arrays)
    return path


def load_sums(path: Path) -> SumsFile:
    """Read what `save_sums` wrote.

    Raises:
        FileFormatError: not there or not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            meta = json.loads(str(data["meta"]))
            if meta["schema_version"] != 1 or [scope_now(name) for name in meta["scopes"]] != list(SCOPES):
                raise ValueError("another schema")
            slices = _slices(meta)
            inputs = {name: _read_input(data, name, int(meta["depth"]), slices) for name in meta["inputs"]}
            importance = {
                name: from_arrays(described, data, name) for name, described in meta.get("importance", {}).items()
            }
            # Files written before have keys (hashes) in the place of both, which say nothing of what differs.
            measured_on, options = meta.get("measured_on", {}), meta.get("importance_options", {})
            return SumsFile(inputs, measured_on, float(meta["seconds"]), importance, options)
    except FileNotFoundError:
        raise FileFormatError(
            "no such file", where=str(path), fix="keep the .npz beside its audit.json, or run the audit again"
        ) from None
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise FileFormatError(
            f"not an audit's sums ({error.__class__.__name__})", where=str(path), fix="run the audit again"
        ) from None


def _slices(meta: dict[str, Any]) -> dict[str, slice]:
    """Which columns belong to which metric; a file that does not say so has the two that there were then."""
    depth = int(meta["depth"])
    blocks = depth * (depth + 1) // 2
    columns = meta.get("columns", {"angular": [0, blocks], "influence": [blocks, blocks + depth]})
    return {name: slice(*bounds) for name, bounds in columns.items()}


def _read_input(data: Any, name: str, depth: int, slices: dict[str, slice]) -> Sums:
    speakers = [str(speaker) or None for speaker in data[f"{name}_speakers"]]
    utterances = [str(utterance) for utterance in data[f"{name}_utterances"]]
    return Sums(depth, utterances, speakers, data[f"{name}_values"], data[f"{name}_counts"], dict(slices))
