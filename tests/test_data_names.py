"""Short names of data sets: the same as in ids."""

from __future__ import annotations

import pytest

from shoal.data_names import label_of


@pytest.mark.parametrize(
    ("source", "label"),
    [
        ("corpus/test.jsonl", "test"),
        ("/a/corpus/manifest.jsonl", "corpus"),
        ("hf:owner/name:config:test", "name"),
        ("hf:name", "name"),
        ("", ""),
    ],
)
def test_a_source_has_a_short_name(source, label):
    assert label_of(source) == label


def test_a_folder_is_called_as_it_is(tmp_path):
    (tmp_path / "my.corpus").mkdir()
    assert label_of(str(tmp_path / "my.corpus")) == "my.corpus"
