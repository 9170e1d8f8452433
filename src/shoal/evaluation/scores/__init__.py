"""Corpus scores, one file per kind of answer; `registry` has them by name."""
