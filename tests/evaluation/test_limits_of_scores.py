"""Limits that scores must keep."""

from __future__ import annotations

from shoal.schema import DataInfo, Delta, Estimate, MeasuredScore, ModelInfo, Provenance, Scores, SystemScores
from shoal.validation.requirement_syntax import max_wer, max_wer_increase
from shoal.validation.validate import validate


def system(name, wer, *, absolute=None, relative=None):
    delta = None
    if absolute is not None:
        bounds = None if relative is None else Estimate(value=relative, low=relative - 0.1, high=relative + 0.1)
        delta = Delta(absolute=Estimate(value=absolute), relative=bounds)
    return SystemScores(
        name=name,
        measures={
            "WER": MeasuredScore(
                value=Estimate(value=wer), delta=delta, higher_is_better=False, fraction=True, signature="s"
            )
        },
    )


def scores(*systems):
    return Scores(
        provenance=Provenance(shoal="test"),
        model=ModelInfo(ref="m", kind="speech_llm", class_name="M", family="speech_llm", depth=4, hidden_size=8),
        data=DataInfo(manifests=[], clips=1, seconds=1.0),
        task="asr",
        normaliser="n",
        scorer="s",
        systems=list(systems),
    )


def broken(found, *requirements):
    return validate(requirements, [found], confident=False).failures


def test_limits_that_hold_give_no_line():
    found = scores(system("full", 0.2), system("cut", 0.22, absolute=0.02, relative=0.1))
    assert broken(found, max_wer(0.22), max_wer_increase(0.1)) == []


def test_a_broken_limit_names_system_value_and_interval():
    found = scores(system("full", 0.2), system("cut", 0.3, absolute=0.1, relative=0.5))
    (finding,) = broken(found, max_wer_increase(0.25))
    assert "cut" in finding.where
    assert finding.shown == "+50.0 % [+40.0, +60.0]"
    (finding,) = broken(found, max_wer(0.25))
    assert finding.measured.value == 0.3


def test_the_baseline_is_not_judged_unless_it_is_alone():
    assert broken(scores(system("full", 0.9), system("cut", 0.1, absolute=-0.8)), max_wer(0.5)) == []
    assert len(broken(scores(system("full", 0.9)), max_wer(0.5))) == 1


def test_after_a_baseline_without_errors_any_error_is_too_many():
    assert broken(scores(system("full", 0.0), system("a", 0.1, absolute=0.1)), max_wer_increase(9.0))
    assert not broken(scores(system("full", 0.0), system("a", 0.0, absolute=0.0)), max_wer_increase(0))


def test_an_increase_without_a_baseline_does_not_hold():
    (finding,) = broken(scores(system("full", 0.2)), max_wer_increase(0.25))
    assert "no baseline" in finding.reason
