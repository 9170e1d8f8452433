"""`audit --until`: looks, the rule, resuming, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import shoal
import tiny_speech
from shoal.errors import UsageError
from shoal.measurement.best_blocks import _near_best
from shoal.measurement.stopping import in_random_order, looks_at, stable
from shoal.schema import Audit, Look
from shoal.wording import stopped


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    data = tiny_speech.dataset(tmp_path_factory.mktemp("clips"), 60)
    return data.only([replace(row, speaker=f"speaker {number % 20}") for number, row in enumerate(data.rows)])


@pytest.fixture(scope="module")
def model():
    return tiny_speech.loaded()


def look(clips: int, least: float) -> Look:
    return Look(clips=clips, least=least, n=1)


def audit_of(model, data, out: Path | None, **options) -> Audit:
    return shoal.audit(model, data, out=out, replicates=60, batch_size=16, inputs=("text",), **options)


def test_looks_grow_by_half_and_end_with_all_clips(clips):
    assert list(looks_at(clips.rows)) == [32, 48, 60]
    assert list(looks_at(clips.rows, measured=47)) == [48, 60]
    assert list(looks_at(clips.rows, measured=60)) == [60]


def test_the_order_is_of_the_seed_and_not_of_the_manifest_and_goes_on_from_what_is_measured(clips):
    rows = list(clips.rows)
    order = in_random_order(rows, 0)
    assert sorted(row.id for row in order) == sorted(row.id for row in rows)
    assert order == in_random_order(rows[::-1], 0)
    assert order != in_random_order(rows, 1)
    assert order != rows
    measured = {rows[3].id, rows[50].id}
    assert {row.id for row in in_random_order(rows, 0, measured)[:2]} == measured


def test_twice_in_a_row():
    assert not stable([look(32, 1.0)], 0.9)
    assert not stable([look(32, 1.0), look(48, 0.8), look(72, 0.9)], 0.9)
    assert stable([look(32, 0.0), look(48, 0.9), look(72, 0.95)], 0.9)


def test_nearly_the_best_is_counted_by_hand():
    replicates = np.array([[1.0, 1.01, 2.0], [1.0, 1.03, 2.0], [1.1, 1.0, 2.0], [np.nan, 1.0, 1.0]])
    assert _near_best(replicates, 0) == pytest.approx(2 / 3)
    assert _near_best(replicates, 1) == pytest.approx(2 / 3)
    assert _near_best(replicates, 2) == 0


def test_it_stops_says_so_and_finds_itself_finished(model, clips, tmp_path):
    found = audit_of(model, clips, tmp_path, until=0.51)
    assert found.until is not None
    assert Audit.load(tmp_path / "audit.json") == found
    assert [each.clips for each in found.until.looks] == [32, 48, 60][: len(found.until.looks)]
    assert found.data.clips == found.until.looks[-1].clips
    assert f"{found.data.clips} of 60 clips" in stopped(found.until)
    again = audit_of(model, clips, tmp_path, until=0.51)
    assert again.until == found.until
    assert again.inputs == found.inputs


def test_what_it_says_of_the_clips_it_took_is_what_an_audit_of_them_says(model, clips, tmp_path):
    found = audit_of(model, clips, None, until=0.51)
    rows = in_random_order(clips.rows, 0)[: found.data.clips]
    alone = audit_of(model, clips.only(rows), tmp_path)
    there, here = (each.inputs["text"].scopes["all"].metrics["angular"] for each in (alone, found))
    for one, other in ((there.values, here.values), (there.low, here.low), (there.high, here.high)):
        np.testing.assert_allclose(np.concatenate(one), np.concatenate(other), atol=1e-9)
    assert [block.layer for block in there.best] == [block.layer for block in here.best]
    assert found.sums_file is None


def test_where_the_clips_run_out_it_says_so_and_goes_on_with_more(model, clips, tmp_path):
    some = clips.only(list(clips.rows)[:40])
    first = audit_of(model, some, tmp_path, until=0.9999999)
    assert first.until is not None
    assert [each.clips for each in first.until.looks] == [32, 40]
    if not first.until.stable:
        assert stopped(first.until).startswith("was not stable after 40 of 40 clips")
        more = audit_of(model, clips, tmp_path, until=0.9999999)
        assert more.until is not None
        assert [each.clips for each in more.until.looks][:3] == [32, 40, 48]


def test_too_few_speakers_are_refused_and_unknown_ones_are_not_counted(clips):
    few = [replace(row, speaker="one") for row in clips.rows]
    with pytest.raises(UsageError, match="there are 60 clips of 1 speaker;"):
        list(looks_at(few))
    assert list(looks_at([replace(row, speaker=None) for row in clips.rows])) == [32, 48, 60]


def test_too_few_clips_and_shares_that_make_no_sense_are_refused(model, clips, tmp_path):
    with pytest.raises(UsageError, match="takes 32 clips of 8 speakers or more, and there are 31 clips"):
        audit_of(model, clips.only(list(clips.rows)[:31]), tmp_path, until=0.9)
    assert not list(tmp_path.iterdir())
    for share in (0.5, 1.0, 99):
        with pytest.raises(UsageError, match="until"):
            audit_of(model, clips, tmp_path, until=share)
