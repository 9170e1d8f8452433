"""Clips whose reference is empty once normalised: left out of error rates, and said to be wherever one is counted."""

from __future__ import annotations

import json
import logging

import pytest

import shoal
from shoal.data import read_manifests
from shoal.evaluation.empty_references import empty_words
from shoal.plan_search.run import search
from tiny_speech import loaded, write_clips


@pytest.fixture(scope="module")
def model():
    return loaded()


@pytest.fixture
def data(tmp_path):
    """Eight clips of two speakers; of each speaker one says nothing."""
    manifest = write_clips(tmp_path, 8)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row in rows[:2]:
        row["text"] = "[laughter]"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_manifests([str(manifest)])


def test_the_words():
    assert empty_words(4, 9, ["a", "b", "c"]).startswith("4 of 9 references are empty once normalised (a, b, c, …): ")
    assert empty_words(1, 9, ["a"]).startswith("1 of 9 references is empty once normalised (a): ")


def test_a_search_says_so_of_each_split(model, data, caplog):
    with caplog.at_level(logging.WARNING, "shoal.evaluation"):
        search(model, data, max_increase=1000.0, replicates=20, max_new_tokens=8, point=True)
    said = [record.message for record in caplog.records if "empty once normalised" in record.message]
    assert [line.split(" (")[0] for line in said] == ["1 of 4 references is empty once normalised"] * 2


def test_an_audit_that_decodes_says_so(model, data, caplog, tmp_path):
    with caplog.at_level(logging.WARNING, "shoal.evaluation"):
        shoal.audit(
            model, data, "asr", inputs=["speech"], metrics=["ablation"], decode=True, replicates=20, out=tmp_path / "a"
        )
    (said,) = [record.message for record in caplog.records if "empty once normalised" in record.message]
    assert said.startswith("2 of 8 references are empty once normalised (")
