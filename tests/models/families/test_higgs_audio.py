"""Higgs Audio's processor without its codec, which needs torchaudio: random codes stand in for it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import DacFeatureExtractor, HiggsAudioV2Processor

from shoal import tasks
from shoal.decoder.prepare import prepare
from shoal.measurement.collector import collect
from shoal.models import families
from shoal.models.batch import Kind
from shoal.models.loading import LoadedModel
from shoal.schema import SCOPES
from tiny_audio.higgs_audio import BUILDS, CODEBOOKS
from tiny_audio.parts import tokenizer
from tiny_speech import dataset

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_out_bos|><|AUDIO_OUT|><|audio_eos|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|eos|>{% endfor %}"
)


class Codec:
    """A frame for every 1,920 samples, the same for the same samples."""

    device = "cpu"
    config = SimpleNamespace(num_quantizers=CODEBOOKS)

    def encode(self, input_values):
        frames = max(1, input_values.shape[-1] // 1920)
        generator = torch.Generator().manual_seed(frames)
        codes = torch.randint(0, 32, (1, CODEBOOKS, frames), generator=generator)
        return SimpleNamespace(audio_codes=codes)


@pytest.fixture
def loaded(tmp_path):
    build = BUILDS["HiggsAudioV2ForConditionalGeneration"]
    model = build.build(build.depth)
    words = tokenizer("<|AUDIO_OUT|>", "<|audio_out_bos|>", "<|audio_eos|>", "<|reserved_special_token_6|>")
    processor = HiggsAudioV2Processor.__new__(HiggsAudioV2Processor)
    processor.tokenizer, processor.feature_extractor = words, DacFeatureExtractor(sampling_rate=24_000)
    processor.audio_tokenizer, processor.chat_template = Codec(), TEMPLATE
    processor.audio_stream_bos_id, processor.audio_stream_eos_id = 32, 33
    for name, token in (
        ("audio_token", "<|AUDIO_OUT|>"),
        ("audio_bos_token", "<|audio_out_bos|>"),
        ("audio_eos_token", "<|audio_eos|>"),
        ("audio_delay_token", "<|reserved_special_token_6|>"),
    ):
        setattr(processor, name, token)
        setattr(processor, f"{name}_id", words.convert_tokens_to_ids(token))
    family = families.find(model)
    return LoadedModel("higgs", tmp_path, model, words, processor, family, "audio_llm")


def test_the_words_stand_before_the_codes(loaded, tmp_path):
    data = dataset(tmp_path / "clips", 2)
    clips = list(data.clips(data.rows))
    batch = prepare(loaded, clips, tasks.get("asr"), response=True)
    for row, clip in enumerate(clips):
        kinds = batch.kinds[row]
        text = loaded.tokenizer.decode(batch.token_ids[row][kinds == Kind.TEXT])
        assert text == tasks.get("asr").target(clip.row)
        assert (kinds == Kind.TEXT).nonzero().max() < (kinds == Kind.AUDIO).nonzero().min()
    frames = batch.inputs["audio_input_ids_mask"].sum(1)
    assert ((batch.kinds == Kind.AUDIO).sum(1) == frames).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_audit_equals_the_states_of_the_stock_forward(loaded, side, tmp_path):
    loaded.model.double()
    data = dataset(tmp_path / "clips", 2)
    clips = list(data.clips(data.rows))
    batch = prepare(loaded, clips, tasks.get("asr"), response=True, padding_side=side)
    for clip, sums in zip(clips, collect(loaded.decoder, loaded.layers, [batch]), strict=True):
        single = prepare(loaded, [clip], tasks.get("asr"), response=True)
        with torch.no_grad():
            states = loaded.model(**single.inputs, output_hidden_states=True, use_cache=False).hidden_states
        a, b = (state[0].numpy() for state in states[1:3])
        cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        kept = SCOPES.index("all")
        assert sums.sums[kept][1] / sums.counts[kept] == pytest.approx(
            float(np.mean(np.arccos(cosines)) / np.pi), abs=1e-6
        )


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_loss_of_its_codes_is_the_stock_loss(loaded, side, tmp_path):
    data = dataset(tmp_path / "clips", 3)
    clips = list(data.clips(data.rows))
    batch = prepare(loaded, clips, tasks.get("tts"), response=True, padding_side=side)
    with torch.no_grad():
        losses, rows = loaded.family.spoken_losses(loaded.model, batch)
        for row, clip in enumerate(clips):
            inputs = dict(prepare(loaded, [clip], tasks.get("tts"), response=True).inputs)
            codes = inputs["audio_input_ids"]
            stock = loaded.model(**inputs, audio_labels=codes, use_cache=False).loss
            # The sum over codebooks of means over frames.
            assert float(losses[rows == row].sum()) == pytest.approx(float(stock) * codes.shape[1], rel=1e-5)
            assert int((rows == row).sum()) == codes.shape[1] * CODEBOOKS
