"""The card of a folder: the folder alone gives what was written with the checkpoint; foreign scores are refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

import shoal
from card_documents import (
    around,
    bench,
    data,
    delta,
    group,
    measure,
    plan,
    provenance,
    scores,
    system,
)
from shoal.cards.facts import source_record
from shoal.cli.prune import summary
from shoal.data_names import data_name
from shoal.errors import FileFormatError, UsageError
from shoal.healing.checkpoints import write_adapters, write_merged
from shoal.models.lora import add_lora, lora_layers
from shoal.pruning.sharded import write_sharded
from shoal.schema import HealRecord, Scores
from synthetic_audits import audit_of, random_sums
from tiny_models import VOCABULARY, tiny

DEPTH = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`whole`, and `pruned` and `healed` made of it."""
    folder = tmp_path_factory.mktemp("models")
    tiny("llama", DEPTH).save_pretrained(folder / "whole")
    words = {f"w{index}": index for index in range(VOCABULARY)}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0"))).save_pretrained(
        folder / "whole"
    )
    shoal.prune(shoal.load(str(folder / "whole")), plan([1]), folder / "pruned", verify=False)
    loaded = healed(folder / "pruned")
    write_merged(loaded, folder / "healed", record=record(loaded), verify=False)
    return folder


@pytest.fixture
def pruned(place, tmp_path):
    return shutil.copytree(place / "pruned", tmp_path / "pruned")


def healed(folder):
    loaded = shoal.load(str(folder))
    names = [name for name, _ in loaded.model.named_modules() if name.endswith("1.mlp.down_proj")]
    add_lora(loaded.model, names, rank=2, alpha=4, dropout=0.0)
    for _, layer in lora_layers(loaded.model):
        torch.nn.init.ones_(layer.lora_B["default"].weight)
    return loaded


def record(loaded) -> HealRecord:
    return HealRecord(
        provenance=provenance(),
        model=loaded.info(),
        target="decoder",
        task="asr",
        data=data(),
        trained_parameters=9,
        steps=5,
        loss_before=3.25,
        loss_after=1.5,
    )


def described(folder):
    return shoal.load(str(folder)).info()


def text_of(folder) -> str:
    return (folder / "README.md").read_text()


def not_validated(folder) -> str:
    return text_of(folder).partition("## Not validated\n\n")[2].partition("\n\n## ")[0]


def front_matter(folder):
    return yaml.safe_load(text_of(folder).split("---\n")[1])


def test_the_folder_alone_gives_the_card_that_was_written_with_the_checkpoint(place, tmp_path):
    loaded = healed(place / "pruned")
    write_adapters(loaded, tmp_path / "adapter", base=str(place / "pruned"), record=record(loaded), verify=False)
    write_sharded(place / "pruned", plan([2], 5), tmp_path / "twice", ref=str(place / "pruned"))
    folders = [place / "pruned", place / "healed", tmp_path / "adapter", tmp_path / "twice"]
    for folder in folders:
        before = text_of(folder)
        assert shoal.card(folder) == folder / "README.md"
        assert text_of(folder) == before
    assert [len(front_matter(each)["tags"]) for each in folders] == [2, 3, 3, 2]


def test_what_is_gone_is_counted_from_the_model_before_any_pruning(place, tmp_path):
    whole, once = described(place / "whole"), described(place / "pruned")
    twice = write_sharded(place / "pruned", plan([2], 5), tmp_path / "twice", ref=str(place / "pruned"))
    left = once.total_parameters - once.decoder_layer_parameters[2]
    assert f"Parameters: {left:,} of {whole.total_parameters:,}" in text_of(twice)
    assert "# whole without 2 decoder layers" in text_of(twice)
    assert str(place) not in text_of(twice).partition("## The plan")[0]
    assert "model of 6: 1, 3\n" in text_of(twice)
    assert source_record(twice).unpruned.fingerprint == whole.fingerprint


