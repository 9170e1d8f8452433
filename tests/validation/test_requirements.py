"""Requirements: met only by what was measured, judged on bounds or points, and written as people write them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal
from card_documents import around, bench, delta, group, info, measure, plan, scores, system
from shoal.errors import UsageError
from shoal.schema import Estimate
from shoal.validation import requirement_syntax as forms
from shoal.validation.junit import junit
from shoal.validation.settings import ScoreRequirements
from shoal.validation.validate import validate


def verdicts(requirement, *documents, confident=True):
    found = validate([requirement], documents, confident=confident)
    return [each.verdict for each in found.findings]


@pytest.mark.parametrize(
    ("requirement", "confident", "points"),
    [
        # The WER is 30 % [29, 31], 10 points [9, 11] and 50 % [49, 51] above the baseline's.
        ("WER<=32%", "holds", "holds"),
        ("WER<=0.305", "cannot tell", "holds"),
        ("WER<=29.9%", "broken", "broken"),
        ("wer>=20%", "holds", "holds"),
        ("WER>=29.5%", "cannot tell", "holds"),
        ("WER>=31%", "broken", "broken"),
        ("WER increase<=52%", "holds", "holds"),
        ("WER increase<=50.5%", "cannot tell", "holds"),
        ("WER increase<=5%", "broken", "broken"),
        ("WER increase<=0.12", "holds", "holds"),
        ("WER increase<=0.105", "cannot tell", "holds"),
        ("WER drop<=0%", "holds", "holds"),
    ],
)
def test_the_bound_or_the_point_decides(requirement, confident, points):
    document = scores(info())
    assert verdicts(requirement, document) == [confident]
    assert verdicts(requirement, document, confident=False) == [points]


def test_a_score_that_falls_is_counted_up():
    """Accuracy fell by 4 points [3, 5] from 80 %, 5 % [4, 6] of it; BLEU by 2 [1.99, 2.01] from 20."""
    measures = {
        "accuracy": measure(0.76, delta(-0.04, -0.05)),
        "BLEU": measure(18.0, delta(-2.0, -0.1), fraction=False),
    }
    document = scores(info(), [system("full"), system("p", measures=measures, plan=plan([1]))], task="sqa")
    for requirement, verdict in {
        "accuracy drop<=6.5%": "holds",
        "accuracy drop<=5.5%": "cannot tell",
        "accuracy drop<=4.5%": "broken",
        "accuracy drop<=0.045": "cannot tell",
        "accuracy>=70%": "holds",
        "accuracy>=0.77": "broken",
        "BLEU>=17": "holds",
        "BLEU drop<=1.5": "broken",
        "BLEU drop<=2.1": "holds",
        "BLEU drop<=9%": "broken",
        "BLEU drop<=12%": "holds",
    }.items():
        assert verdicts(requirement, document) == [verdict], requirement
    for requirement in ScoreRequirements(max_bleu_drop="2.1", min_accuracy="70%").listed():
        assert verdicts(requirement, document) == ["holds"]


numbers = st.floats(-2, 2, allow_nan=False)


@given(value=numbers, low=st.floats(0, 1), high=st.floats(0, 1), limit=st.floats(0, 2), at_most=st.booleans())
def test_confidence_never_holds_what_the_point_breaks(value, low, high, limit, at_most):
    found = Estimate(value=value, low=value - low, high=value + high)
    requirement = forms.parse(f"WER{'<=' if at_most else '>='}{limit!r}")
    judged = [
        requirement.finding("", found, "", limit=limit, at_most=at_most, confident=sure).verdict
        for sure in (False, True)
    ]
    inside = value <= limit if at_most else value >= limit
    whole = value + high <= limit if at_most else value - low >= limit
    assert judged[0] == ("holds" if inside else "broken")
    assert judged[1] == ("broken" if not inside else "holds" if whole else "cannot tell")


def test_what_was_not_measured_is_said_to_be_so():
    alone = scores(info(), [system("full")])
    reasons = {}
    for requirement in ("UAR>=0%", "WER increase<=900%", forms.max_latency_ratio(9), forms.max_size("9GB")):
        found = validate([requirement], [alone]).findings
        assert [each.verdict for each in found] == ["not measured"]
        reasons[found[0].requirement] = found[0].reason
    assert reasons["UAR >= 0%"] == "no result"
    assert reasons["WER increase <= 900%"] == "no result: no baseline was scored beside it"
    assert reasons["latency ratio <= 9"] == "no result: no bench"
    timed_alone = validate([forms.min_speedup(0.1)], [bench(info(), None)])
    assert timed_alone.findings[0].reason == "no result: the unpruned model was not timed beside it"
    assert not timed_alone.holds
    with pytest.raises(UsageError, match="nothing is required"):
        validate([], [alone])


@pytest.mark.parametrize("requirement", ["WER<=5", "WER increase<=5", "wer>=1"])
def test_a_share_of_one_or_more_without_a_per_cent_sign_is_refused(requirement):
    number = requirement[-1]
    with pytest.raises(UsageError, match=f"--require: .* is a share; write {number}% or 0.0{number}, or {number}00%"):
        validate([requirement], [scores(info())])
    assert ScoreRequirements(max_wer="5%", min_uar="60%").listed()[1].text == "UAR >= 60.0%"


def test_without_an_interval_confidence_cannot_tell():
    systems = [system("full"), system("p", plan=plan([1]))]
    systems[1].measures["WER"].value = Estimate(value=0.1)
    assert verdicts("WER<=20%", scores(info(), systems)) == ["cannot tell"]
    assert verdicts("WER<=20%", scores(info(), systems), confident=False) == ["holds"]


def test_a_baseline_without_errors_allows_none():
    for change, verdict in ((delta(0.1, None), "broken"), (delta(-0.1, None), "holds")):
        document = scores(info(), [system("full", 0.01), system("p", 0.1, change, plan=plan([1]))])
        assert verdicts(forms.max_wer_increase(9.0), document) == [verdict]


def test_limits_of_recognition_leave_other_tasks_alone():
    fine = scores(info(), [system("full", 0.1)])
    speech = scores(info(), [system("full", 0.9)], task="tts")
    assert verdicts(forms.max_wer(0.5), fine, speech) == ["holds"]
    assert verdicts("WER<=50%", fine, speech) == ["holds", "broken"]
    assert verdicts(forms.require_task("tts"), fine) == ["not measured"]
    assert verdicts(forms.require_task("tts"), fine, speech) == ["holds"]
    made_from_it = scores(info(), [system("full")], task="mine", task_settings={"kind": "tts"})
    assert verdicts(forms.require_task("tts"), made_from_it) == ["holds"]


def test_every_system_that_is_compared_is_judged():
    plans = [system(str(place), rate, plan=plan([place])) for place, rate in enumerate((0.2, 0.6), start=1)]
    document = scores(info(), [system("full", 0.9), *plans])
    assert verdicts("WER<=50%", document) == ["holds", "broken"]


def test_the_group_that_is_worst_off_decides():
    """Of each field; groups too small to be judged have no p after Holm's correction."""
    small = delta(0.9, 9.0).model_copy(update={"p_holm": None, "p_value": None})
    groups = {
        "speaker": {
            "a": group(0.2, delta(0.0, 0.02)),
            "b": group(0.2, delta(0.02, 0.1)),
            "c": group(0.9, small, 2),
        },
        "sex": {"f": group(0.2, delta(-0.02, -0.1))},
        "age": {"old": group(0.2)},
    }
    document = scores(info(), [system("full"), system("p", groups=groups, plan=plan([1]))])
    found = validate([forms.max_group_increase(0.05)], [document])
    assert [each.verdict for each in found.findings] == ["broken", "holds"]
    assert "speaker b (40 clips), WER" in found.findings[0].where
    assert found.findings[0].shown == "+10.0 % [+9.0, +11.0]"
    found = validate([forms.max_group_increase(0.105)], [document], confident=False)
    assert found.holds
    score = measure(0.5, delta(-0.1, -0.2))
    fields = {"emotion": {"joy": group(0.1).model_copy(update={"measures": {"UAR": score}})}}
    felt = system("p", measures={"UAR": measure(0.5)}, groups=fields, plan=plan([1]))
    found = validate(
        [forms.max_group_increase(0.1)],
        [scores(info(), [system("full", measures={"UAR": measure(0.6)}), felt], task="ser")],
    )
    assert found.findings[0].shown == "+20.0 % [+19.0, +21.0]"
    assert not found.holds


