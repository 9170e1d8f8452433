from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from shoal.errors import ModelError
from shoal.models.batch import Kind
from shoal.models.families import find
from shoal.models.families.audio_llm import Question
from shoal.models.loading import load_model
from shoal.pruning.from_folder import prune_folder
from shoal.pruning.in_memory import pruned
from shoal.pruning.on_disk import prune
from shoal.selection import manual
from tiny_audio import BUILDS


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Qwen3ASRForConditionalGeneration", "language English<asr_text>two words"),
        ("MossTranscribeDiarizeForConditionalGeneration", "[0.00][S01]two[1.50][1.50][S02]words[2.00]"),
        (
            "VibeVoiceAsrForConditionalGeneration",
            'assistant\n[{"Start":0,"End":1.5,"Speaker":0,"Content":"two"},'
            '{"Start":1.5,"End":2,"Speaker":1,"Content":"words"}]',
        ),
    ],
)
def test_the_answer_is_the_transcript_without_languages_times_and_speakers(name, written):
    family, processor = find(BUILDS[name].build(2)), BUILDS[name].processor()
    assert family.answer(processor, written) == "two words"
    assert family.answer(processor, "words alone") == "words alone"


def test_qwen3_asr_is_told_the_language_of_each_clip():
    build = BUILDS["Qwen3ASRForConditionalGeneration"]
    model, processor = build.build(2), build.processor()
    family, clip = find(model), np.zeros(16_000, dtype=np.float32)
    inputs = family.request(model, processor, [clip] * 3, Question("", ("de", None, "yue"), transcribe=True))
    texts = processor.tokenizer.batch_decode(inputs["input_ids"])
    assert texts[0].endswith("<|assistant|>language German<asr_text>")
    assert texts[1].endswith("<|assistant|>")
    assert texts[2].endswith("<|assistant|>language Cantonese<asr_text>")
    assert {"de", "yue"} <= set(family.languages(model, transcribe=True))


def test_fun_asr_nano_is_told_the_language_of_each_clip():
    """Its feature extractor needs torchaudio, its requests do not."""
    from transformers.models.fun_asr_nano.processing_fun_asr_nano import FunAsrNanoProcessor

    processor = SimpleNamespace(
        apply_transcription_request=lambda *args, **options: FunAsrNanoProcessor.apply_transcription_request(
            processor, *args, **options
        ),
        apply_chat_template=lambda conversations, **_: [str(turn[0]["content"][1:]) for turn in conversations],
    )
    family = find(BUILDS["FunAsrNanoForConditionalGeneration"].build(2))
    prompts = family.prompts(processor, Question("", ("zh", None), transcribe=True), 2)
    assert prompts == ["[{'type': 'language', 'language': '中文'}]", "[]"]


@pytest.mark.parametrize(
    ("question", "tokens"),
    [
        (Question("", ("de", None), transcribe=True), [["de", "de"], ["en", "en"]]),
        (Question("", ("de", "en"), into="fr"), [["de", "fr"], ["en", "fr"]]),
    ],
)
def test_canary_is_told_what_is_spoken_and_what_to_write(question, tokens):
    build = BUILDS["CanaryForConditionalGeneration"]
    model, processor = build.build(2), build.processor()
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 16_000)).astype(np.float32)
    inputs = find(model).request(model, processor, list(noise), question)
    prompts = ["".join(f"<|{name}|>" for name in ("startofcontext", "startoftranscript", *p, "pnc")) for p in tokens]
    assert processor.tokenizer.batch_decode(inputs["decoder_input_ids"]) == prompts


def test_canary_hears_a_clip_the_same_way_beside_a_longer_one():
    build = BUILDS["CanaryForConditionalGeneration"]
    model, processor = build.build(2), build.processor()
    noise = np.random.default_rng(0).normal(0, 0.1, 40_000).astype(np.float32)
    question = Question("", ("de",) * 2, transcribe=True)
    with torch.no_grad():
        both = model(**find(model).request(model, processor, [noise[:16_000], noise], question)).logits[0]
        alone = model(**find(model).request(model, processor, [noise[:16_000]], Question("", ("de",)))).logits[0]
    assert torch.allclose(both, alone, atol=1e-5)