def test_a_plan_that_a_search_did_not_confirm_is_not_confirmed_in_the_card_and_after_pruning(place, tmp_path):
    unsure = plan([1]).model_copy(update={"note": "not confirmed: it holds on 30 unseen clips"})
    loaded = shoal.load(str(place / "whole"))
    shoal.prune(loaded, unsure, tmp_path / "pruned", verify=False)
    assert unsure.note in (tmp_path / "pruned" / "README.md").read_text(encoding="utf-8")
    assert f"the plan is {unsure.note}" in summary(loaded.info(), unsure, tmp_path / "pruned")


def test_scores_stand_in_the_card_and_in_what_the_hub_reads(pruned):
    own = scores(described(pruned), data=data("hf:org/calls:en:test"))
    shoal.card(pruned, [own])
    text, head = text_of(pruned), front_matter(pruned)
    row = next(line for line in text.splitlines() if line.startswith("| asr |") and "| WER |" in line)
    assert row.split(" | ")[3:] == [
        "400",
        "WER",
        "30.0 % [29.0, 31.0]",
        "20.0 % [19.0, 21.0]",
        "+10.0 points [+9.0, +11.0]",
        "+50.0 % [+49.0, +51.0]",
        "0.020 |",
    ]
    assert head["language"] == ["en"]
    results = ModelCard(text).data.eval_results
    assert [(each.metric_type, each.metric_value) for each in results] == [("wer", 30.0), ("cer", 15.0)]
    assert (results[0].task_type, results[0].dataset_type) == ("automatic-speech-recognition", "org/calls")


def test_corpora_that_are_called_alike_stay_apart_for_the_hub(pruned):
    own = described(pruned)
    manifests = {"a/test.jsonl", "b/a/test.jsonl", "hf:org/calls:en:test", "hf:org/calls:de:test"}
    shoal.card(pruned, [scores(own, data=data(manifest)) for manifest in manifests])
    results = [each for each in ModelCard(text_of(pruned)).data.eval_results if each.metric_type == "wer"]
    assert {each.dataset_name: each.dataset_type for each in results} == {
        name: "org/calls" if name.startswith("hf:") else "a" for name in manifests
    }


def test_every_group_is_listed_and_the_worst_is_named(pruned):
    groups = {"speaker": {"a|b": group(0.2), "c": group(0.5, delta(0.1, 0.25))}}
    whole = system("baseline", 0.2, model_ref="whole")
    own = system(
        "full",
        0.3,
        delta(0.1, 0.5),
        groups=groups,
        worst_group={"speaker": "c"},
        most_worsened={"speaker": "c"},
    )
    shoal.card(pruned, [scores(described(pruned), [whole, own])])
    text = text_of(pruned)
    assert "- Worst speaker of asr: `c`, WER 50.0 % [49.0, 51.0], 40 clips" in text
    assert "- Most worsened speaker of asr: `c`, WER +10.0 points [+9.0, +11.0]" in text
    assert "| speaker | a\\|b | 40 | WER | 20.0 % [19.0, 21.0] |" in text
    assert "by sex, age and accent: such groups" in not_validated(pruned)


def test_what_was_not_validated_shrinks_with_every_result(pruned):
    model = described(pruned)
    left = [set(not_validated(pruned).splitlines())]
    assert any("Accuracy on any task" in line for line in left[0])
    steps = [
        scores(model),
        scores(model, [system("full", measures={"UAR": measure(0.6)})], task="ser"),
        scores(model, [system("full", measures={"perplexity": measure(9.0, fraction=False)})], task="lm"),
        scores(model, task="tts"),
        bench(model, None),
    ]
    gone = [
        "Accuracy on any task",
        "emotion recognition (`ser`)",
        "`lm` was not tested",
        "Generation of speech",
    ]
    gone.append("Speed and memory")
    for step, words in zip(steps, gone, strict=True):
        assert words in not_validated(pruned)
        shoal.card(pruned, [step], attach=True)
        assert words not in not_validated(pruned)
    assert len(list((pruned / "validation").iterdir())) == len(steps)
    for words in ("Other tasks: speech translation (`ast`) and spoken", "any language but en", "Quantised"):
        assert words in not_validated(pruned)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": data(clips=12)}, "Clips beyond the 12 of"),
        ({"data": data(languages=[])}, "in any language that is named"),
        ({"data": data(languages=["de", "en"])}, "Each language by itself"),
        ({"systems": [system("full")]}, "no baseline was scored"),
        ({"systems": [system("b", model_ref="w"), system("full", 0.2, delta(0.001, 0.005))]}, "has 0 in it"),
        ({"systems": [system("full", 0.03)]}, "is a wide interval"),
    ],
)
def test_what_the_scores_leave_open_is_said(pruned, changes, words):
    model = described(pruned)
    shoal.card(pruned, [scores(model)])
    assert words not in not_validated(pruned)
    shoal.card(pruned, [scores(model, **changes)])
    assert words in not_validated(pruned)


