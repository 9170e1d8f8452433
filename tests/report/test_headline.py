"""The headline is of all documents, and contradicts no section below."""

from __future__ import annotations

import pytest
import report_documents as documents

from shoal.cli.audit import summary
from shoal.report import headline
from shoal.report.bundle import collect
from shoal.schema import ControlScore, Estimate, Scores, Search
from shoal.selection import select
from shoal.terms import DEFAULT_SCOPE


def words(*given) -> str:
    built = headline.build(collect(given))
    return " ".join([f"{built.verdict}.", built.explanation, *built.others]).replace("\u202f", " ")


def searched(**changes) -> Search:
    """A search that confirmed its plan of three layers on enough clips."""
    return documents.search(confirmed=True, confirmation_clips=200, **changes)


def scores_of(names, **changes) -> Scores:
    """Scores of the unpruned model and of some of the plans."""
    scores = documents.scores(**{"data": documents.data(clips=400)} | changes)
    scores.systems = [system for system in scores.systems if system.name in ("unpruned", *names)]
    return scores


def measured(layers, relative: float) -> Scores:
    """Scores of one plan that removes `layers`, at a relative loss."""
    scores = scores_of(["contiguous-4"])
    system = scores.systems[1]
    system.removed = system.plan.layers = layers
    system.measures["WER"].delta.relative = Estimate(value=relative, low=relative - 0.05, high=relative + 0.05)
    return scores


DEAR = scores_of(["random-4", "random-8"])


def test_a_search_that_holds_is_not_denied_by_scores_of_other_plans():
    text = words(("scores.json", DEAR), ("search.json", searched()))
    assert text.startswith("3 of 30 decoder layers can go at +7.8 % [")
    assert "scores.json: none of 2 pruned models stays within +25 % WER." in text
    assert "No plan" not in text


def test_every_scores_file_counts_not_the_first_alone():
    text = words(("first.json", DEAR), ("second.json", scores_of(["contiguous-2"])))
    assert text.startswith("2 of 30 decoder layers can go at +9.0 % [")
    assert "(second.json)" in text
    assert "first.json: none of 2 pruned models" in text


def test_a_plan_must_be_affordable_in_every_document_that_measured_it():
    fine, dear = measured([22, 23, 24], 0.05), measured([22, 23, 24], 0.9)
    text = words(("search.json", searched()), ("scores.json", fine))
    assert text.startswith("3 of 30 decoder layers can go at +7.8 % [")
    assert "and +5.0 % [" in text
    # Two layers held as well, and nothing speaks against them.
    assert words(("search.json", searched()), ("scores.json", dear)).startswith("2 of 30 decoder layers can go")


def test_documents_that_disagree_are_said_to():
    fine, dear = measured([22, 23, 24], 0.05), measured([22, 23, 24], 0.9)
    text = words(("a.json", fine), ("b.json", dear))
    assert text.startswith("The documents disagree about contiguous-4. Without layers 22–24: +5.0 % [")
    assert "(a.json); +90" in text


def test_the_budget_of_a_search_is_the_limit_for_scores_too():
    search = searched(confirmations=[], chosen=None)
    search.budget.max_increase = 0.02
    text = words(("scores.json", scores_of(["contiguous-2"])), ("search.json", search))
    assert text.startswith("No pruned model tested stays within +2 % relative WER")
    assert "search.json: No plan was found that keeps to at most 2 % relative rise of WER" in text


def test_a_test_on_few_clips_is_not_certain():
    text = words(("search.json", documents.search()))
    assert text.startswith("3 of 30 decoder layers may go, at +7.8 % [")
    assert "on 20 unseen clips (search.json)" in text
    assert "It was not confirmed: it holds on 20 unseen clips (p = 0.210;" in text
    text = words(("scores.json", scores_of(["contiguous-2"], data=documents.data(clips=6))))
    assert text.startswith("2 of 30 decoder layers may go, at +9.0 % [")


@pytest.mark.parametrize("given", [DEAR, searched()])
def test_what_healing_gains_is_in_the_headline_of_other_documents_too(given):
    assert "healing.json: With 4 of 30 layers gone" in words(("x.json", given), ("healing.json", documents.healing()))


def test_audit_select_and_report_name_the_same_block():
    audit = documents.measured_audit()
    plan = select(audit, 4)
    assert plan.source.scope == DEFAULT_SCOPE
    start, stop = plan.block
    assert any(f"n=4  layers [{start}, {stop})" in line for line in map(str, summary(audit)))
    by_ablation = select(audit, 1, metric="ablation")
    assert by_ablation.source.scope == "response"
    # An importance has a scope of its own, which says nothing of the one that distances are looked at in.
    for given in ([audit], [audit, plan], [audit, by_ablation]):
        (tile,) = [tile for tile in headline.build(collect(given)).tiles if "most redundant" in tile.label]
        assert tile.value == f"{start}–{stop - 1}"


