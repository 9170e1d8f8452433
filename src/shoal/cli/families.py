"""`shoal families`: which models Shoal can audit, prune and evaluate, and how that was shown."""

from __future__ import annotations

from shoal.cli.options import Json, command


@command
def families(*, json: Json = False) -> None:
    """Print the classes that Shoal's contract tests cover, as a Markdown table or as JSON."""
    from shoal.models.families import table

    print(table.as_json() if json else table.as_markdown())
