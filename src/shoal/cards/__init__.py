"""The card of a checkpoint: what was done to it, what was measured of it, and what was not validated."""
