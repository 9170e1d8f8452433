"""Corpus scores, one file per kind of answer; `shoal.evaluation.measures` has them by name."""
