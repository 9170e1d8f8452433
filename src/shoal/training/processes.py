"""The processes that train together, and the folder in which an unfinished run lies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from shoal.machine import writing


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


@contextmanager
def work_folder(out: Path | None, name: str, processes: Processes) -> Iterator[Path]:
    """Where an unfinished run lies, so that the same command goes on with it; gone when all is written."""
    if out is None:
        with TemporaryDirectory(prefix=f"shoal-{name}-") as place:
            yield Path(place)
        return
    work = out.absolute().with_name(f".{out.name}.{name}")
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
    try:
        yield work
    except BaseException:
        with suppress(OSError):
            work.rmdir()  # where nothing has begun
        raise
    processes.wait()
    if processes.rank == 0:
        shutil.rmtree(work, ignore_errors=True)
