"""Requirements on a checkpoint, and the verdict on what was measured of it."""
