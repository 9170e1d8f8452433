"""A search of version 2, when Holm's correction stood for the sequence and no unseen loop was counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.cli.search import summary
from shoal.plan_search.words import how_sure
from shoal.report import render
from shoal.schema import Search

DOUBT = (
    "not confirmed: it holds on 4 unseen clips (p = 0.030 after Holm's correction), but its test counted no unseen "
    "loop; run the search again, which decodes nothing anew"
)


@pytest.fixture
def old() -> Search:
    return Search.load(Path(__file__).parent / "old_files" / "search.json")


def test_it_is_read_and_confirms_nothing(old):
    assert [(test.p_value, test.p_seen, test.p_holm) for test in old.confirmations] == [(None, 0.01, 0.03)] * 3
    assert (old.confirmed, len(old.chosen.layers)) == (False, 3)
    assert how_sure(old) == DOUBT


def test_it_is_shown(old, tmp_path):
    printed = "\n".join(map(str, summary(old)))
    assert "p Holm" in printed
    assert "clips needed" not in printed
    assert f"({DOUBT})" in printed
    page = render([old], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "p after Holm" in page
    assert "its test counted no unseen loop" in page
