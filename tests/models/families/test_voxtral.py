"""What is particular to Voxtral and Voxtral Realtime."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shoal.models.batch import Kind, TokenRow
from shoal.models.families.voxtral import FAMILY as VOXTRAL
from shoal.models.families.voxtral_realtime import FAMILY as REALTIME
from tiny_audio import BUILDS, mistral, voxtral

needs_mistral = pytest.mark.skipif(not mistral.AVAILABLE, reason=mistral.MISSING)

PAD = 32


def test_the_instruction_follows_the_audio():
    build = BUILDS["VoxtralForConditionalGeneration"]
    model, processor = build.build(2), build.processor()
    inputs = VOXTRAL.request(model, processor, clips(), "Transcribe.")
    assert inputs["input_features"].shape[0] == 1 + 2
    assert (inputs["input_ids"] == 24).sum(1).tolist() == [375, 750]
    assert processor.tokenizer.decode(inputs["input_ids"][0].tolist()).endswith("Transcribe.[/INST]")


@needs_mistral
def test_without_mistral_common_the_request_is_the_same():
    model = BUILDS["VoxtralForConditionalGeneration"].build(2)
    stock = VOXTRAL.request(model, voxtral.processor(converted=False), clips(), "Transcribe the speech.")
    ours = VOXTRAL.request(model, voxtral.processor(converted=True), clips(), "Transcribe the speech.")
    assert stock.keys() == ours.keys()
    assert all(torch.equal(stock[name], ours[name]) for name in stock)


def clips():
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000 * 31).astype(np.float32)
    return [noise[:8_000], noise]


@needs_mistral
@pytest.mark.parametrize("samples", [1, 16_000, 20_001])
@pytest.mark.parametrize("tokens", [0, 1, 7, 200])
def test_a_streamed_response_fills_the_audio(samples, tokens):
    build = BUILDS["VoxtralRealtimeForConditionalGeneration"]
    model, processor = build.build(2), build.processor()
    clip = np.full(samples, 0.1, dtype=np.float32)
    inputs = REALTIME.request(model, processor, [clip], "")
    prompt = inputs["input_ids"][0]
    line = TokenRow(prompt, torch.full_like(prompt, int(Kind.PROMPT)))
    row = REALTIME.with_response(processor, line, range(40, 40 + tokens), clip)
    frames = inputs["input_features"].shape[-1] // model.config.audio_length_per_tok
    assert len(row.ids) == frames
    written = row.ids[row.kinds == Kind.TEXT].tolist()
    assert written == list(range(40, 40 + tokens))[: frames - len(prompt)]
    assert set(row.ids[row.kinds == Kind.AUDIO].tolist()) <= {PAD}


@needs_mistral
def test_the_decoder_hears_no_more_than_its_tokens():
    build = BUILDS["VoxtralRealtimeForConditionalGeneration"]
    model, processor = build.build(2), build.processor()
    inputs = REALTIME.request(model, processor, [np.full(16_000, 0.1, dtype=np.float32)], "")
    call = REALTIME.call(model, inputs)
    whole = model.get_audio_features(inputs["input_features"]).pooler_output
    tokens = inputs["input_ids"].shape[1]
    expected = model.get_input_embeddings()(inputs["input_ids"]) + whole[:, :tokens]
    assert torch.allclose(call["inputs_embeds"], expected, atol=1e-5)
    assert call["t_cond"].shape == (1, 32)
