"""Carry out a plan: in memory (`in_memory`), or as a checkpoint folder (`on_disk`), verified before it exists."""
