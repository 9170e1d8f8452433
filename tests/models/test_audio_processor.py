"""Processors that also see, on a machine without image libraries."""

from __future__ import annotations

import json

import numpy as np
import pytest
import transformers

from shoal.models import stock
from shoal.models.audio_processor import SEEING, ImagePlaceholder, audio_processor
from shoal.models.loading import load_model
from shoal.pruning.on_disk import prune
from shoal.selection import manual
from tiny_audio import gemma4, qwen2_5_omni, qwen2_audio


@pytest.mark.parametrize("file", [gemma4, qwen2_5_omni])
def test_it_is_of_the_stock_class_and_hears(file, tmp_path):
    file.processor().save_pretrained(tmp_path)
    processor = audio_processor(tmp_path)
    assert isinstance(processor, getattr(transformers, file.processor().stock))
    assert {type(getattr(processor, name)) for name in SEEING} == {ImagePlaceholder}
    clips = [np.zeros(8000, dtype=np.float32), np.ones(6000, dtype=np.float32)]
    inputs = processor(text=[file.AUDIO] * 2, audio=clips, return_tensors="pt", padding=True)
    assert (inputs["input_ids"] == processor.audio_token_id).sum(1).min() > 1


def test_it_does_not_replace_a_processor_that_only_hears(tmp_path):
    qwen2_audio.processor().save_pretrained(tmp_path)
    assert audio_processor(tmp_path) is None
    assert audio_processor(tmp_path / "nothing") is None


def test_a_pruned_checkpoint_keeps_the_settings_of_what_sees(tmp_path, monkeypatch):
    def without_libraries(*_, **__):
        raise ImportError("no image libraries")

    monkeypatch.setattr(stock.AutoProcessor, "from_pretrained", without_libraries)
    source = tmp_path / "model"
    qwen2_5_omni.build_thinker(6).save_pretrained(source)
    qwen2_5_omni.processor().save_pretrained(source)
    loaded = load_model(str(source), device="cpu", dtype="float32", trust_remote_code=False)
    out = prune(loaded, manual(loaded.ref, 6, [1]), tmp_path / "out", verify=False)
    for name in ("preprocessor_config.json", "processor_config.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (source / name).read_bytes()
    seeing = json.loads((out / "preprocessor_config.json").read_text())["image_processor_type"]
    assert seeing == "Qwen2VLImageProcessor"
    again = load_model(str(out), device="cpu", dtype="float32", trust_remote_code=False)
    assert type(again.processor).__name__ == "Qwen2_5OmniProcessor"
