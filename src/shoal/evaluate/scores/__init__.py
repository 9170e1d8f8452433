"""Corpus scores, one file per kind of answer; `shoal.evaluate.quality` has them by name."""
