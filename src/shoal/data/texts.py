"""Many short texts in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import overload


class Texts(Sequence[str]):
    """Texts that only ever grow in number: their UTF-8 and 8 bytes each, where a list of `str` takes 60 more each."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._ends = array("Q")

    def append(self, text: str) -> None:
        """Add one at the end."""
        # Names of files may hold bytes that are no UTF-8, which Python keeps as lone surrogates.
        self._content += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._content))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        end = self._ends[index]  # raises IndexError
        index = range(len(self))[index]
        start = self._ends[index - 1] if index else 0
        return self._content[start:end].decode("utf-8", "surrogatepass")
