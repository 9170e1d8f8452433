"""How a card is written."""

from __future__ import annotations

from typing import Annotated

from shoal.models.settings import Placement
from shoal.settings import OUTPUT


class CardSettings(Placement):
    """How a card is written. The model is loaded only where documents must be told apart by its weights."""

    attach: Annotated[bool, OUTPUT] = False
    """Copy the given files, without the words that were spoken, to validation/ in the folder, so that the card can be
    made again from the folder alone."""
    force: Annotated[bool, OUTPUT] = False
    """Replace a card that Shoal did not write."""
