"""`shoal families`: which models Shoal can audit, prune and evaluate, and how that was shown."""

from __future__ import annotations

from typing import Annotated

from shoal.cli.options import Flat, command
from shoal.cli.printing import TablePrinting


@command
def families(*, printing: Annotated[TablePrinting, Flat] = TablePrinting(format="md")) -> None:
    """List the model classes that Shoal supports, and what its tests have shown of each."""
    from shoal.models.families import table

    printing.show(table.as_document(), [table.as_table()])
