"""The adapter that lies beside the weights of some Granite Speech checkpoints."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from shoal.errors import ModelError
from shoal.models.families.granite_speech import FAMILY, SYSTEM
from shoal.models.loading import load_model
from shoal.pruning.from_folder import prune_folder
from shoal.pruning.in_memory import pruned
from shoal.pruning.on_disk import prune
from shoal.selection import manual
from tiny_audio import BUILDS

IDS = torch.randint(6, 200, (1, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def adapted(tmp_path):
    """A checkpoint folder as IBM's are, and the logits of the model with its adapter."""
    build, folder = BUILDS["GraniteSpeechForConditionalGeneration"], tmp_path / "adapted"
    model = build.build(build.depth)
    model.config.has_lora_adapter = True
    model.save_pretrained(folder)
    build.processor().save_pretrained(folder)
    torch.manual_seed(0)
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    model.eval()
    # Past the override of the class, which writes the model again, with the adapter's names in it.
    PreTrainedModel.save_pretrained(model, folder)
    with torch.no_grad():
        return folder, model(input_ids=IDS).logits


def load(folder):
    return load_model(str(folder), device="cpu", dtype="float32", trust_remote_code=False)


def logits(folder):
    with torch.no_grad():
        return load(folder).model(input_ids=IDS).logits


def test_the_adapter_is_merged(adapted):
    folder, expected = adapted
    model = load(folder).model
    assert torch.allclose(logits(folder), expected, atol=1e-5)
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert not model.config.has_lora_adapter


def test_keys_of_older_versions_are_understood(adapted):
    folder, expected = adapted
    weights = load_file(folder / "adapter_model.safetensors")
    old = {
        name.replace("model.language_model.layers", "language_model.model.layers"): tensor
        for name, tensor in weights.items()
    }
    assert old.keys() != weights.keys()
    save_file(old, folder / "adapter_model.safetensors")
    assert torch.allclose(logits(folder), expected, atol=1e-5)


def test_a_pruned_checkpoint_has_it_in_its_weights(adapted, tmp_path):
    loaded = load(adapted[0])
    out = prune(loaded, manual(loaded.ref, 6, [1, 3]), tmp_path / "out")
    assert not list(out.glob("adapter_*"))
    assert len(load(out).layers) == 4


def test_weights_that_the_stock_loader_would_not_miss_are_missed(adapted):
    folder, _ = adapted
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("layers.2.self_attn.q_proj.weight"))
    save_file({key: value for key, value in weights.items() if key != name}, path, {"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing.*q_proj"):
        load(folder)


@pytest.mark.parametrize("change", ["less", "more"])
def test_an_adapter_that_does_not_fit_is_refused(adapted, change):
    folder, _ = adapted
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    name = sorted(weights)[0]
    if change == "less":
        del weights[name]
    else:
        weights[name.replace("layers.0", "layers.9")] = weights[name].clone()
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ModelError, match="adapter beside its weights"):
        load(folder)


def test_a_template_that_writes_the_date_gets_the_model_cards_system_prompt():
    processor = BUILDS["GraniteSpeechForConditionalGeneration"].processor()
    assert SYSTEM not in FAMILY.prompt(processor, "Transcribe.")
    processor.chat_template += "{% if false %}{{ strftime_now('%Y') }}{% endif %}"
    assert SYSTEM in FAMILY.prompt(processor, "Transcribe.")


def test_pruned_on_disk_it_stays_beside_the_weights(adapted, tmp_path):
    loaded = load(adapted[0])
    removed = [1, 3]
    out = prune_folder(loaded.ref, manual(loaded.ref, 6, removed), tmp_path / "out")
    assert (out / "adapter_model.safetensors").is_file()
    with pruned(loaded.model, removed, family=loaded.family) as model, torch.no_grad():
        assert torch.allclose(logits(out), model(input_ids=IDS).logits, atol=1e-5)
