"""Data sets of the Hugging Face `datasets` library: saved folders and references.

Audio stays encoded in the table until a clip is needed and is decoded by us, so that the same decoder is used
for every source.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shoal.data.sources.base import RawRow, Source
from shoal.errors import AudioError, ManifestError, UsageError

PREFIX = "hf:"
_TEXT = ("text", "sentence", "transcription", "transcript")
_ALIASES = {"speaker": ("speaker", "speaker_id", "client_id"), "lang": ("lang", "language", "locale")}
_PLAIN = (str, int, float, bool, list, dict, type(None))


@dataclass(frozen=True, slots=True)
class TableAudio:
    """The encoded audio of one row of a table whose only column is `column`."""

    table: Any
    column: str
    index: int

    def __call__(self) -> bytes:
        """Read the bytes, from the table or from the file it points to.

        Raises:
            AudioError: there are neither bytes nor a file.
        """
        value = self.table[self.index][self.column]
        value = value if isinstance(value, dict) else {"path": value}
        if value.get("bytes"):
            return bytes(value["bytes"])
        if value.get("array") is not None:
            return _as_wav(value["array"], value.get("sampling_rate"))
        try:
            return Path(value["path"]).read_bytes()
        except (OSError, KeyError, TypeError, ValueError):
            raise AudioError(f"the row holds no audio bytes and its file {value.get('path')!r} is not there") from None


def _as_wav(array: Any, rate: Any) -> bytes:
    import soundfile

    if not isinstance(rate, int) or rate < 1:
        raise AudioError("the row holds samples without a sampling rate")
    buffer = io.BytesIO()
    soundfile.write(buffer, np.asarray(array, dtype=np.float32).T, rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def is_saved_dataset(folder: Path) -> bool:
    """Whether `folder` was written by `save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def read_saved(folder: Path) -> Source:
    """Read a folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`.

    Raises:
        UsageError: `datasets` is not installed.
        ManifestError: the folder cannot be loaded or has no audio column.
    """
    datasets = _library(str(folder))
    return _source(str(folder), folder.resolve().name, lambda: datasets.load_from_disk(str(folder)))


def read_reference(reference: str) -> Source:
    """Read `hf:NAME[:CONFIG][:SPLIT]` from the Hub or, if NAME is a folder, from there.

    A single part after the name is a configuration if the data set has one of that name, else a split.
    Without a split all are read; every row gets a field `split`.

    Raises:
        UsageError: `datasets` is not installed, or the reference is malformed.
        ManifestError: the data set cannot be loaded or has no audio column.
    """
    name, *parts = reference.removeprefix(PREFIX).split(":")
    if not name or len(parts) > 2 or not all(parts):
        raise UsageError("not a data set reference", where=reference, fix="write hf:NAME[:CONFIG][:SPLIT]")
    datasets = _library(reference)

    def load() -> Any:
        config, split = _config_and_split(datasets, name, parts)
        return datasets.load_dataset(name, config, split=split)

    return _source(reference, name.rstrip("/").rpartition("/")[2], load)


def _config_and_split(datasets: Any, name: str, parts: list[str]) -> tuple[str | None, str | None]:
    if len(parts) == 2:
        return parts[0], parts[1]
    if not parts:
        return None, None
    is_config = parts[0] in datasets.get_dataset_config_names(name)
    return (parts[0], None) if is_config else (None, parts[0])


def _library(where: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise UsageError(
            "reading it needs the datasets library", where=where, fix="install it: pip install 'shoal[datasets]'"
        ) from None
    return datasets


def _source(name: str, label: str, load: Any) -> Source:
    try:
        loaded = load()
    except Exception as error:  # `datasets` raises whatever its back ends raise; all of it is about this input
        message = str(error).strip().partition("\n")[0]
        raise ManifestError(
            f"the data set cannot be loaded ({type(error).__name__}: {message})", where=name, fix="check the reference"
        ) from None
    splits = loaded if isinstance(loaded, dict) else {str(loaded.split or ""): loaded}
    rows: list[RawRow] = []
    for split, table in splits.items():
        rows.extend(_rows(table, split, name, start=len(rows) + 1))
    if not rows:
        raise ManifestError("the data set is empty", where=name)
    return Source(name=name, label=label, rows=rows)


def _rows(table: Any, split: str, name: str, start: int) -> list[RawRow]:
    """One raw row per table row; the audio column is replaced by a way to fetch its bytes."""
    table = table.with_format(None)  # a saved format may hide columns or turn values into tensors
    column = _audio_column(table, name)
    audio = _undecoded(table.select_columns([column]), column)
    paths = _paths(audio, column)
    labels = {key: feature for key, feature in table.features.items() if hasattr(feature, "int2str")}
    rows = []
    for index, record in enumerate(table.remove_columns([column])):
        fields = {key: value for key, value in record.items() if isinstance(value, _PLAIN)}
        for key, feature in labels.items():
            value = fields.get(key)
            if isinstance(value, int) and value >= 0:
                fields[key] = feature.int2str(value)
        fields = _renamed(fields) | {"audio_filepath": paths[index] or f"{start + index - 1:06d}"}
        if split:
            fields.setdefault("split", split)
        rows.append(RawRow(name, start + index, fields, blob=TableAudio(audio, column, index)))
    return rows


def _audio_column(table: Any, name: str) -> str:
    by_type = [key for key, feature in table.features.items() if type(feature).__name__ == "Audio"]
    by_name = [key for key in ("audio", "audio_filepath", "path", "file") if key in table.features]
    if not by_type + by_name:
        raise ManifestError(
            f"the data set has no audio column (columns: {', '.join(table.column_names)})",
            where=name,
            fix="rename the column to audio",
        )
    return str((by_type + by_name)[0])


def _undecoded(audio: Any, column: str) -> Any:
    import datasets

    is_audio = isinstance(audio.features[column], datasets.Audio)
    return audio.cast_column(column, datasets.Audio(decode=False)) if is_audio else audio


def _paths(audio: Any, column: str) -> list[str | None]:
    """The audio's file names, read without touching the bytes beside them."""
    flat = audio.flatten()
    key = f"{column}.path" if f"{column}.path" in flat.column_names else column
    if key not in flat.column_names:
        return [None] * len(audio)
    return [Path(value).name if isinstance(value, str) else None for value in flat.select_columns([key])[key]]


def _renamed(fields: dict[str, Any]) -> dict[str, Any]:
    """The same fields with `text`, `speaker` and `lang` filled from the columns that usually hold them."""
    for target, names in {"text": _TEXT, **_ALIASES}.items():
        column = next((name for name in names if fields.get(name) is not None), None)
        if column is not None:
            fields.setdefault(target, fields[column])
    return fields
