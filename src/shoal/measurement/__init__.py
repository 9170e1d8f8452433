"""Measure how redundant the decoder layers are."""
