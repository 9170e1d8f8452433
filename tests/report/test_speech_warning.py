"""A report on a model that answers in speech warns at the top until scores of that are among its files."""

from __future__ import annotations

import pytest

from card_documents import around, bench, info, plan, scores, system
from shoal.report.bundle import collect
from shoal.report.limits import untested
from shoal.report.page import build_page

SPEAKS = info(family="csm", class_name="CsmForConditionalGeneration", ref="org/talker", depth=6)
WARNING = "org/talker answers in speech, and nothing here was tested"
NOTE = "Generating speech was not tested"


def documents(model):
    pruned = system("contiguous-1", 0.3, plan=plan([1]))
    heard = scores(model, [system("full"), pruned])
    return [heard, bench(model, around(0.8))], scores(model, [system("full"), pruned], task="tts")


@pytest.mark.parametrize(("model", "warned"), [(SPEAKS, True), (info(), False)])
def test_it_warns_of_models_that_speak_only(model, warned):
    given, _ = documents(model)
    top = build_page(collect(given)).partition('<section id="summary"')[2].partition("</section>")[0]
    assert (WARNING in top) == warned
    assert (NOTE in top) != warned


def test_a_result_ends_the_warning():
    given, spoke = documents(SPEAKS)
    page = build_page(collect([*given, spoke]))
    assert WARNING not in page
    assert not any(NOTE in note for note in untested(collect([*given, spoke])))


def test_a_bench_alone_warns_too():
    assert WARNING in build_page(collect(documents(SPEAKS)[0][1:]))