def test_scores_of_the_plan_over_the_unpruned_model_are_this_checkpoints(place, pruned):
    whole = described(place / "whole")
    shoal.card(pruned, [scores(whole, [system("full"), system("p", 0.4, delta(0.2, 1.0), plan=plan([1]))])])
    assert "| WER | 40.0 % [39.0, 41.0] |" in text_of(pruned)
    shoal.card(pruned, [bench(whole, around(0.8))])
    assert "0.800 [0.790, 0.810] | 0.750 |" in text_of(pruned)


@pytest.mark.parametrize(
    ("folder", "model", "systems"),
    [
        ("pruned", "whole", [system("full")]),
        ("pruned", "whole", [system("full"), system("p", plan=plan([2]))]),
        ("pruned", "whole", [system("full"), system("p", plan=plan([1], part="attention"))]),
        ("pruned", "healed", [system("full")]),
        ("pruned", "pruned", [system("baseline", model_ref="x")]),
        ("healed", "whole", [system("full"), system("p", plan=plan([1]))]),
        ("healed", "pruned", [system("full")]),
    ],
)
def test_scores_of_another_model_are_refused(place, folder, model, systems):
    before = text_of(place / folder)
    with pytest.raises(UsageError, match="about another model than"):
        shoal.card(place / folder, [scores(described(place / model), systems)])
    assert text_of(place / folder) == before


def test_scores_without_a_fingerprint_are_refused(pruned):
    nobody = described(pruned).model_copy(update={"fingerprint": ""})
    for document in (scores(nobody), bench(nobody, None)):
        with pytest.raises(UsageError, match="about another model"):
            shoal.card(pruned, [document], attach=True)
    assert not (pruned / "validation").exists()


def test_a_changed_weight_makes_attached_scores_foreign(pruned):
    shoal.card(pruned, [scores(described(pruned))], attach=True)
    tensors = load_file(pruned / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, pruned / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"validation/scores-asr-\w+\.json: this is about another model"):
        shoal.card(pruned)


def test_attached_documents_have_no_words_of_clips_and_the_later_replaces_the_earlier(pruned):
    model = described(pruned)
    said = [{"id": "c1", "reference": "my secret", "outputs": {}}]
    shoal.card(pruned, [scores(model, examples=said)], attach=True)
    later = scores(
        model,
        [system("baseline", model_ref="whole"), system("full", 0.9)],
        provenance=provenance("2026-02-01T00:00:00+00:00"),
    )
    shoal.card(pruned, [later], attach=True)
    (path,) = (pruned / "validation").iterdir()
    assert Scores.load(path).systems[1].measures["WER"].value.value == 0.9
    assert "secret" not in path.read_text()
    text = text_of(pruned)
    shoal.card(pruned, [scores(model)])
    assert text_of(pruned) == text
    assert "| WER | 90.0 % [89.0, 91.0] |" in text


def test_what_is_no_document_is_one_line(pruned):
    (pruned / "validation").mkdir()
    (pruned / "validation" / "x.json").write_text("{}")
    with pytest.raises(FileFormatError, match="unknown kind"):
        shoal.card(pruned)
    plan([1]).save(pruned / "validation" / "x.json")
    with pytest.raises(UsageError, match="a plan does not say"):
        shoal.card(pruned)
    with pytest.raises(UsageError, match="no such folder"):
        shoal.card(pruned / "nowhere")


