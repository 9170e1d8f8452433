"""An evaluation in parts: each process decodes every N-th clip into files of its own, and a later run takes them up.

::

    outputs/full.jsonl                  what has been taken up, and what runs without a shard decode
    outputs/full.shard-2-of-8.jsonl     what `--shard 2/8` decodes; gone when it has been taken up

Which clips belong to a shard only decides who decodes them. A clip counts as decoded whichever file has it, so shards
can be run in any order, again, and in another number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.data import Dataset
from shoal.errors import UsageError
from shoal.evaluation.indexed_outputs import IndexedOutputs
from shoal.evaluation.locks import Locks
from shoal.evaluation.system_outputs import Output, SystemOutputs, check_header, header_path, read_outputs
from shoal.schema import read_json


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` (from 1) of `of` parts.

    Raises:
        UsageError: there is no such part.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise UsageError(f"{self.number}/{self.of} is no part", where="--shard", fix="give 1/N to N/N, such as 2/8")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From `"2/8"`.

        Raises:
            UsageError: it is not written like that.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if match is None:
            raise UsageError(f"{text!r} is not K/N", where="--shard", fix="give 1/N to N/N, such as 2/8")
        return cls(int(match[1]), int(match[2]))

    def rows_of(self, data: Dataset) -> Dataset:
        """Every `of`-th clip."""
        return data.only(data.rows[self.number - 1 :: self.of])

    def file(self, path: Path) -> Path:
        """Where this part of `NAME.jsonl` goes."""
        return path.with_name(f"{path.stem}.shard-{self.number}-of-{self.of}.jsonl")


@dataclass(frozen=True, slots=True)
class ShardOutputs:
    """What `evaluate_shard` did."""

    shard: Shard
    clips: int
    """That belong to the shard and can be used."""
    decoded: int
    """Outputs (clips × systems) that this call made; the others were there."""
    files: list[Path]
    """The shard's file of each system."""


def open_whole(path: Path, header: Mapping[str, Any], locks: Locks) -> SystemOutputs:
    """The outputs in `path` with those of all its shards, whose files are gone then.

    Raises:
        UsageError: another process is at it.
        FileFormatError: there are outputs made otherwise, or files cannot be read or written.
    """
    locks.take(path)
    file = SystemOutputs.open(path, header)
    merge_shards(file)
    return file


def read_whole(path: Path) -> Mapping[str, Output]:
    """The outputs in `path`, which have been written before, with those of all its shards, whose files are gone then.

    Raises:
        UsageError: there are shards, and another process is at one of them.
        FileFormatError: there are outputs made otherwise, or files cannot be read or written.
    """
    if not shard_files(path):
        return read_outputs(path)
    with Locks() as locks:
        return open_whole(path, read_json(header_path(path)), locks).outputs


def open_shard(path: Path, header: Mapping[str, Any], shard: Shard, locks: Locks) -> SystemOutputs:
    """The outputs of one shard of `path`; the file in `path` and those of other shards are beside it.

    Raises:
        UsageError: another process is at the same shard, or at the whole.
        FileFormatError: there are outputs made otherwise, or files cannot be read or written.
    """
    own = shard.file(path)
    locks.take_shard(own, path)
    file = SystemOutputs.open(own, header)
    others = [other for other in [path, *shard_files(path)] if other != own and other.exists()]
    for other in others:
        check_header(other, file.header)
    file.beside = [IndexedOutputs(other) for other in others]
    return file


def merge_shards(file: SystemOutputs) -> None:
    """Move what the shards of a file hold into it; killed at any moment, the next call goes on.

    The file must be locked.

    Raises:
        FileFormatError: a shard was made otherwise, or files cannot be read or written.
    """
    if file.path is None or not isinstance(file.outputs, IndexedOutputs):
        return
    for path in shard_files(file.path):
        check_header(path, file.header)
        file.outputs.take(IndexedOutputs(path))
        path.unlink(missing_ok=True)
        header_path(path).unlink(missing_ok=True)
    _tidy(file.path)


def _tidy(path: Path) -> None:
    """Remove headers that processes which were killed have half written."""
    left = re.compile(rf"\.{re.escape(path.stem)}(\.shard-\d+-of-\d+)?\.json\.\d+\.tmp")
    for file in path.parent.iterdir():
        if left.fullmatch(file.name):
            file.unlink(missing_ok=True)


def shard_files(path: Path) -> list[Path]:
    """The files of the shards of `NAME.jsonl`, the one written last at the end."""
    name = re.compile(re.escape(path.stem) + r"\.shard-\d+-of-\d+\.jsonl?")
    siblings = path.parent.iterdir() if path.parent.is_dir() else ()
    # A kill between removing a file and removing its header leaves the header.
    files = {file.with_suffix(".jsonl") for file in siblings if name.fullmatch(file.name)}
    return sorted(files, key=lambda file: (file.stat().st_mtime_ns if file.exists() else 0, file.name))
