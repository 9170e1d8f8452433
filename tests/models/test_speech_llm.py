"""Every encoder with every decoder and projector: batching, padding, caching, and what is refused."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from speech_llm_parts import DECODERS, ENCODERS, PROJECTORS, clips, tiny

from shoal.models.fingerprint import fingerprint
from shoal.models.speech_llm import (
    AUDIO_TOKEN,
    WINDOW_MARGIN,
    FrameGeometry,
    ProjectorSettings,
    SpeechLLM,
    SpeechLLMConfig,
    SpeechLLMProcessor,
)

LENGTHS = (0.5, 2.3, 1.0, 0.01)
GRID = [(encoder, "llama", projector) for encoder, projector in itertools.product(ENCODERS, PROJECTORS)]
GRID += [("whisper", decoder, "mlp") for decoder in DECODERS[1:]]


@torch.inference_mode()
def logits(model, processor, audio, side="left"):
    """Logits (real positions, vocabulary) of each clip in one batch."""
    batch = processor(text=[processor.format_prompt("say it")] * len(audio), audio=audio, padding_side=side)
    out = model(**batch).logits
    return [row[mask.bool()] for row, mask in zip(out, batch["attention_mask"], strict=True)]


@pytest.mark.parametrize("parts", GRID, ids="-".join)
def test_a_mixed_batch_equals_one_by_one_with_either_padding(parts):
    model, processor = tiny(*parts)
    audio = clips(*LENGTHS)
    alone = [logits(model, processor, [clip])[0] for clip in audio]
    for side in ("left", "right"):
        for batched, single in zip(logits(model, processor, audio, side), alone, strict=True):
            torch.testing.assert_close(batched, single, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("parts", GRID, ids="-".join)
def test_generating_with_and_without_cache_agrees(parts):
    model, processor = tiny(*parts)
    batch = processor(text=[processor.format_prompt("say it")] * 4, audio=clips(*LENGTHS))
    cached, plain = (
        model.generate(**batch, max_new_tokens=6, do_sample=False, use_cache=use_cache) for use_cache in (True, False)
    )
    assert torch.equal(cached, plain)


def test_the_encoder_runs_once_per_generation():
    model, processor = tiny()
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    batch = processor(text=[processor.format_prompt("say it")], audio=clips(0.5))
    model.generate(**batch, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert len(calls) == 1


def test_beams_keep_every_window_of_their_clip():
    model, processor = tiny()
    audio = clips(2.3, 0.5, 1.2)
    prompt = processor.format_prompt("say it")
    options = {"max_new_tokens": 4, "num_beams": 3, "do_sample": False}
    together = model.generate(**processor(text=[prompt] * 3, audio=audio), **options)
    for row, clip in zip(together, audio, strict=True):
        alone = model.generate(**processor(text=prompt, audio=clip), **options)[0]
        assert torch.equal(row[-4:], alone[-4:])


@pytest.mark.parametrize("encoder", ["whisper", "wavlm", "wav2vec2-adapter"])
def test_bfloat16_runs_and_stays_close(encoder):
    model, processor = tiny(encoder)
    expected = logits(model, processor, clips(0.5))[0]
    # Without oneDNN: its bfloat16 convolutions on processors with AMX are so coarse (cosine 0.64 for the tiny WavLM,
    # 0.9992 without) that they would hide what is tested here, that every part is given the right dtype.
    with torch.backends.mkldnn.flags(enabled=False):
        given = logits(model.to(torch.bfloat16), processor, clips(0.5))[0]
    assert given.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(given.float(), expected, dim=-1).min() > 0.9


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("projector", PROJECTORS)
def test_the_processor_counts_what_the_projector_gives(encoder, projector):
    model, processor = tiny(encoder, "llama", projector)
    samples = [1, 399, 400, 401, 719, 720, 15_999, 16_000, 16_001, 40_321]
    audio = [np.ones(count, dtype=np.float32) for count in samples]
    with torch.inference_mode():
        given = [len(clip) for clip in model.get_audio_features(**processor.audio_inputs(audio))]
    assert given == [processor.positions(count) for count in samples]
    assert min(given) >= 1


def test_frames_follow_the_encoders_own_formula():
    for name in ENCODERS[1:]:
        model, _ = tiny(name)
        geometry = FrameGeometry.of(model.config.encoder_config)
        for samples in (geometry.shortest, 5_000, 16_000, 16_319, 16_320):
            assert geometry.frames(samples) == int(
                model.encoder._get_feat_extract_output_lengths(torch.tensor(samples))
            )
        assert geometry.frames(geometry.shortest) == 1
        assert geometry.frames(geometry.shortest - 1) < 1


def test_whisper_windows_are_encoded_apart_and_joined_before_stacking():
    model, processor = tiny(projector="linear")
    (clip,) = clips(2.5)
    inputs = processor.audio_inputs([clip])
    assert inputs["input_features"].shape[:2] == (1, 3)
    with torch.inference_mode():
        states = model.encoder(inputs["input_features"][0]).last_hidden_state
        frames = torch.cat([states[0], states[1], states[2, :25]])
        stacked = frames[:123].reshape(41, -1)
        expected = model.projector.output(stacked)
        torch.testing.assert_close(model.get_audio_features(**inputs)[0], expected)


def shortened(encoder, mel):
    """Whisper's own forward pass with its position table cut to the length of `mel` (1, mels, mel frames)."""
    encoder = copy.deepcopy(encoder)
    frames = mel.shape[-1] // 2
    encoder.config.max_source_positions = frames
    encoder.embed_positions = torch.nn.Embedding.from_pretrained(encoder.embed_positions.weight[:frames])
    return encoder(mel).last_hidden_state[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_encoder_that_hears_the_clip_gives_what_it_gives_with_a_shorter_position_table(attention):
    model, processor = tiny(projector="linear", window="clip")
    model.encoder.set_attn_implementation(attention)
    samples = [800, 8_005, 12_801, 16_000, 20_000]
    audio = [clips(2.0, seed=count)[0][:count] for count in samples]
    with torch.inference_mode():
        together = model.encode(**processor.audio_inputs(audio))
        for clip, given in zip(audio, together, strict=True):
            parts = []
            for part in (clip[:16_000], clip[16_000:]):  # the tiny encoder's window is one second
                if len(part):
                    heard = -(-min(len(part) + WINDOW_MARGIN, 16_000) // 320) * 320
                    padded = np.pad(part, (0, heard - len(part)))
                    mel = processor.feature_extractor(
                        padded, sampling_rate=16_000, padding=False, return_tensors="pt"
                    ).input_features
                    assert mel.shape[-1] == heard // 160
                    parts.append(shortened(model.encoder, mel)[: -(-len(part) // 320)])
            torch.testing.assert_close(given, torch.cat(parts))


def test_a_clip_gives_the_same_alone_and_beside_longer_ones():
    model, processor = tiny(window="clip")
    audio = clips(0.31, 0.75, 2.3)
    with torch.inference_mode():
        together = model.get_audio_features(**processor.audio_inputs(audio))
        for clip, given in zip(audio, together, strict=True):
            (alone,) = model.get_audio_features(**processor.audio_inputs([clip]))
            torch.testing.assert_close(given, alone)


def test_a_whole_window_is_the_same_either_way_and_a_short_clip_is_not():
    full, clip = tiny(), tiny(window="clip")
    whole, short = clips(1.0, 0.4)
    features = [
        [model.get_audio_features(**processor.audio_inputs([audio]))[0] for audio in (whole, short)]
        for model, processor in (full, clip)
    ]
    torch.testing.assert_close(features[0][0], features[1][0])
    assert features[0][1].shape == features[1][1].shape
    assert not torch.allclose(features[0][1], features[1][1], atol=1e-3)
    assert fingerprint(full[0]) != fingerprint(clip[0])


def test_what_is_heard_is_kept_with_the_checkpoint(tmp_path):
    model, processor = tiny(window="clip")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert SpeechLLM.from_pretrained(tmp_path).config.encoder_window == "clip"
    again = SpeechLLMProcessor.from_pretrained(tmp_path)
    (audio,) = clips(0.4)
    assert torch.equal(again.audio_inputs([audio])["input_features"], processor.audio_inputs([audio])["input_features"])
    assert SpeechLLMConfig().encoder_window == "full"  # of a config that does not say it
    with pytest.raises(ValueError, match=r"unknown encoder window 'half' \(full, clip\)"):
        SpeechLLMConfig(encoder_window="half")


def test_mlp_projector_is_the_reference_forward_pass():
    model, _ = tiny(projector="mlp")
    projector = model.projector
    torch.nn.init.normal_(projector.norm.weight)
    torch.nn.init.constant_(projector.gain, 1.7)
    frames = torch.randn(13, 16, dtype=torch.float64)
    with torch.inference_mode():
        projector.double()
        (given,) = projector([frames])
        x = torch.stack([torch.cat(list(frames[start : start + 5])) for start in (0, 5)])
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        x = x * projector.norm.weight + projector.norm.bias
        x = x @ projector.hidden.weight.T + projector.hidden.bias
        x = x * 0.5 * (1 + torch.erf(x / 2**0.5))
        x = x @ projector.output.weight.T + projector.output.bias
        expected = x / (x**2).mean(1, keepdim=True).sqrt() * 1.7 * 0.13
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=1e-4)


def test_a_clip_shorter_than_one_stack_is_padded_with_zero_frames():
    assert ProjectorSettings(type="mlp", stack=5).positions(1) == 1
    assert ProjectorSettings(type="mlp", stack=5).positions(9) == 1
    assert ProjectorSettings(type="conv", stack=2, kernel=4).positions(3) == 1
    assert ProjectorSettings(type="conv", stack=2, kernel=4).positions(6) == 2


def test_audio_embeddings_stand_where_the_audio_token_is_and_text_is_untouched():
    model, processor = tiny()
    batch = processor(text=[f"a{AUDIO_TOKEN}b{AUDIO_TOKEN}", "c"], audio=clips(0.5, 0.3), padding_side="right")
    ids = batch.pop("input_ids")
    batch.pop("attention_mask")
    assert (ids == model.config.audio_token_id).any()
    assert model.config.audio_token_id >= len(model.get_input_embeddings().weight)
    with torch.inference_mode():
        embeds = model.embed(ids, **batch)
        audio = ids == model.config.audio_token_id
        torch.testing.assert_close(embeds[audio], torch.cat(model.get_audio_features(**batch)))
        torch.testing.assert_close(embeds[~audio], model.get_input_embeddings()(ids[~audio]))


def test_input_embeddings_give_the_same_logits_and_generation():
    model, processor = tiny()
    batch = processor(text=[processor.format_prompt("say it")] * 2, audio=clips(0.5, 0.3))
    audio = {name: batch[name] for name in ("input_features", "audio_samples")}
    with torch.inference_mode():
        embeds = model.embed(batch["input_ids"], **audio)
        mask = batch["attention_mask"]
        given = model(inputs_embeds=embeds, attention_mask=mask, logits_to_keep=2).logits
        torch.testing.assert_close(given, model(**batch).logits[:, -2:])
        new = model.generate(inputs_embeds=embeds, attention_mask=mask, max_new_tokens=4)
        assert torch.equal(new, model.generate(**batch, max_new_tokens=4)[:, mask.shape[1] :])


def test_audio_positions_do_not_count_in_the_loss():
    model, processor = tiny()
    batch = processor(text=[processor.format_prompt("say it")], audio=clips(0.5))
    labels = batch["input_ids"].clone()
    loss = model(**batch, labels=labels).loss
    labels[labels == model.config.audio_token_id] = -100
    assert torch.equal(loss, model(**batch, labels=labels).loss)
    loss.backward()
    assert model.projector.output.weight.grad.abs().sum() > 0


def test_prefix_and_suffix_are_tokenised_apart():
    _, processor = tiny()
    text = processor.format_prompt("say it")
    prefix, suffix = text.split(AUDIO_TOKEN)
    ids = [processor.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prefix, suffix)]
    assert processor.encode(text, [3]) == ids[0] + [processor.audio_token_id] * 3 + ids[1]


def test_responses_in_lower_style_keep_only_apostrophes():
    _, processor = tiny()
    assert processor.format_response(" It’s a well-known FACT: 3.5 %, isn't it?") == (
        "it's a well known fact 35 isn't it"
    )
    assert processor.format_response("हिन्दी।") == "हिन्दी"
    assert SpeechLLMConfig(response_style="plain").format_response(" As it is. ") == "As it is."


def test_text_without_audio_needs_no_encoder():
    model, processor = tiny()
    positions = torch.tensor([[0, 1, 2], [0, 0, 0]])
    with torch.inference_mode():
        batch = processor(text=["abc", "a"])
        expected = model.decoder(**batch, position_ids=positions).logits
        torch.testing.assert_close(model(**batch).logits, expected)


def test_parts_are_where_others_look_for_them():
    model, _ = tiny()
    assert model.get_decoder() is model.decoder.model
    assert model.get_input_embeddings() is model.decoder.model.embed_tokens
    assert model.get_output_embeddings() is model.decoder.lm_head
    assert model.get_encoder() is model.encoder
    assert model.config.get_text_config() is model.decoder.config


def test_loaded_parts_keep_their_weights_and_their_attention():
    model, _ = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    again = SpeechLLM(model.config, encoder=model.encoder, decoder=model.decoder)
    for name, value in again.state_dict().items():
        assert name.startswith("projector.") or torch.equal(value, before[name])
    assert again.decoder.config._attn_implementation == "sdpa"


def test_mismatch_of_places_and_positions_tells_both_numbers():
    model, processor = tiny()
    batch = processor(text=[processor.format_prompt("say it")], audio=clips(0.5))
    batch["input_ids"] = batch["input_ids"][:, 25:]
    with pytest.raises(ValueError, match=r"has \d+ audio positions but the audio gives 5"):
        model.embed(batch["input_ids"], **{k: batch[k] for k in ("input_features", "audio_samples")})
    with pytest.raises(ValueError, match=r"has \d+ audio positions but the audio gives 0"):
        model(input_ids=processor(text=[processor.format_prompt("x")], audio=clips(0.5))["input_ids"])


@pytest.mark.parametrize(
    ("text", "audio", "message"),
    [
        (["abc"], clips(0.5), "texts have 0 .* but there are 1 clips"),
        ([f"a{AUDIO_TOKEN}"], None, "texts have 1 .* but there are 0 clips"),
        ([f"a{AUDIO_TOKEN}"], [np.zeros(0, dtype=np.float32)], "without samples"),
        ([f"a{AUDIO_TOKEN}"], [np.zeros((2, 100), dtype=np.float32)], "one-dimensional"),
    ],
)
def test_processor_refuses_what_does_not_match(text, audio, message):
    _, processor = tiny()
    with pytest.raises(ValueError, match=message):
        processor(text=text, audio=audio)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "qformer"}, "unknown projector 'qformer'"),
        ({"stack": 0}, "at least 1"),
        ({"output_norm": "layer"}, "unknown output_norm"),
        ({"wings": 2}, "wings"),
    ],
)
def test_projector_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        _ = SpeechLLMConfig(projector=settings).projector_settings


def test_unsupported_encoders_are_named():
    with pytest.raises(ValueError, match="encoder 'bert' is not supported"):
        SpeechLLM(SpeechLLMConfig(encoder_config={"model_type": "bert"}))
