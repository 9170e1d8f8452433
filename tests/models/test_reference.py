"""The reference adapters: the forward pass their record describes, and what they transcribe."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from shoal.models.adapters import load_adapters
from shoal.models.build import resolve_path

REFERENCE = Path(__file__).parents[2] / "src" / "shoal" / "demo" / "reference"
INSTRUCTION = "Transcribe the speech."
TRANSCRIPTS = {
    "asterisk/audio/00454.opus": "message from phone number",
    "asterisk/audio/00532.opus": "press 4 to place an outgoing call",
    "speechocean762/audio/03153.opus": "one look will be sufficient",
    "speechocean762/audio/03145.opus": "god i love this man already",
}
"""Of clips on which the best token leads the second best by 1.5 or more all the way: rounding cannot tell."""

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def reference():
    return load_adapters(REFERENCE)


@pytest.fixture(scope="module")
def stored():
    """The file's tensors, dequantised without the code under test."""
    raw = load_file(REFERENCE / "adapters.safetensors")
    return {
        name: tensor.double() * raw[name + "_scale"].double()[:, None] if name + "_scale" in raw else tensor.double()
        for name, tensor in raw.items()
        if not name.endswith("_scale")
    }


@pytest.mark.speech
def test_clips_are_transcribed_as_when_the_adapters_were_trained(reference, speech):
    model, processor = reference
    audio = [soundfile.read(speech / name, dtype="float32")[0] for name in TRANSCRIPTS]
    batch = processor(text=[processor.format_prompt(INSTRUCTION)] * len(audio), audio=audio)
    tokens = model.generate(**batch, max_new_tokens=20)[:, batch["input_ids"].shape[1] :]
    given = processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    assert given == list(TRANSCRIPTS.values())


@torch.inference_mode()
def test_the_projector_follows_the_record(reference, stored):
    model, processor = reference
    samples = 16_000 + 7_001
    inputs = processor.audio_inputs([torch.randn(samples).mul(0.1).numpy()])
    (kept,) = (states.double() for states in model.encode(**inputs))
    assert len(kept) == math.ceil(samples / 320)
    x = kept[: len(kept) // 5 * 5].reshape(-1, 2560)
    x = torch.nn.functional.layer_norm(x, (2560,), stored["projector.ln.weight"], stored["projector.ln.bias"])
    x = x @ stored["projector.a.weight"].T + stored["projector.a.bias"]
    x = torch.nn.functional.gelu(x) @ stored["projector.b.weight"].T + stored["projector.b.bias"]
    expected = x / x.pow(2).mean(-1, keepdim=True).sqrt() * stored["projector.g"] * 0.13
    (given,) = model.get_audio_features(**inputs)
    assert given.shape == (14, 576)
    torch.testing.assert_close(given.double(), expected, atol=1e-5, rtol=1e-4)


def test_every_update_is_added_to_the_base(reference, stored):
    base = AutoModelForCausalLM.from_pretrained(resolve_path("pkg:smollm2-135m-instruct"), dtype=torch.float32)
    tuned = dict(reference[0].decoder.named_parameters())
    changed = 0
    for name, weight in base.named_parameters():
        half = name.removesuffix("weight")
        expected = weight.double()
        if half + "lora_B.weight" in stored:
            expected = expected + stored[half + "lora_B.weight"] @ stored[half + "lora_A.weight"]
            changed += 1
        assert (tuned[name].double() - expected).abs().max() < 1e-5, name
    assert changed == 30 * 7


def test_the_prompt_is_the_one_of_the_record(reference):
    model, processor = reference
    pieces = "<|im_start|>user\n", "\nTranscribe the speech.<|im_end|>\n<|im_start|>assistant\n"
    before, after = (processor.tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in pieces)
    prompt = processor.format_prompt(INSTRUCTION)
    expected = [*before, *[processor.audio_token_id] * 2, *after]
    assert processor.encode(prompt, [2]) == expected
    # The tokenizer, given the whole prompt, parts it at the audio token in the same way.
    whole = processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert whole == [*before, processor.audio_token_id, *after]
    assert processor.audio_token_id >= model.get_input_embeddings().num_embeddings
    assert processor.format_response("It's a Test.") + processor.end_token == "it's a test<|im_end|>"


@torch.inference_mode()
def test_merged_and_unmerged_agree(reference):
    model, processor = reference
    unmerged, _ = load_adapters(REFERENCE, merge=False)
    ids = torch.tensor([processor.encode("it's a test of the low-rank updates")])
    torch.testing.assert_close(unmerged(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-4, rtol=0)
