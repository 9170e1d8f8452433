"""How long work says how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (what is done, how much of it is done, how much there is in all)."""
