"""The audit from manifest to files, on a tiny random SpeechLLM and real short clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from speech_llm_parts import tiny

import shoal
from shoal import tasks
from shoal.decoder.prepare import prepare
from shoal.demo import clips_manifest
from shoal.errors import MeasureError, UsageError
from shoal.measurement.sums import load_sums
from shoal.models import families
from shoal.models.loading import LoadedModel
from shoal.schema import SCOPES, Audit


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    speech_llm, processor = tiny("whisper", "llama", "mlp")
    return LoadedModel(
        ref="tiny",
        path=Path(),
        model=speech_llm.requires_grad_(False),
        tokenizer=processor.tokenizer,
        processor=processor,
        family=families.find(speech_llm),
        kind="speech_llm",
    )


@pytest.fixture(scope="module")
def data() -> shoal.Dataset:
    return shoal.read_manifests([clips_manifest()], limit=6)


@pytest.fixture(scope="module")
def audited(
    model: LoadedModel, data: shoal.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[shoal.Audit, Path]:
    out = tmp_path_factory.mktemp("audit")
    return shoal.audit(model, data, out=out, batch_size=4, replicates=50), out


def test_both_inputs_in_all_scopes_with_files(audited: tuple[Audit, Path]) -> None:
    audit, out = audited
    assert sorted(path.name for path in out.iterdir()) == ["audit.json", "audit.npz"]
    assert Audit.load(out / "audit.json") == audit
    assert set(audit.inputs) == {"speech", "text"}
    for measured in audit.inputs.values():
        assert set(measured.scopes) == set(SCOPES)
        for scope in measured.scopes.values():
            assert [len(row) for row in scope.metrics["angular"].values] == [4, 3, 2, 1]
            assert scope.utterances == 6


def test_speech_and_text_share_prompt_and_response_positions(audited: tuple[Audit, Path]) -> None:
    speech, text = (audited[0].inputs[name].scopes for name in ("speech", "text"))
    assert speech["prompt"].positions == text["prompt"].positions
    assert speech["response"].positions == text["response"].positions == text["audio"].positions
    assert speech["last"].positions == text["last"].positions == 6
    for scopes in (speech, text):
        parts = sum(scopes[name].positions for name in ("audio", "prompt", "response"))
        assert scopes["all"].positions == parts


def test_batch_size_does_not_matter(model: LoadedModel, data: shoal.Dataset, audited: tuple[Audit, Path]) -> None:
    alone = shoal.audit(model, data, batch_size=1, replicates=50)
    for name, measured in audited[0].inputs.items():
        for scope, found in measured.scopes.items():
            one = alone.inputs[name].scopes[scope]
            for a, b in zip(found.metrics["angular"].values, one.metrics["angular"].values, strict=True):
                assert a == pytest.approx(b, abs=1e-6)


def test_means_of_the_files_are_the_numbers_of_the_audit(audited: tuple[Audit, Path]) -> None:
    audit, out = audited
    sums = load_sums(out / "audit.npz").inputs["speech"]
    ratio = sums.scope("response", "angular")[0].sum(0) / sums.scope("response", "angular")[1].sum()
    flat = [value for row in audit.inputs["speech"].scopes["response"].metrics["angular"].values for value in row]
    assert flat == pytest.approx(ratio.tolist())


def test_measuring_the_same_again_runs_no_forward_pass(
    model: LoadedModel, data: shoal.Dataset, audited: tuple[Audit, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    audit, out = audited
    monkeypatch.setattr(torch.nn.Module, "__call__", lambda *_, **__: pytest.fail("ran the model"))
    again = shoal.audit(model, data, out=out, replicates=30, cluster="speaker")
    assert again.replicates == 30
    assert (
        again.inputs["speech"].scopes["all"].metrics["angular"].values
        == audit.inputs["speech"].scopes["all"].metrics["angular"].values
    )
    assert again.seconds == pytest.approx(audit.seconds)


def test_other_clips_are_refused_or_measured_anew(
    model: LoadedModel, audited: tuple[Audit, Path], tmp_path: Path
) -> None:
    (tmp_path / "audit.npz").write_bytes((audited[1] / "audit.npz").read_bytes())
    few = shoal.read_manifests([clips_manifest()], limit=3)
    with pytest.raises(UsageError, match=r"an audit with clips .*not \"3, fingerprint .*--force"):
        shoal.audit(model, few, out=tmp_path, replicates=20)
    assert (tmp_path / "audit.npz").read_bytes() == (audited[1] / "audit.npz").read_bytes()
    fewer = shoal.audit(model, few, out=tmp_path, replicates=20, force=True)
    assert fewer.inputs["speech"].scopes["all"].utterances == 3


def test_one_input_keeps_the_other_and_a_second_is_added(
    model: LoadedModel, data: shoal.Dataset, audited: tuple[Audit, Path], tmp_path: Path
) -> None:
    first = shoal.audit(model, data, out=tmp_path, replicates=20, inputs=["text"])
    assert list(first.inputs) == ["text"]
    both = shoal.audit(model, data, out=tmp_path, replicates=20, inputs=["speech"])
    assert list(both.inputs) == ["speech", "text"]
    for kind in ("speech", "text"):
        added, at_once = (
            [value for row in document.inputs[kind].scopes["all"].metrics["angular"].values for value in row]
            for document in (both, audited[0])
        )
        assert added == pytest.approx(at_once)


def test_comparing_one_file_sets_speech_against_text(audited: tuple[Audit, Path]) -> None:
    path = audited[1] / "audit.json"
    found = shoal.compare(path, path)
    assert (found.a.label, found.b.label, found.paired) == ("speech", "text", True)
    assert set(found.scopes) == set(SCOPES)
    same = shoal.compare(path, path, input_b="speech")
    assert same.scopes["all"].metrics["angular"].spearman.value == pytest.approx(1)


def test_a_model_that_gives_nan_is_an_error_and_leaves_nothing(data: shoal.Dataset, tmp_path: Path) -> None:
    speech_llm, processor = tiny("whisper", "llama", "mlp")
    with torch.no_grad():
        speech_llm.decoder.model.layers[2].mlp.down_proj.weight[0, 0] = np.nan
    broken = LoadedModel(
        "nan", Path(), speech_llm, processor.tokenizer, processor, families.find(speech_llm), "speech_llm"
    )
    with pytest.raises(MeasureError, match="boundary 3 is not finite"):
        shoal.audit(broken, data, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_text_llm_refuses_the_speech_input(model: LoadedModel, data: shoal.Dataset) -> None:
    deaf = LoadedModel(
        "deaf",
        Path(),
        model.model.decoder,
        model.tokenizer,
        None,
        families.find(model.model.decoder),
        "causal_lm",
    )
    with pytest.raises(UsageError, match="cannot take the input 'speech'"):
        shoal.audit(deaf, data, inputs=["speech"])
    assert set(shoal.audit(deaf, data, replicates=10).inputs) == {"text"}


def test_prepared_text_differs_from_speech_only_in_the_slot(model: LoadedModel, data: shoal.Dataset) -> None:
    clips, task = list(data.clips(data.rows[:1])), tasks.get("asr")
    speech, text = (prepare(model, clips, task, input=name, response=True) for name in ("speech", "text"))
    keep_speech, keep_text = speech.kinds[0] != 1, text.kinds[0] != 1
    assert torch.equal(speech.embeds[0][keep_speech], text.embeds[0][keep_text])
    written = model.tokenizer(model.response_text(clips[0].row.text), add_special_tokens=False)["input_ids"]
    assert text.token_ids[0][text.kinds[0] == 3].tolist() == written
    assert text.token_ids[0][text.kinds[0] == 1].tolist() == written


def test_the_room_keeps_its_functions_after_their_first_use(audited: tuple[Audit, Path]) -> None:
    """A submodule of the same name would take a function's place when it is first imported."""
    assert callable(shoal.audit)
    assert callable(shoal.compare)
    assert callable(shoal.task_matrix)