def test_vibevoice_hears_a_clip_the_same_way_twice():
    build = BUILDS["VibeVoiceAsrForConditionalGeneration"]
    model = build.build(2)
    clip = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
    inputs = find(model).request(model, build.processor(), [clip], Question(""))
    with torch.no_grad():
        first, second = (model(**inputs).logits for _ in range(2))
        noisy = model(**(inputs | {"sample": True})).logits
    assert torch.equal(first, second)
    assert not torch.allclose(first, noisy)


@pytest.mark.parametrize("name", ["Nemotron3_5TranscribeForConditionalGeneration", "NemotronH_Omni_Reasoning_V3"])
def test_the_last_attention_layer_of_nemotron_stays(name):
    model = BUILDS[name].build(6)
    config = find(model).text_config(model)
    before = list(config.layers_block_type)
    with (
        pytest.raises(ModelError, match=r"layers_block_type.*keep one of the layers 2"),
        pruned(model, [1, 2]),
    ):
        pass
    assert config.layers_block_type == before
    with pruned(model, [0, 1, 3]):
        assert config.layers_block_type == ["full_attention", "linear_attention", "mlp"]


def test_kyutai_is_measured_on_what_it_hears_and_writes():
    """The recorded run, in one pass, predicts at every position the text token that comes next."""
    torch.manual_seed(0)
    build = BUILDS["KyutaiSpeechToTextForConditionalGeneration"]
    model, processor = build.build(2), build.processor()
    clip = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
    inputs = find(model).request(model, processor, [clip], Question(""))
    text, codes = inputs["input_ids"][0, :, 0], inputs["input_ids"][0, :, 1:]
    with torch.no_grad():
        predicted = model(**inputs).logits[0].argmax(-1)
    assert predicted[:-1].tolist() == text[1:].tolist()
    assert text[0] == model.config.bos_token_id
    assert len(codes[1:].unique()) > 2
    # One second, half a second of delay and one more, at 12.5 frames a second.
    assert len(text) == 31
    assert find(model).token_limit(processor, 1.0, 16) == 32


def test_kyutai_counts_positions_where_a_word_is_written_as_text():
    from shoal.models.families.kyutai_speech_to_text import _kinds

    tokens, mask = torch.tensor([[9, 1, 3, 0, 7, 3]]), torch.tensor([[0, 1, 1, 1, 1, 1]])
    kinds = _kinds(tokens, mask, silent=(0, 3))
    assert kinds[0].tolist() == [Kind.PAD, Kind.PROMPT, Kind.AUDIO, Kind.AUDIO, Kind.TEXT, Kind.AUDIO]


def test_phi4_is_measured_with_its_speech_adapter_whichever_way_it_was_pruned(tmp_path):
    from peft import LoraConfig, get_peft_model

    build = BUILDS["Phi4MultimodalForCausalLM"]
    model = build.build(4)
    model.save_pretrained(tmp_path)
    build.processor().save_pretrained(tmp_path)
    weight = model.model.layers[0].mlp.down_proj.weight.clone()
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=r"model\.layers.*\.mlp\.down_proj"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.1)
    adapted.save_pretrained(tmp_path / "speech-lora")
    options = {"device": "cpu", "dtype": "float32", "trust_remote_code": False}
    merged, plain = (load_model(str(tmp_path), merge=merge, **options).model for merge in (True, False))
    assert torch.equal(plain.model.layers[0].mlp.down_proj.weight, weight)
    lora = adapted.base_model.model.model.layers[0].mlp.down_proj
    change = lora.scaling["default"] * lora.lora_B["default"].weight @ lora.lora_A["default"].weight
    assert torch.allclose(merged.model.layers[0].mlp.down_proj.weight, weight + change, atol=1e-6)
    assert change.abs().max() > 0.01
    assert not any("lora" in name for name, _ in merged.named_parameters())
    plan = manual(str(tmp_path), 4, [1])
    outs = [
        prune(load_model(str(tmp_path), **options), plan, tmp_path / "memory"),
        prune_folder(str(tmp_path), plan, tmp_path / "disk"),
    ]
    assert [(out / "speech-lora").is_dir() for out in outs] == [False, True]
    for out in outs:
        again = load_model(str(out), **options).model.model.layers[1].mlp.down_proj.weight
        assert torch.equal(again, merged.model.layers[2].mlp.down_proj.weight)
