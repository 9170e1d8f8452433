"""Raw outputs on disk, one JSON line a clip, so that scoring can be repeated and decoding resumed.

A line is the manifest row as NeMo writes transcriptions: its own fields, `text` (the reference), `pred_text`
(what the model said, untouched) and, under `shoal`, what only we know. Beside `NAME.jsonl` lies `NAME.json`,
the header: model, layers removed, task and decoding settings. Lines are only ever appended under the same
header. A later line for the same clip replaces an earlier one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shoal.data.clip import Row
from shoal.errors import FileFormatError
from shoal.schema import read_json, write_text

OUTPUTS_VERSION = 1


@dataclass(frozen=True, slots=True)
class Output:
    """What one system said to one clip."""

    id: str
    audio_filepath: str
    duration: float
    offset: float
    text: str
    """The reference."""
    pred_text: str
    """The raw output."""
    lang: str | None
    speaker: str | None
    tokens: int
    """Generated, without the end token."""
    truncated: bool
    encode_seconds: float
    """This clip's share of its batch's time, as the other seconds."""
    prefill_seconds: float
    decode_seconds: float
    fields: dict[str, Any] = field(default_factory=dict)
    """All keys of the manifest row."""
    data: str = ""
    """The data set the row came from: the name of its manifest; empty in files from before there was one."""
    choices: dict[str, float] | None = None
    """Log-likelihood (nats, summed over its tokens) of every answer that the task allows; None if none were asked."""
    loss: tuple[float, int] | None = None
    """Cross-entropy of the right answer, teacher-forced: sum (nats) and number of tokens; None if not measured."""

    def line(self) -> str:
        """As JSON in one line."""
        return json.dumps(self._record(), ensure_ascii=False, default=str)

    def _record(self) -> dict[str, Any]:
        own = asdict(self)
        fields = own.pop("fields")
        main = {
            key: own.pop(key) for key in ("id", "audio_filepath", "duration", "offset", "text", "pred_text")
        }
        return {**fields, **main, "shoal": own}

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Output:
        """The reverse of `line`.

        Raises:
            KeyError, TypeError: a key is missing or not what it should be.
        """
        main = {
            key: record[key] for key in ("id", "audio_filepath", "duration", "offset", "text", "pred_text")
        }
        return cls(
            **main, **record["shoal"], fields={key: value for key, value in record.items() if key != "shoal"}
        )

    def answers(self, row: Row, reference: str) -> bool:
        """Whether this is an output for `row` as it stands now; the audio's folder may have moved."""
        mine = _question(self, Path(self.audio_filepath).name, self.text)
        return mine == _question(row, row.audio.name, reference)


def _question(clip: Row | Output, audio_name: str, reference: str) -> str:
    extra = {key: value for key, value in clip.fields.items() if key not in _OWN_KEYS}
    parts = [audio_name, clip.duration, clip.offset, reference, clip.lang, clip.speaker, extra]
    return json.dumps(parts, sort_keys=True, default=str)


_OWN_KEYS = frozenset({"id", "audio_filepath", "duration", "offset", "text", "pred_text", "shoal"})


class OutputFile:
    """The outputs of one system, in memory and, with a path, on disk.

    Args:
        path: `NAME.jsonl`, or None to keep nothing on disk.
        header: what decides the outputs; see `open`.
    """

    def __init__(self, path: Path | None, header: Mapping[str, Any]) -> None:
        self.path = path
        self.header = dict(header)
        self.outputs: dict[str, Output] = {}

    @classmethod
    def open(cls, path: Path | None, header: Mapping[str, Any]) -> OutputFile:
        """Start a file, or go on with the one that is there.

        Args:
            path: `NAME.jsonl`; None keeps everything in memory.
            header: nested settings that decide the outputs. All but those under `note` must be the same as
                in the file that is there.

        Raises:
            FileFormatError: the outputs there were made otherwise, or cannot be read or written.
        """
        opened = cls(path, {"shoal_outputs": OUTPUTS_VERSION, **header})
        if path is None:
            return opened
        if path.exists() or header_path(path).exists():
            _check_same(path, read_json(header_path(path)), opened.header)
            opened.outputs = read_outputs(path, repair=True)
        write_text(header_path(path), json.dumps(opened.header, indent=1, ensure_ascii=False) + "\n")
        return opened

    def has(self, row: Row, reference: str) -> bool:
        """Whether the clip needs no decoding any more."""
        found = self.outputs.get(row.id)
        return found is not None and found.answers(row, reference)

    def append(self, outputs: Sequence[Output]) -> None:
        """Add outputs; on disk they are there when this returns.

        Raises:
            FileFormatError: the file cannot be written.
        """
        if self.path is not None:
            _append(self.path, "".join(output.line() + "\n" for output in outputs))
        self.outputs |= {output.id: output for output in outputs}


def header_path(path: Path) -> Path:
    """Where the header of `NAME.jsonl` lies: `NAME.json`."""
    return path.with_suffix(".json")


def read_outputs(path: Path, *, repair: bool = False) -> dict[str, Output]:
    """All outputs by clip id; a last line that was cut while being written is left out.

    Args:
        path: `NAME.jsonl`.
        repair: also remove a cut last line from the file, so that more can be appended.

    Raises:
        FileFormatError: cannot be read, or a line is not an output.
    """
    try:
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if repair and len(whole) < len(data):
            os.truncate(path, len(whole))
    except OSError as error:
        raise FileFormatError(f"cannot be read ({error.strerror})", where=str(path)) from None
    found: dict[str, Output] = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            output = Output.of_record(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(
                f"not an output ({type(error).__name__}: {error})",
                where=f"{path}:{number}",
                fix="delete this line; its clip is then decoded again",
            ) from None
        found[output.id] = output
    return found


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise FileFormatError(
            f"cannot be written ({error.strerror})",
            where=str(path),
            fix="make room or choose another --out; the same command then goes on",
        ) from None


def _check_same(path: Path, there: Any, wanted: Mapping[str, Any]) -> None:
    before = _flat(there)
    now = _flat(json.loads(json.dumps(wanted)))
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differing:
        key = differing[0]
        more = f" (and {len(differing) - 1} more differences)" if len(differing) > 1 else ""
        raise FileFormatError(
            f"these outputs were made with {key} = {before.get(key)!r}, this run has {now.get(key)!r}{more}",
            where=str(path),
            fix="give another --out, or delete this folder to decode again",
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` → `{"a.b": 1}`, without what stands under `note`."""
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if key != "note":
            found |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found
