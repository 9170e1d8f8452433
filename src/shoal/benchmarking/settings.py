"""How much is timed."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from pydantic import Field

from shoal.settings import OUTPUT, SPEED, Bootstrap


class BenchSettings(Bootstrap):
    """How much is timed."""

    clips: int = Field(default=8, ge=1)
    """Number of clips to time, from short to long."""
    repeats: int = Field(default=5, ge=1)
    """Number of rounds over the clips, after one pass to warm up."""
    new_tokens: int = Field(default=32, ge=2)
    """Number of tokens decoded for every clip, past the end of the answer too, so that all systems do equal work."""
    memory: bool = False
    """Measure peak memory too, every system in a process of its own that loads the model again."""
    batch_size: Annotated[int, SPEED] = Field(default=1, ge=1)
    """Clips in a batch; 1 gives the latency of a single request."""
    force: Annotated[bool, OUTPUT] = False
    """Measure again and replace the file if there is one already."""
    trust_remote_code: Annotated[bool, Parameter(parse=False)] = False
    """Run code that the model brings along, in the processes that measure memory."""