def test_speed_and_size():
    """It takes 0.8 [0.79, 0.81] of the time, is 1.25 [1.235, 1.266] times as fast, and has 2.5 MB."""
    document = bench(info(), around(0.8))
    for requirement, verdict in (
        (forms.max_latency_ratio(0.82), "holds"),
        (forms.max_latency_ratio(0.805), "cannot tell"),
        (forms.max_latency_ratio(0.7), "broken"),
        (forms.min_speedup(1.23), "holds"),
        (forms.min_speedup(1.24), "cannot tell"),
        (forms.min_speedup(1.26), "broken"),
        (forms.max_size("2.5MB"), "holds"),
        (forms.max_size("2499 kB"), "broken"),
        (forms.max_size("2500000"), "holds"),
    ):
        assert verdicts(requirement, document) == [verdict], requirement.text


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (forms.parse, "WER"),
        (forms.parse, "WER<10%"),
        (forms.parse, "WER<=ten"),
        (forms.parse, "WER<=-1"),
        (forms.parse, "WER<=nan"),
        (forms.parse, "<=1"),
        (forms.max_size, "big"),
        (forms.max_size, "1.2.3MB"),
        (forms.max_size, "3TB"),
        (forms.require_task, "singing"),
    ],
)
def test_what_is_no_requirement_is_refused(make, text):
    with pytest.raises(UsageError):
        make(text)


def test_junit_has_a_case_for_each_finding():
    strange = scores(info(ref="a<b"), [system("full"), system("p\x01", plan=plan([1]))])
    found = validate(["WER<=90%", "WER<=1%", "UAR>=1%"], [strange])
    suite = ElementTree.fromstring(junit(found)).find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "2", "0")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["WER <= 90%", "WER <= 1%", "UAR >= 1%"]
    failures = [case.find("failure") for case in cases]
    assert failures[0] is None
    assert [each.get("message") for each in failures[1:]] == [
        "broken: 20.0 % [19.0, 21.0]: it is above the limit",
        "not measured: no result",
    ]


def test_it_is_part_of_the_public_api():
    assert shoal.validate(["WER<=50%"], [scores(info())]).holds
    assert shoal.validate(documents=[scores(info())], max_wer="50%", min_accuracy=None).holds
    assert not shoal.validate(documents=[scores(info())], max_wer=0.01, confident=False).holds
    with pytest.raises(UsageError, match="nothing is required"):
        shoal.validate(documents=[scores(info())])
