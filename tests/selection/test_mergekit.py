"""Plans as mergekit configurations."""

from __future__ import annotations

from itertools import pairwise

import yaml
from hypothesis import given
from hypothesis import strategies as st

from shoal.selection import manual, mergekit_yaml


@given(st.sets(st.integers(0, 30), max_size=30))
def test_the_slices_are_the_layers_that_stay(removed):
    parsed = yaml.safe_load(mergekit_yaml(manual("org/model", 32, sorted(removed))))
    ranges = [source["layer_range"] for part in parsed["slices"] for source in part["sources"]]
    assert [layer for start, stop in ranges for layer in range(start, stop)] == [
        layer for layer in range(32) if layer not in removed
    ]
    assert all(a[1] < b[0] for a, b in pairwise(ranges))
    assert parsed["merge_method"] == "passthrough"


def test_the_model_can_be_named_otherwise():
    parsed = yaml.safe_load(mergekit_yaml(manual("org/model", 4, [1]), "/models/a b: c"))
    assert {source["model"] for part in parsed["slices"] for source in part["sources"]} == {"/models/a b: c"}
