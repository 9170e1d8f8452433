"""A saved SpeechLLM is a folder that loads with stock classes where Shoal is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from safetensors import safe_open
from speech_llm_parts import clips, tiny
from transformers import AutoModel

from forked_processes import run_apart
from shoal.models.speech_llm import SpeechLLM, SpeechLLMProcessor

LOADER = """
import sys

class NoShoal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "shoal":
            raise ImportError("shoal is not here")

sys.meta_path.insert(0, NoShoal())
import numpy as np, torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor

folder, samples, out = sys.argv[1:]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
assert type(config).__name__ == "SpeechLLMConfig" and config.projector["stack"] == 5
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
model, report = AutoModelForCausalLM.from_pretrained(
    folder, trust_remote_code=True, output_loading_info=True
)
assert not report["missing_keys"] and not report["unexpected_keys"], report
audio = list(np.load(samples).values())
batch = processor(text=[processor.format_prompt("say it")] * len(audio), audio=audio)
with torch.inference_mode():
    logits = model(**batch).logits
    tokens = model.generate(**batch, max_new_tokens=5, do_sample=False)
assert model.decoder.lm_head.weight is model.decoder.model.embed_tokens.weight
other = AutoModel.from_pretrained(folder, trust_remote_code=True)
assert type(other) is type(model)
assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())
torch.save({"logits": logits, "tokens": tokens}, out)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("merged")
    model, processor = tiny("whisper", "qwen2", "mlp")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, model, processor


def test_a_merged_folder_loads_in_a_process_without_shoal(saved, verifications, tmp_path, monkeypatch):
    import numpy as np

    folder, model, processor = saved
    audio = clips(0.5, 2.3, 1.0)
    np.savez(tmp_path / "audio.npz", *audio)
    (tmp_path / "load.py").write_text(LOADER)
    monkeypatch.chdir(tmp_path)
    arguments = [str(folder), "audio.npz", "out.pt"]
    if verifications is None:
        environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-I", "load.py", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    else:
        printed = tmp_path / "printed.txt"
        script = partial(run_apart, str(tmp_path / "modules"), "load.py", arguments)
        assert verifications.run(script, printed) == 0, printed.read_text()
    given = torch.load(tmp_path / "out.pt")
    batch = processor(text=[processor.format_prompt("say it")] * 3, audio=audio)
    with torch.inference_mode():
        torch.testing.assert_close(given["logits"], model(**batch).logits, atol=1e-5, rtol=0)
        assert torch.equal(given["tokens"], model.generate(**batch, max_new_tokens=5, do_sample=False))


def test_the_folder_holds_the_code_and_tied_weights_once(saved):
    folder, _, _ = saved
    assert (folder / "speech_llm.py").is_file()
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "speech_llm.SpeechLLMConfig",
        "AutoModel": "speech_llm.SpeechLLM",
        "AutoModelForCausalLM": "speech_llm.SpeechLLM",
    }
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert "decoder.lm_head.weight" not in file.keys()  # noqa: SIM118
        assert not [name for name in file.keys() if "encoder.decoder" in name]  # noqa: SIM118


def test_untied_heads_are_saved(tmp_path):
    model, _ = tiny(tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    again = SpeechLLM.from_pretrained(tmp_path)
    assert not torch.equal(again.decoder.lm_head.weight, again.get_input_embeddings().weight)
    assert torch.equal(again.decoder.lm_head.weight, model.decoder.lm_head.weight)


def test_loading_here_needs_no_remote_code_and_asks_for_attention_where_it_is_wanted(saved):
    folder, model, processor = saved
    again = SpeechLLM.from_pretrained(folder, attn_implementation="eager")
    assert again.decoder.config._attn_implementation == again.encoder.config._attn_implementation == "eager"
    assert again.state_dict().keys() == model.state_dict().keys()
    processor_again = SpeechLLMProcessor.from_pretrained(folder)
    assert processor_again.to_dict() | {"auto_map": processor.auto_map} == processor.to_dict()


def test_a_waveform_encoder_saves_too(tmp_path):
    model, processor = tiny("wavlm", "gemma3_text", "conv")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, audio = SpeechLLM.from_pretrained(tmp_path), clips(0.5, 0.3)
    with torch.inference_mode():
        batch = SpeechLLMProcessor.from_pretrained(tmp_path)(text=[processor.format_prompt("x")] * 2, audio=audio)
        torch.testing.assert_close(again(**batch).logits, model(**batch).logits)


def test_auto_model_loads_it_where_shoal_is_installed(saved):
    folder, model, _ = saved
    loaded = AutoModel.from_pretrained(folder)
    assert type(loaded) is SpeechLLM
    assert torch.equal(loaded.projector.output.weight, model.projector.output.weight)
