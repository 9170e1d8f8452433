"""What one system said to one clip, as a line of JSON and back.

A line is the manifest row as NeMo writes transcriptions: its own fields, `text` (the reference), `pred_text` (what the
model said, untouched) and, under `shoal`, what only Shoal knows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Any

from shoal.data.clip import Row

AUDIO_OF = "audio_of"
"""Field of an output under a control: the id of the clip whose audio was heard."""


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

    @property
    def source(self) -> str | None:
        """The manifest's own `text`, where the reference is another, as in translation; None where there is none."""
        text = self.fields.get("text")
        return text if isinstance(text, str) and text not in ("", self.text) else None

    def line(self) -> str:
        """As JSON in one line, without an end of line."""
        return json.dumps(self._record(), ensure_ascii=False, default=str)

    def _record(self) -> dict[str, Any]:
        own = {attribute.name: getattr(self, attribute.name) for attribute in dataclass_fields(self)}
        fields = own.pop("fields")
        main = {key: own.pop(key) for key in ("id", "audio_filepath", "duration", "offset", "text", "pred_text")}
        # `text` is the reference in a line, so the manifest's own needs another place.
        kept = {} if self.source is None else {"source": self.source}
        return {**fields, **main, "shoal": own | kept}

    @classmethod
    def of_line(cls, line: str | bytes) -> Output:
        """The reverse of `line`.

        Raises:
            ValueError, KeyError, TypeError: not JSON, or a key is missing or not what it should be.
        """
        return cls.of_record(json.loads(line))

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Output:
        """From what `line` holds as JSON.

        Raises:
            KeyError, TypeError: a key is missing or not what it should be.
        """
        main = {key: record[key] for key in ("id", "audio_filepath", "duration", "offset", "text", "pred_text")}
        own = dict(record["shoal"])
        if own.get("loss") is not None:
            own["loss"] = tuple(own["loss"])
        source = own.pop("source", record["text"])
        fields = {key: value for key, value in record.items() if key != "shoal"} | {"text": source}
        return cls(**main, **own, fields=fields)

    @property
    def question(self) -> int:
        """A hash of what was asked; see `question_of`."""
        return _hashed(self, PurePosixPath(self.audio_filepath).name, self.text)


def question_of(row: Row, reference: str) -> int:
    """A hash of all that decides what is asked about a clip, besides the settings of the run; 64 bits, signed.

    Of the audio's path only the file name counts: its folder may move.
    """
    return _hashed(row, row.audio.name, reference)


def hash_of(text: str) -> int:
    """A number that stands for a text; 64 bits, signed.

    Among a million texts two are taken for one another with a probability of 3e-8.
    """
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _hashed(clip: Row | Output, audio_name: str, reference: str) -> int:
    extra = {key: value for key, value in clip.fields.items() if key not in _OWN_KEYS}
    parts = [audio_name, clip.duration, clip.offset, reference, clip.lang, clip.speaker, extra]
    return hash_of(json.dumps(parts, sort_keys=True, default=str))


_OWN_KEYS = frozenset({"id", "audio_filepath", "duration", "offset", "text", "pred_text", "shoal"})