def test_the_terminal_says_what_is_lost_in_which_unit_and_has_one_verdict_on_trust():
    lines = [str(line) for line in summary(documents.measured_audit())]
    assert any(" points of WER)" in line for line in lines if "safest to remove: " in line)
    assert any("(loss " in line and "nats a token)" in line for line in lines if "safest to remove: " in line)
    verdicts = [line for line in lines if "choose by " in line]
    assert len(verdicts) == 2
    assert all(" its mean regret against the best measured block is " in line for line in verdicts)
    assert sum("regret, " in line for line in lines) == 2


def test_a_requirement_that_is_broken_is_in_the_headline():
    scores = scores_of(["contiguous-2"])
    text = words(("scores.json", scores), ("validation.json", documents.validation("broken")))
    assert text.startswith("2 of 30 decoder layers can go at +9.0 % [")
    assert "relative WER, but not every requirement holds." in text
    assert "these do not hold: WER increase <= 5% (broken)" in text
    text = words(("scores.json", scores), ("validation.json", documents.validation()))
    assert "relative WER. " in text
    assert "validation.json: All of 2 requirements hold" in text


HEALED = [12, 13, 14]
"""Layers that the checkpoint called healed lacks."""


def against(base: list[int], system: list[int], removed: list[int] = ()) -> Scores:
    """Scores of a checkpoint of what is left of 30 layers, beside another one or under a plan."""
    scores = measured([22, 23, 24], 0.05)
    first, second = scores.systems
    scores.model.depth = 30 - len(system)
    first.missing, second.missing, scores.model.removed_layers = base, system, system
    second.name, second.plan, second.removed = "healed", None, removed
    if removed:
        first.name = "healed"
        second.plan = documents.plan("manual", removed).model_copy(update={"depth": 27})
    else:
        first.name, first.model_ref = "baseline", "whole"
    return scores


def test_a_checkpoint_compared_with_the_model_it_was_made_from_is_a_pruned_model():
    scores = against([], HEALED)
    bundle = collect([("scores.json", scores)])
    assert [system.name for system in bundle.pruned_systems] == ["healed"]
    assert words(("scores.json", scores)).startswith("3 of 30 decoder layers can go at +5.0 % [")
    assert "healed (layers 12–14) removes the most layers" in words(("scores.json", scores))
    built = headline.build(bundle)
    assert (built.removed, built.depth) == (HEALED, 30)


def test_a_plan_over_a_pruned_checkpoint_is_compared_with_that_checkpoint():
    """Of the 27 layers left, the twelfth to the fourteenth are 15 to 17 of the model before any pruning."""
    scores = against(HEALED, HEALED, [12, 13])
    text = words(("scores.json", scores))
    assert text.startswith("2 of 27 decoder layers can go at +5.0 % [")
    assert "(layers 12–16)" in text
    assert "within +25 % of healed" in text
    built = headline.build(collect([scores]))
    assert (built.removed, built.depth) == ([12, 13, 14, 15, 16], 30)
    assert any(tile.label == "WER of healed" for tile in built.tiles)


def test_the_shallowest_plan_that_holds_healed_is_the_headline():
    """Four layers without healing are dear; the same healed hold, and the wrong audio is heard."""
    scores = measured([4, 5, 6, 7], 0.9)
    healed = scores.systems[1].model_copy(deep=True)
    healed.name, healed.plan, healed.removed, healed.missing = "contiguous-4+linear", None, [], [4, 5, 6, 7]
    healed.model_ref, healed.fingerprint, healed.healed = "healed/contiguous-4+linear", "other", "linear"
    healed.measures["WER"].delta.relative = Estimate(value=0.1, low=0.05, high=0.15)
    wrong = healed.measures["WER"].model_copy(deep=True)
    wrong.delta.absolute, wrong.delta.p_holm = Estimate(value=0.6, low=0.5, high=0.7), 0.001
    healed.controls = {"shuffled": ControlScore(clips=400, measures={"WER": wrong})}
    scores.systems.append(healed)
    text = words(("scores.json", scores))
    assert text.startswith("4 of 30 decoder layers can go after healing (linear) at +10.0 % [")
    assert "contiguous-4+linear (layers 4–7) removes the most layers" in text
    assert "Without healing, the same layers cost +90.0 % [" in text
    assert "No plan stays within the limit without healing." in text
    assert "It listens: with the wrong audio WER rises from " in text
