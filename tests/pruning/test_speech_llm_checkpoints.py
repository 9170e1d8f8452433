"""A merged SpeechLLM: pruned on disk, with its own code, verified on audio as well as text."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from speech_llm_parts import clips, tiny
from transformers import AutoModelForCausalLM

from families_record import note
from shoal.models.families import find
from shoal.pruning.in_memory import pruned
from shoal.pruning.on_disk import write_checkpoint
from shoal.pruning.probe import probe
from shoal.schema import Plan, Provenance
from shoal.schema.verification import VerificationReport


def loaded(encoder: str, decoder: str) -> SimpleNamespace:
    model, processor = tiny(encoder, decoder)
    return SimpleNamespace(model=model, processor=processor, kind="speech_llm", family=find(model))


@pytest.mark.parametrize(("encoder", "decoder"), [("whisper", "llama"), ("wavlm", "gemma3_text")])
def test_the_merged_folder_is_pruned_and_verified_on_audio(tmp_path, encoder, decoder):
    ours = loaded(encoder, decoder)
    cases = probe(ours)
    assert {"input_ids", "attention_mask", "audio_samples"} <= cases["audio"].keys()
    assert cases["audio"]["attention_mask"][0, 0] == 0
    plan = Plan(provenance=Provenance(shoal="0"), model_ref="tiny", depth=4, layers=[1, 2])
    out = write_checkpoint(ours.model, plan, tmp_path / "out", cases=cases, processor=ours.processor)
    report = VerificationReport.load(out / "shoal-verification.json")
    assert report.passed
    note(
        "SpeechLLM",
        family="speech_llm",
        decoder="any causal LM",
        layers="decoder.*",
        depth_field="text_config.num_hidden_layers",
        audio="slot",
        audit=["speech", "text"],
        prune=["memory", "disk"],
        evaluate="engine",
        checks=[check.name for check in report.checks],
    )
    assert "2 batches" in next(check.detail for check in report.checks if check.name == "logits")


def test_pruning_in_memory_reaches_the_decoder_only():
    model, processor = tiny("whisper", "gemma3_text")
    inputs = processor(text=processor.format_prompt("Transcribe."), audio=clips(1.2))
    with torch.no_grad():
        whole = model(**inputs).logits
        encoder_depth = len(model.encoder.layers)
        with pruned(model, [1, 2]):
            assert len(model.decoder.model.layers) == 2
            assert model.config.text_config.num_hidden_layers == model.decoder.config.num_hidden_layers == 2
            assert len(model.encoder.layers) == encoder_depth
            assert not torch.allclose(model(**inputs).logits, whole)
        torch.testing.assert_close(model(**inputs).logits, whole, rtol=0, atol=0)


def test_it_loads_with_the_stock_auto_class(tmp_path):
    ours = loaded("hubert", "qwen2")
    plan = Plan(provenance=Provenance(shoal="0"), model_ref="tiny", depth=4, layers=[0])
    out = write_checkpoint(ours.model, plan, tmp_path / "out", cases={}, processor=ours.processor)
    again = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
    assert len(find(again).layers(again)) == 3
