"""The processes that train together."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1

    @classmethod
    def now(cls, *, cpu: bool) -> Processes:
        """As the launcher says; alone without one. Joins the others where there are any."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState

        state = PartialState(cpu=cpu)
        return cls(state.process_index, state.num_processes)

    def wait(self) -> None:
        """Until all have come here."""
        if self.world > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()
