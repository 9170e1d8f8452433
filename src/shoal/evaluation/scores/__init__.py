"""Corpus scores, one file per kind of answer; `shoal.evaluation.quality` has them by name."""
