"""A score that nobody has heard of is registered, and stands in the table, on the card and in the report."""

from __future__ import annotations

import numpy as np
import pytest

from shoal import tasks
from shoal.cards.facts import CardFacts
from shoal.cards.measured import Measured
from shoal.cards.results import scores as card_section
from shoal.cli.evaluation_tables import summary
from shoal.evaluation import rescore
from shoal.evaluation.scores import registry
from shoal.evaluation.scores.answers import Answers
from shoal.evaluation.scores.base import Score, ratio
from shoal.report import render
from shoal.schema import Scores
from shoal.tasks import settings
from shoal.validation.validate import validate
from stored_outputs import evaluation, output


class Politeness(Score):
    """Share of answers that say please."""

    name = "politeness"
    higher_is_better = True

    def statistics(self, answers: Answers):
        """(U, 2): polite, 1."""
        return np.array([["please" in said.lower(), 1.0] for said in answers.hypotheses], dtype=np.float64)

    def value(self, totals):
        """Polite answers over answers."""
        return ratio(totals[..., 0], totals[..., 1])

    @property
    def signature(self) -> str:
        """Whose count it is."""
        return "toy 1.0"


@pytest.fixture
def scored(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.BY_NAME, "politeness", Politeness())
    monkeypatch.setitem(settings.NEEDS, "politeness", "decode")
    path = tmp_path / "butler.yaml"
    path.write_text("kind: sqa\nanswered_by: [decode]\nscored_by: [politeness, exact match]\n")
    task = tasks.get(str(path))
    full = [output(n, "Yes", "yes please", speaker="ab"[n % 2], answer="Yes") for n in range(80)]
    cut = [
        output(n, "Yes", "yes" if n % 4 == 1 else "yes please", speaker="ab"[n % 2], answer="Yes") for n in range(80)
    ]
    out = evaluation(tmp_path / "out", {"full": full, "cut": cut}, task="butler")
    before = Scores.load(out / "scores.json")
    before.task_settings = tasks.settings_to_keep(task)
    before.save(out / "scores.json")
    rescore(out, replicates=100, cluster="utterance")
    return Scores.load(out / "scores.json"), tmp_path


def test_it_stands_everywhere(scored):
    scores, place = scored
    assert scores.headline == "politeness"
    assert scores.systems[1].measures["politeness"].value.value == 0.75
    assert scores.systems[1].most_worsened == {"speaker": "b"}
    table = "\n".join(map(str, summary(scores)))
    assert "politeness" in table
    assert "worst speaker of cut: b, politeness 50.0" in table
    text = card_section(CardFacts(scores.model, measured=[Measured(scores, scores.systems[1])]))
    assert "| politeness | 75" in text
    page = render([scores], place / "report.html").read_text(encoding="utf-8")
    assert "politeness against layers removed" in page
    assert "politeness; higher is better" in page
    assert "toy 1.0" in page
    found = validate(["politeness drop<=10%", "politeness>=50%"], [scores]).findings
    assert [each.verdict for each in found] == ["broken", "holds"]
