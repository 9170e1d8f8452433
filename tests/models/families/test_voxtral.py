"""What is particular to Voxtral and Voxtral Realtime."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from shoal.models.batch import Kind, TokenRow
from shoal.models.families.audio_llm import Question
from shoal.models.families.voxtral import FAMILY as VOXTRAL
from shoal.models.families.voxtral_realtime import FAMILY as REALTIME
from tiny_audio import BUILDS, mistral, voxtral

needs_mistral = pytest.mark.skipif(not mistral.AVAILABLE, reason=mistral.MISSING)

PAD = 32


def test_the_instruction_follows_the_audio():
    build = BUILDS["VoxtralForConditionalGeneration"]
    model, processor = build.build(2), build.processor()
    inputs = VOXTRAL.request(model, processor, clips(), Question("Transcribe."))
    assert inputs["input_features"].shape[0] == 1 + 2
    assert (inputs["input_ids"] == 24).sum(1).tolist() == [375, 750]
    assert processor.tokenizer.decode(inputs["input_ids"][0].tolist()).endswith("Transcribe.[/INST]")


def test_a_language_is_told_in_the_transcription_mode():
    build = BUILDS["VoxtralForConditionalGeneration"]
    model, processor = build.build(2), build.processor()
    question = Question("Transcribe.", ("de", None), transcribe=True)
    inputs = VOXTRAL.request(model, processor, clips(), question)
    told, asked = (processor.tokenizer.decode(ids.tolist()) for ids in inputs["input_ids"])
    assert told.endswith("[/INST]lang:de[TRANSCRIBE]")
    assert asked.endswith("Transcribe.[/INST]")
    assert "de" in VOXTRAL.languages(model, transcribe=True)
    assert not VOXTRAL.languages(model, transcribe=False)


@needs_mistral
@pytest.mark.parametrize("converted", [False, True])
def test_the_request_is_what_mistral_common_writes(converted):
    from mistral_common.protocol.transcription.request import TranscriptionRequest

    model = BUILDS["VoxtralForConditionalGeneration"].build(2)
    stock, processor = voxtral.processor(converted=False), voxtral.processor(converted=converted)
    words = {"type": "text", "text": "Transcribe the speech."}
    turns = [[{"role": "user", "content": [audio_of(wav(clip)), words]}] for clip in clips()]
    expected = dict(stock.apply_chat_template(turns))
    inputs = VOXTRAL.request(model, processor, clips(), Question("Transcribe the speech."))
    assert inputs.keys() == expected.keys()
    assert all(torch.equal(inputs[name], expected[name]) for name in expected)

    inputs = VOXTRAL.request(model, processor, clips(), Question("", ("de", "en"), transcribe=True))
    for ids, mask, clip, lang in zip(
        inputs["input_ids"], inputs["attention_mask"].bool(), clips(), ("de", "en"), strict=True
    ):
        asked = TranscriptionRequest.from_openai({"model": "any", "file": BytesIO(wav(clip)), "language": lang})
        assert ids[mask].tolist() == stock.tokenizer.tokenizer.encode_transcription(asked).tokens


def audio_of(file: bytes) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": b64encode(file).decode(), "format": "wav"}}


def wav(samples) -> bytes:
    file = BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="FLOAT")
    return file.getvalue()


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
    inputs = REALTIME.request(model, processor, [clip], Question(""))
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
    inputs = REALTIME.request(model, processor, [np.full(16_000, 0.1, dtype=np.float32)], Question(""))
    call = REALTIME.call(model, inputs)
    whole = model.get_audio_features(inputs["input_features"]).pooler_output
    tokens = inputs["input_ids"].shape[1]
    expected = model.get_input_embeddings()(inputs["input_ids"]) + whole[:, :tokens]
    assert torch.allclose(call["inputs_embeds"], expected, atol=1e-5)
    assert call["t_cond"].shape == (1, 32)
