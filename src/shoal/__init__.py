"""Shoal finds out how shallow a speech large language model can be."""
