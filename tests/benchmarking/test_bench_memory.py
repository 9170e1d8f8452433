"""Peak memory: of this process, and of a fresh one."""

from __future__ import annotations

import copy
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from shoal import tasks
from shoal.benchmarking import memory, memory_child
from shoal.benchmarking.memory import peak_memories
from shoal.benchmarking.memory_child import CLEAR_REFS, forget_peak, peak_bytes, peak_of_one_clip
from shoal.errors import MeasureError
from shoal.models.speech_llm import SpeechLLM
from tiny_speech import dataset, loaded, plan, saved

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


def test_forks_and_a_fresh_process_measure_the_same(fresh_processes, monkeypatch, tmp_path):
    """As users have them: two systems in forks, and the first again in a process that imports everything itself."""
    monkeypatch.setattr(memory, "_measure", fresh_processes.get("_measure", memory._measure))
    (clip, *_) = dataset(tmp_path / "clips").clips()
    model = saved(tmp_path / "model")
    model.ref = str(tmp_path / "model")
    forked, _ = peak_memories(model, clip, tasks.get("asr"), [plan(1), None], new_tokens=3)
    (fresh,) = peak_memories(model, clip, tasks.get("asr"), [plan(1)], new_tokens=3)
    assert forked > 50_000_000
    assert forked == pytest.approx(fresh, rel=0.03)


def test_a_process_that_fails_is_one_line(tmp_path):
    (clip, *_) = dataset(tmp_path).clips()
    model = loaded()
    model.ref = str(tmp_path / "nowhere")
    with pytest.raises(MeasureError, match="measures memory ended with 1"):
        peak_memories(model, clip, tasks.get("asr"), [None], new_tokens=3)


def test_a_process_that_takes_too_long_is_ended(tmp_path):
    (clip, *_) = dataset(tmp_path).clips()
    with pytest.raises(MeasureError, match="longer than"):
        peak_memories(loaded(), clip, tasks.get("asr"), [None], new_tokens=3, timeout=0.01)


@pytest.mark.skipif(not memory.FORKS, reason="processes are forked on Linux only")
def test_a_fork_that_fails_ends_the_process_that_it_was_made_of(monkeypatch, capfd):
    monkeypatch.setattr(memory_child, "measure", lambda folder: 1 / 0)
    with pytest.raises(SystemExit) as ended:
        memory_child.main([Path("0"), Path("1")])
    assert ended.value.code == 1
    assert capfd.readouterr().err.endswith("ZeroDivisionError: division by zero\n")
    raised = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    monkeypatch.setattr(memory_child, "measure", lambda folder: os.kill(os.getpid(), signal.SIGKILL))
    memory_child._measure_in_fork(Path("0"), [])
    assert raised == [signal.SIGKILL]


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
    full, less = peak_memories(model, clip, tasks.get("asr"), [None, plan(0, 1, 2)], new_tokens=2)
    assert full - less == pytest.approx(removed, rel=0.2)


@pytest.mark.parametrize(("device", "processes"), [("cpu", [2]), ("cuda", [1, 1])])
def test_what_may_use_a_gpu_is_not_forked(monkeypatch, tmp_path, device, processes):
    (clip, *_) = dataset(tmp_path).clips()
    started = []

    def measure(folders, timeout, step):
        started.append(len(folders))
        for folder in folders:
            (folder / "result.json").write_text('{"peak_bytes": 5}')

    monkeypatch.setattr(memory, "FORKS", True)
    monkeypatch.setattr(memory, "_measure", measure)
    model = SimpleNamespace(ref="m", device=torch.device(device), dtype_name="float32")
    assert peak_memories(model, clip, tasks.get("asr"), [None, plan(1)], new_tokens=2) == [5, 5]
    assert started == processes
