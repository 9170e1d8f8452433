"""`shoal completion`: commands and options at the touch of the tab key."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from shoal.cli import options
from shoal.settings import OUTPUT


@options.command
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish", "powershell"], OUTPUT, Parameter(help="Shell to complete in.")], /
) -> None:
    """Print what completes commands and options in a shell: eval "$(shoal completion bash)"."""
    from shoal.cli import app

    print(app.generate_completion(shell=shell))
