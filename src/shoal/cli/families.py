"""`shoal families`: which models Shoal can audit, prune and evaluate, and how that was shown."""

from __future__ import annotations

from shoal.cli.options import Json, command


@command
def families(*, json: Json = False) -> None:
    """List the model classes that Shoal supports, and what its tests have shown of each."""
    from shoal.models.families import table

    print(table.as_json() if json else table.as_markdown())
