"""What systems are called, and which layers they go without."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import report_documents as documents

from card_documents import info, plan, scores, system
from shoal import tasks
from shoal.cli.search import summary
from shoal.evaluation.export.lm_eval import results_of
from shoal.evaluation.systems import checkpoint_name
from shoal.schema.record import absent_layers
from shoal.score_tables import removed_words


def removed_one_by_one(depth, missing, removed):
    """The slow reference: a list of layers, from which first some go, and then some of those left."""
    left = [layer for layer in range(depth) if layer not in missing]
    return [layer for layer in range(depth) if layer in missing or left.index(layer) in removed]


@pytest.mark.parametrize(
    ("missing", "removed"), [([], []), ([3, 4], []), ([], [0, 5]), ([0, 1], [0]), ([3, 4], [2, 3, 5]), ([7, 9], [7])]
)
def test_absent_layers_are_numbered_as_in_the_original_model(missing, removed):
    assert absent_layers(missing, removed) == removed_one_by_one(10, missing, removed)


def test_removed_words_are_in_that_numbering_too():
    assert removed_words(system("a", missing=[1, 2], plan=plan([1]))) == "layers 1–3"
    part = plan([1], part="attention")
    assert removed_words(system("a", missing=[1, 2], plan=part)) == "layers 1–2, and the attention of layer 3"


@pytest.mark.parametrize("taken", ["full", "baseline", "contiguous-2"])
def test_a_checkpoint_of_a_taken_name_is_called_a_checkpoint(tmp_path, taken):
    folder = tmp_path / taken
    folder.mkdir()
    loaded = SimpleNamespace(ref=str(folder), path=folder)
    assert checkpoint_name(loaded) == "full"
    plan([1, 2]).save(folder / "shoal-plan.json")
    assert checkpoint_name(loaded, ["contiguous-2"]) == f"checkpoint {taken}"


def test_an_export_names_the_layers_that_the_checkpoint_lacks():
    document = scores(info(), [system("shallow", missing=[1, 2]), system("manual-1", missing=[1, 2], plan=plan([1]))])
    results = [results_of(document, one, tasks.get("asr"), "", 1)["config"]["model_args"] for one in document.systems]
    assert [one["absent_layers"] for one in results] == ["1,2", "1,2,3"]
    assert [one["removed_layers"] for one in results] == ["", "1"]


def test_a_search_on_a_pruned_checkpoint_names_it_and_what_it_lacks():
    search = documents.search(name="shallow", model=documents.model(removed_layers=[3, 4]))
    printed = "\n".join(map(str, summary(search)))
    assert "shallow itself lacks layers 3–4" in printed
    assert any(line.split()[:2] == ["shallow", "2"] for line in printed.splitlines())
    assert "full" not in printed
