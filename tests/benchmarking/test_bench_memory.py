"""Peak memory: of this process, and of a fresh one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from shoal import tasks
from shoal.benchmarking import memory
from shoal.benchmarking.memory import peak_memory
from shoal.benchmarking.memory_child import CLEAR_REFS, forget_peak, peak_bytes, peak_of_one_clip
from shoal.errors import MeasureError
from shoal.models.speech_llm import SpeechLLM
from tiny_speech import dataset, loaded

CPU = torch.device("cpu")


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="only Linux can forget a peak")
def test_the_peak_counts_from_when_it_was_forgotten():
    block = np.ones(30_000_000)
    high = peak_bytes(CPU)
    del block
    forget_peak(CPU)
    low = peak_bytes(CPU)
    assert high - low > 200_000_000
    block = np.ones(30_000_000)
    assert peak_bytes(CPU) - low > 200_000_000
    del block


def test_one_clip_has_a_peak(tmp_path):
    (clip, *_) = dataset(tmp_path).clips()
    assert peak_of_one_clip(loaded(), clip, tasks.get("asr"), 3) > 50_000_000


@pytest.fixture
def fresh(fresh_processes, monkeypatch):
    """Started as users have it."""
    monkeypatch.setattr(memory, "_process", fresh_processes.get("_process", memory._process))


def test_a_fresh_process_measures_a_saved_model(fresh, tmp_path):
    (clip, *_) = dataset(tmp_path / "clips").clips()
    model = loaded()
    model.model.save_pretrained(tmp_path / "model")
    model.processor.save_pretrained(tmp_path / "model")
    model.ref = str(tmp_path / "model")
    assert peak_memory(model, clip, tasks.get("asr"), [1], new_tokens=3) > 50_000_000


def test_a_process_that_fails_is_one_line(tmp_path):
    (clip, *_) = dataset(tmp_path).clips()
    model = loaded()
    model.ref = str(tmp_path / "nowhere")
    with pytest.raises(MeasureError, match="measures memory ended with 1"):
        peak_memory(model, clip, tasks.get("asr"), [], new_tokens=3)


def test_a_process_that_takes_too_long_is_ended(fresh, tmp_path):
    (clip, *_) = dataset(tmp_path).clips()
    with pytest.raises(MeasureError, match="longer than"):
        peak_memory(loaded(), clip, tasks.get("asr"), [], new_tokens=3, timeout=0.01)


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="only Linux can forget a peak")
def test_removed_layers_do_not_stay_in_memory_with_their_file(tmp_path):
    (clip, *_) = dataset(tmp_path / "clips").clips()
    model = loaded()
    config = copy.deepcopy(model.model.config)
    config.text_config.intermediate_size = 100_000
    model.model = SpeechLLM(config).eval()
    model.model.save_pretrained(tmp_path / "model")
    model.processor.save_pretrained(tmp_path / "model")
    model.ref = str(tmp_path / "model")
    removed = sum(model.info().decoder_layer_parameters[:3]) * 4
    full, less = (peak_memory(model, clip, tasks.get("asr"), layers, new_tokens=2) for layers in ([], [0, 1, 2]))
    assert full - less == pytest.approx(removed, rel=0.2)