def test_the_card_of_a_foreign_model_is_not_replaced_unless_asked(place, tmp_path):
    folder = shutil.copytree(place / "whole", tmp_path / "whole")
    (folder / "README.md").write_text("mine")
    with pytest.raises(UsageError, match="not written by Shoal"):
        shoal.card(folder)
    out = shoal.card(folder, [scores(described(folder), [system("full")])], out=tmp_path / "card.md")
    assert "no plan in its folder" in out.read_text()
    assert "no baseline was scored" not in out.read_text()
    shoal.card(folder, force=True)
    assert "## Checked" not in text_of(folder)


def test_what_an_earlier_version_checked_is_kept(pruned):
    """Its folder has neither the record of the verification nor that of the unpruned model."""
    (pruned / "shoal-source.json").unlink()
    text = text_of(pruned).replace("Nothing: this checkpoint was written without verification.", "All was well.")
    (pruned / "README.md").write_text(text)
    shoal.card(pruned)
    assert "## Checked\n\nAll was well.\n\n" in text_of(pruned)
    assert "Parameters" not in text_of(pruned)
    assert "0-based, in the numbering of the unpruned model of 6: 1 (the block [1, 2))" in text_of(pruned)


def test_names_from_the_data_cannot_break_the_card(pruned):
    name = 'a|b `c` <script> "d"\n---\nlicense: mit.jsonl'
    shoal.card(pruned, [scores(described(pruned), data=data(name))])
    head = front_matter(pruned)
    assert "license" not in head
    assert head["model-index"][0]["results"][0]["dataset"]["name"] == " ".join(name.split())
    row = next(line for line in text_of(pruned).splitlines() if line.startswith("| asr |"))
    assert row.replace("\\|", "").count("|") == 11
    assert "<script" not in row


def test_a_trained_model_keeps_its_story_when_it_is_pruned(pruned, tmp_path):
    recipe = {
        "encoder": "e",
        "decoder": "d",
        "projector": {},
        "lora": {"rank": 2, "alpha": 4.0},
        "condition": "projector+lora",
        "train": [{"where": {}, "task": "asr"}],
        "about": "Small.",
        "licence": "MIT",
    }
    trained = {
        "kind": "training",
        "schema_version": 1,
        "provenance": provenance().model_dump(),
        "recipe": recipe,
        "data": [data().model_dump()],
        "stages": [],
        "validation": [{"data": "v", "task": "asr", "clips": 3, "loss": 1.5}],
    }
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "speech_llm.json").write_text("{}")
    for folder in (adapters, pruned):
        (folder / "shoal-training.json").write_text(json.dumps(trained))
        shoal.card(folder)
    head = front_matter(adapters)
    assert (head["library_name"], head["base_model"], head["license"]) == ("shoal", ["e", "d"], "mit")
    assert "# A SpeechLLM of e and d\n" in text_of(adapters)
    assert "Word error rate or any other score" in not_validated(adapters)
    again = write_sharded(pruned, plan([0], 5), tmp_path / "again", ref=str(pruned))
    assert "rank 2, alpha 4" in text_of(again)
    assert "| v | asr | 3 | 1.500 |" in text_of(again)


def test_an_audit_of_the_unpruned_model_gives_the_distance_of_what_went(place, pruned):
    made = audit_of({"speech": random_sums(0, depth=DEPTH)})
    audit = made.model_copy(update={"model": described(place / "whole")})
    scope = audit.inputs["speech"].scopes["all"]
    shoal.card(pruned, [audit])
    distance = scope.metrics["angular"].values[0][1]
    row = f"| speech | all | {scope.positions:,} | angular distance / π {distance:.4f} ["
    assert row in text_of(pruned)
    with pytest.raises(UsageError, match="another model"):
        shoal.card(pruned, [made])


def test_a_card_does_not_tell_where_a_machine_keeps_its_clips():
    assert data_name(data("/home/ada/corpora/calls/test.jsonl")) == "calls/test.jsonl"
    assert data_name(data("calls/test.jsonl")) == "calls/test.jsonl"
    assert data_name(data("hf:org/calls:en")) == "hf:org/calls:en"
