"""Pruning on disk: the same checkpoint that pruning in memory gives, without a tensor in memory."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from speech_llm_parts import clips
from speech_llm_parts import tiny as tiny_speech_llm
from transformers import AutoModelForCausalLM

from checkpoint_tensors import changed_tensors
from shoal import machine
from shoal.errors import InputError, ModelError, PlanError, UsageError, VerificationError
from shoal.models.families import causal_lm, fields
from shoal.models.lineage import removed_layers
from shoal.pruning import sharded
from shoal.pruning.in_memory import prune_in_place
from shoal.pruning.resumable import resumable_folder
from shoal.pruning.sharded import write_sharded
from shoal.schema import Plan, Provenance
from tiny_models import COMMON, prompts, tiny

REMOVED = [0, 2, 3]


def plan(layers: list[int], depth: int = 6) -> Plan:
    return Plan(provenance=Provenance(shoal="0"), model_ref="tiny", depth=depth, layers=layers, allow_last=True)


def saved(model, folder: Path, size: str = "1GB") -> Path:
    model.save_pretrained(folder, max_shard_size=size)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rename(folder: Path, change) -> None:
    """Give every tensor of a one-file checkpoint another name; None drops it."""
    tensors = load_file(folder / "model.safetensors")
    changed = {new: value for name, value in tensors.items() if (new := change(name)) is not None}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})


def assert_like_in_memory(out: Path, model, layers: list[int], inputs) -> None:
    """`out` loads whole by the class of `model`, and is what pruning `model` in memory gives."""
    prune_in_place(model, layers)
    again, report = type(model).from_pretrained(out, output_loading_info=True)
    assert {kind: keys for kind, keys in report.items() if keys} == {}
    here, there = again.state_dict(), model.state_dict()
    assert here.keys() == there.keys()
    assert [name for name in here if not torch.equal(here[name], there[name])] == []
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits, rtol=0, atol=0)


@pytest.mark.parametrize("size", ["20KB", "1GB"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3_moe", "gpt2", "gpt_neo", "opt", "deepseek_v3"])
def test_it_is_what_pruning_in_memory_gives(tmp_path, name, size):
    model = tiny(name)
    source = saved(model, tmp_path / "source", size)
    out = write_sharded(source, plan(REMOVED), tmp_path / "out", ref="some/model")
    assert_like_in_memory(out, model, REMOVED, prompts())
    assert changed_tensors(out) == []
    assert names(tmp_path) == {"source", "out"}
    assert (len(list(source.glob("*.safetensors"))) > 1) == (size == "20KB")
    assert ("model.safetensors.index.json" in names(out)) == (size == "20KB")


def test_an_index_is_right_and_empty_shards_are_left_out(tmp_path):
    source = saved(tiny("llama"), tmp_path / "source", "20KB")
    before = json.loads((source / "model.safetensors.index.json").read_text())
    out = write_sharded(source, plan(REMOVED), tmp_path / "out", ref="tiny")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in out.glob("model-*.safetensors"))
    assert len(files) < len(list(source.glob("*.safetensors")))
    assert files == [f"model-{n + 1:05d}-of-{len(files):05d}.safetensors" for n in range(len(files))]
    there = {name: file for file in files for name in load_file(out / file)}
    sizes = [value.nbytes for file in files for value in load_file(out / file).values()]
    assert index["weight_map"] == there
    assert index["metadata"]["total_size"] == sum(sizes)
    again = AutoModelForCausalLM.from_pretrained(out)
    assert index["metadata"].get("total_parameters") == again.num_parameters() or (
        "total_parameters" not in before["metadata"]
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("both_on_disk", [True, False])
def test_tied_weights_stay_as_they_are_on_disk(tmp_path, tied, both_on_disk):
    config = transformers.LlamaConfig(**COMMON, num_hidden_layers=6, tie_word_embeddings=tied)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    source = saved(model, tmp_path / "source")
    if tied and both_on_disk:
        tensors = load_file(source / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    out = write_sharded(source, plan(REMOVED), tmp_path / "out", ref="tiny")
    assert ("lm_head.weight" in load_file(out / "model.safetensors")) == (not tied or both_on_disk)
    assert_like_in_memory(out, model, REMOVED, prompts())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_copied(tmp_path, dtype):
    model = tiny("gemma3").to(dtype)
    out = write_sharded(saved(model, tmp_path / "source"), plan([1]), tmp_path / "out", ref="tiny")
    assert {value.dtype for value in load_file(out / "model.safetensors").values()} == {dtype}


def test_experts_have_names_of_their_own_on_disk(tmp_path):
    source = saved(tiny("qwen3_moe"), tmp_path / "source")
    assert any(".experts.0." in name for name in load_file(source / "model.safetensors"))


def qwen2_audio(depth: int = 6):
    encoder = {"d_model": 16, "encoder_layers": 4, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    text = {**COMMON, "model_type": "qwen2", "num_hidden_layers": depth}
    config = transformers.Qwen2AudioConfig(
        audio_config={**encoder, "model_type": "qwen2_audio_encoder", "max_source_positions": 50},
        text_config=text,
        audio_token_index=98,
    )
    torch.manual_seed(0)
    return transformers.Qwen2AudioForConditionalGeneration(config).eval()


def old_name(name: str) -> str:
    name = name.replace("model.language_model.", "language_model.model.")
    return re.sub(r"^lm_head", "language_model.lm_head", name).removeprefix("model.")


@pytest.mark.parametrize("layout", ["new", "old"])
def test_old_and_new_names_of_a_speech_llm(tmp_path, layout):
    model = qwen2_audio()
    source = saved(model, tmp_path / "source")
    disk = {old_name(name) if layout == "old" else name: value for name, value in model.state_dict().items()}
    save_file(disk, source / "model.safetensors", metadata={"format": "pt"})
    before = load_file(source / "model.safetensors")
    out = write_sharded(source, plan(REMOVED), tmp_path / "out", ref="tiny")
    after = load_file(out / "model.safetensors")
    prefix = "language_model.model.layers" if layout == "old" else "model.language_model.layers"
    assert {int(name.split(".")[3]) for name in after if name.startswith(prefix)} == {0, 1, 2}
    encoder = {name for name in before if "audio_tower.layers." in name}
    assert len(encoder) > 4
    assert all(torch.equal(after[name], before[name]) for name in encoder)
    assert_like_in_memory(out, model, REMOVED, prompts())


def test_names_without_the_prefix_of_the_base_model(tmp_path):
    model = tiny("gpt2")
    source = saved(model, tmp_path / "source")
    rename(source, lambda name: name.removeprefix("transformer."))
    out = write_sharded(source, plan(REMOVED), tmp_path / "out", ref="tiny")
    assert "h.2.ln_1.weight" in load_file(out / "model.safetensors")
    assert_like_in_memory(out, model, REMOVED, prompts())


def test_what_transformers_ignores_follows_its_layer(tmp_path):
    model = tiny("llama")
    source = saved(model, tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors |= {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.tensor([float(n)]) for n in range(6)}
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    out = write_sharded(source, plan(REMOVED), tmp_path / "out", ref="tiny")
    after = load_file(out / "model.safetensors")
    found = {name: value.item() for name, value in after.items() if "inv_freq" in name}
    assert found == {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": old for n, old in enumerate([1, 4, 5])}
    assert_like_in_memory(out, model, REMOVED, prompts())


def test_what_lies_beyond_the_last_layer_is_left_alone(tmp_path):
    model = tiny("deepseek_v3")
    source = saved(model, tmp_path / "source")
    beyond = {"model.layers.61.eh_proj.weight": torch.ones(2)}
    tensors = load_file(source / "model.safetensors") | beyond
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    out = write_sharded(source, plan(REMOVED), tmp_path / "out", ref="tiny")
    assert beyond.keys() <= load_file(out / "model.safetensors").keys()
    assert_like_in_memory(out, model, REMOVED, prompts())


def test_the_generation_config_follows(tmp_path, monkeypatch):
    def follow(self, config, depth, keep):
        return {"alignment_heads": [[keep.index(layer), head] for layer, head in config.alignment_heads]}

    monkeypatch.setattr(causal_lm.CausalLM, "generation_fields", follow)
    source = saved(tiny("llama"), tmp_path / "source")
    before = {"bos_token_id": 1, "alignment_heads": [[1, 3], [5, 0]], "note": "kept"}
    (source / "generation_config.json").write_text(json.dumps(before))
    out = write_sharded(source, plan(REMOVED), tmp_path / "out", ref="tiny")
    after = json.loads((out / "generation_config.json").read_text())
    assert after == before | {"alignment_heads": [[0, 3], [2, 0]]}


def test_a_merged_speech_llm(tmp_path):
    model, processor = tiny_speech_llm("whisper", "gemma3_text")
    source = saved(model, tmp_path / "source")
    processor.save_pretrained(source)
    out = write_sharded(source, plan([1, 2], depth=4), tmp_path / "out", ref="tiny")
    assert names(out) >= names(source) - {"README.md"}
    prune_in_place(model, [1, 2])
    again = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True).eval()
    inputs = processor(text=processor.format_prompt("Transcribe."), audio=clips(1.2))
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits, rtol=0, atol=0)


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM
class MineConfig(LlamaConfig):
    model_type = "mine"
class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig
"""


def test_code_of_its_own_must_be_trusted(tmp_path):
    model = tiny("llama")
    source = saved(model, tmp_path / "source")
    (source / "mine.py").write_text(CODE)
    code = {"AutoConfig": "mine.MineConfig", "AutoModelForCausalLM": "mine.MineForCausalLM"}
    edit(source / "config.json", model_type="mine", architectures=["MineForCausalLM"], auto_map=code)
    with pytest.raises(ModelError, match="--trust-remote-code"):
        write_sharded(source, plan(REMOVED), tmp_path / "out", ref="tiny")
    out = write_sharded(source, plan(REMOVED), tmp_path / "out", ref="tiny", trust_remote_code=True)
    assert "mine.py" in names(out)
    assert_like_in_memory(out, model, REMOVED, prompts())


def test_a_part_for_each_layer_in_one_tensor_is_cut(tmp_path, monkeypatch):
    cuts = {"embed_tokens_per_layer.weight": 1, "per_layer_model_projection.weight": 0}
    monkeypatch.setattr(fields, "CANNOT_FOLLOW", frozenset())
    monkeypatch.setattr(causal_lm.CausalLM, "layered_tensors", lambda self, config: cuts)
    config = transformers.Gemma3nTextConfig(
        **COMMON | {"intermediate_size": [48] * 6},
        num_hidden_layers=6,
        head_dim=8,
        hidden_size_per_layer_input=4,
        vocab_size_per_layer_input=99,
        num_kv_shared_layers=0,
        laurel_rank=4,
        layer_types=["sliding_attention", "full_attention"] * 3,
        activation_sparsity_pattern=[0.0] * 6,
    )
    torch.manual_seed(0)
    model = transformers.Gemma3nForCausalLM(config).eval()
    out = write_sharded(saved(model, tmp_path / "source"), plan(REMOVED), tmp_path / "out", ref="tiny")
    assert load_file(out / "model.safetensors")["model.embed_tokens_per_layer.weight"].shape == (99, 12)
    assert_like_in_memory(out, model, REMOVED, prompts())


def test_the_config_keeps_its_own_spelling_and_everything_else(tmp_path):
    source = saved(tiny("gpt2"), tmp_path / "source")
    edit(source / "config.json", some_note={"ö": [1, None]})
    before = json.loads((source / "config.json").read_text())
    out = write_sharded(source, plan(REMOVED), tmp_path / "out", ref="tiny")
    after = json.loads((out / "config.json").read_text())
    assert after == before | {"n_layer": 3}
    assert list(after) == list(before)


def test_a_field_left_to_its_default_is_added_where_the_default_would_change(tmp_path):
    model = tiny("qwen3")
    source = saved(model, tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    assert len(set(config.pop("layer_types"))) == 2
    (source / "config.json").write_text(json.dumps(config))
    out = write_sharded(source, plan([1]), tmp_path / "out", ref="tiny")
    after = json.loads((out / "config.json").read_text())
    assert after["layer_types"] == ["full_attention", *["sliding_attention"] * 4]
    assert_like_in_memory(out, model, [1], prompts())


@pytest.mark.parametrize("name", ["gemma2", "qwen3_moe", "gpt_neo", "smollm3", "deepseek_v3"])
def test_a_config_that_leaves_all_defaults_out(tmp_path, name):
    model = tiny(name)
    source = saved(model, tmp_path / "source")
    least = {"model_type": model.config.model_type, "architectures": [type(model).__name__]}
    (source / "config.json").write_text(json.dumps(model.config.to_diff_dict() | least))
    out = write_sharded(source, plan(REMOVED), tmp_path / "out", ref="tiny")
    assert_like_in_memory(out, model, REMOVED, prompts())


def test_layers_named_in_quantisation_settings_follow(tmp_path):
    source = saved(tiny("llama"), tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    for name in [name for name in tensors if name.endswith("q_proj.weight")]:
        stem = name.removesuffix("weight")
        tensors |= {stem + "qweight": tensors.pop(name).to(torch.int8), stem + "scales": torch.ones(2)}
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    quantised = {"quant_method": "gptq", "bits": 4, "modules_to_not_convert": ["lm_head"]}
    quantised["modules_to_not_convert"] += ["model.layers.0.mlp", "model.layers.4.mlp"]
    edit(source / "config.json", quantization_config=quantised)
    out = write_sharded(source, plan(REMOVED), tmp_path / "out", ref="tiny")
    after = json.loads((out / "config.json").read_text())["quantization_config"]
    assert after["modules_to_not_convert"] == ["lm_head", "model.layers.1.mlp"]
    packed = load_file(out / "model.safetensors")
    new, old = (f"model.layers.{n}.self_attn.q_proj.qweight" for n in (1, 4))
    assert torch.equal(packed[new], tensors[old])
    assert sum("qweight" in name for name in packed) == 3


def with_adapter(folder: Path, root: Path, **options) -> PeftModel:
    """A low-rank adapter of the checkpoint in `root`, saved to `folder`."""
    base = AutoModelForCausalLM.from_pretrained(root)
    torch.manual_seed(1)
    settings = LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj", "v_proj"], **options)
    adapted = get_peft_model(base, settings).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(folder)
    return adapted


@pytest.mark.parametrize("place", [".", "speech-lora"])
def test_adapters_follow(tmp_path, place):
    source = saved(tiny("llama"), tmp_path / "source")
    adapted = with_adapter(
        source / place,
        source,
        layers_to_transform=[0, 1, 4],
        rank_pattern={"layers.1.self_attn.q_proj": 3, "model.layers.0.self_attn.v_proj": 4},
        alpha_pattern={r"^model\.layers\.4\.self_attn\.q_proj": 7},
    )
    out = write_sharded(source, plan(REMOVED), tmp_path / "out", ref="tiny")
    config = json.loads((out / place / "adapter_config.json").read_text())
    assert config["layers_to_transform"] == [0, 1]
    assert config["rank_pattern"] == {"layers.0.self_attn.q_proj": 3}
    assert config["alpha_pattern"] == {r"^model\.layers\.1\.self_attn\.q_proj": 7}
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "model.safetensors"):
        (base / name).write_bytes((out / name).read_bytes())
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out / place).eval()
    merged = prune_in_place(adapted.merge_and_unload(), REMOVED)
    with torch.no_grad():
        torch.testing.assert_close(again(**prompts()).logits, merged(**prompts()).logits)


@pytest.mark.parametrize("path", ["language_model.model.layers", "model.language_model.layers", "model.layers"])
def test_an_adapter_under_any_name_of_its_modules(tmp_path, path):
    """As of an older transformers, of this one, and of the language model alone."""
    source = saved(qwen2_audio(), tmp_path / "source")
    stem = "base_model.model."
    encoder = f"{stem}audio_tower.layers.3.self_attn.q_proj.lora_A.weight"
    tensors = {f"{stem}{path}.{n}.self_attn.q_proj.lora_A.weight": torch.tensor([float(n)]) for n in range(6)}
    (source / "speech").mkdir()
    save_file(tensors | {encoder: torch.ones(1)}, source / "speech" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "target_modules": r".*layers\.\d+\.self_attn\.q_proj"}
    (source / "speech" / "adapter_config.json").write_text(json.dumps(settings))
    out = write_sharded(source, plan(REMOVED), tmp_path / "out", ref="tiny")
    found = load_file(out / "speech" / "adapter_model.safetensors")
    assert found.pop(encoder) == 1
    kept = {f"{stem}{path}.{n}.self_attn.q_proj.lora_A.weight": old for n, old in enumerate([1, 4, 5])}
    assert {name: value.item() for name, value in found.items()} == kept
    assert json.loads((out / "speech" / "adapter_config.json").read_text()) == settings
    save_file(
        {f"{stem}model.blocks.0.q.lora_A.weight": torch.ones(1)},
        source / "speech" / "adapter_model.safetensors",
    )
    with pytest.raises(ModelError, match="not a module of the model"):
        write_sharded(source, plan(REMOVED), tmp_path / "other", ref="tiny")


def test_an_adapter_that_cannot_follow_is_refused(tmp_path):
    source = saved(tiny("llama"), tmp_path / "source")
    with_adapter(source, source, layers_to_transform=[0, 1, 4], rank_pattern={r"layers\.[14]\..*q_proj": 3})
    with pytest.raises(ModelError, match="cannot be renumbered"):
        write_sharded(source, plan([2]), tmp_path / "out", ref="tiny")
    edit(source / "adapter_config.json", rank_pattern={})
    with pytest.raises(ModelError, match="every layer it adapts"):
        write_sharded(source, plan([0, 1, 4]), tmp_path / "out", ref="tiny")
    assert names(tmp_path) == {"source"}


def test_what_lies_beside_the_weights(tmp_path):
    source = saved(tiny("llama"), tmp_path / "source")
    texts = (
        "LICENSE",
        "chat_template.jinja",
        "spk_dict.pt",
        "processor/vocab.txt",
        "vocoder/config.json",
        "README.md",
    )
    weights = ("pytorch_model.bin", "consolidated.safetensors", "onnx/model.onnx", "vocoder/v.safetensors")
    for name in (*texts, *weights, "checkpoint-5/adapter_config.json", ".git/config"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("{}" if name.endswith(".json") else name)
    (source / "checkpoint-5" / "config.json").write_text((source / "config.json").read_text())
    out = write_sharded(source, plan([1]), tmp_path / "out", ref="some/model", licence="MIT")
    assert names(out) >= {
        "LICENSE",
        "chat_template.jinja",
        "spk_dict.pt",
        "generation_config.json",
        "shoal-plan.json",
    }
    assert not names(out) & {"pytorch_model.bin", "consolidated.safetensors", "onnx", "checkpoint-5", ".git"}
    assert (out / "processor" / "vocab.txt").read_text() == "processor/vocab.txt"
    assert names(out / "vocoder") == {"config.json", "v.safetensors"}
    assert not [name for name in names(out) if name.startswith(".")]
    for text in ("base_model: some/model", "license: mit", "without verification"):
        assert text in (out / "README.md").read_text()
    assert not (out / "checkpoint-5").exists()
    (source / "mystery").mkdir()
    (source / "mystery" / "x.safetensors").write_text("")
    with pytest.raises(ModelError, match="nothing says of what"):
        write_sharded(source, plan([1]), tmp_path / "other", ref="tiny")


def test_pruning_twice_keeps_both_plans(tmp_path):
    source = saved(tiny("llama"), tmp_path / "source")
    first = write_sharded(source, plan([1, 3]), tmp_path / "first", ref="tiny")
    second = write_sharded(first, plan([1], depth=4), tmp_path / "second", ref="tiny")
    assert removed_layers(second) == [1, 2, 3]
    assert names(second) >= {"shoal-plan.json", "shoal-plan-1.json"}


def test_verification_sees_the_folder_and_decides(tmp_path):
    source = saved(tiny("llama"), tmp_path / "source")
    seen = []

    def verify(folder: Path) -> None:
        seen.append(names(folder) >= {"model.safetensors", "shoal-tensors.json"})
        (folder / "shoal-verification.json").write_text("{}")

    out = write_sharded(source, plan([1]), tmp_path / "out", ref="tiny", verify=verify)
    assert seen == [True]
    assert "shoal-verification.json" in names(out)

    def refuse(folder: Path) -> None:
        raise VerificationError("no")

    with pytest.raises(VerificationError):
        write_sharded(source, plan([1]), tmp_path / "other", ref="tiny", verify=refuse)
    assert names(tmp_path) == {"source", "out"}


def test_a_changed_tensor_is_found_later(tmp_path):
    out = write_sharded(saved(tiny("llama"), tmp_path / "s"), plan([1]), tmp_path / "out", ref="tiny")
    with (out / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    assert len(changed_tensors(out)) == 1


# Interruptions


def interrupted(source: Path, out: Path, layers: list[int], after: int, monkeypatch) -> None:
    """Run until `after` files are written, and fail in the next."""
    real, written = sharded.write_file, []

    def write_file(new, target, progress):
        if len(written) == after:
            target.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        written.append(new.name)
        return real(new, target, progress)

    with monkeypatch.context() as patch:
        patch.setattr(sharded, "write_file", write_file)
        with pytest.raises(InputError, match="disk is full"):
            write_sharded(source, plan(layers), out, ref="tiny")


def written_by(source: Path, out: Path, layers: list[int], monkeypatch) -> int:
    real, written = sharded.write_file, []
    with monkeypatch.context() as patch:
        patch.setattr(sharded, "write_file", lambda new, *rest: written.append(1) or real(new, *rest))
        write_sharded(source, plan(layers), out, ref="tiny")
    return len(written)


def test_the_same_command_goes_on_and_another_starts_afresh(tmp_path, monkeypatch):
    model = tiny("llama")
    source = saved(model, tmp_path / "source", "20KB")
    total = written_by(source, tmp_path / "whole", REMOVED, monkeypatch)
    out = tmp_path / "out"
    interrupted(source, out, REMOVED, 3, monkeypatch)
    assert not out.exists()
    assert not list((tmp_path / ".out.shoal-part").glob("*.part"))
    assert written_by(source, out, REMOVED, monkeypatch) == total - 3
    assert_like_in_memory(out, model, REMOVED, prompts())
    assert changed_tensors(out) == []
    other = tmp_path / "other"
    interrupted(source, other, REMOVED, 3, monkeypatch)
    assert written_by(source, other, [1, 2, 4], monkeypatch) == len(list(other.glob("*.safetensors")))
    interrupted(source, tmp_path / "third", REMOVED, 3, monkeypatch)
    os.utime(source / "model-00001-of-00012.safetensors", (1, 1))
    assert written_by(source, tmp_path / "third", REMOVED, monkeypatch) == total
    assert names(tmp_path) == {"source", "whole", "out", "other", "third"}


def killed(source: Path, out: Path, layers: list[int], after: int) -> int:
    """The exit status of a process that is killed (SIGKILL) while it writes a file after the first `after`."""
    if not (child := os.fork()):  # as quick as a test must be; a fresh process would take seconds to import
        seen: set[str] = set()

        def progress(name: str, done: int, total: int) -> None:
            seen.add(name)
            if len(seen) > after:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            write_sharded(source, plan(layers), out, ref="tiny", progress=progress)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_killed_run_leaves_no_name_and_is_taken_up(tmp_path, monkeypatch):
    model = tiny("gemma3")
    source, out = saved(model, tmp_path / "source", "20KB"), tmp_path / "out"
    total = written_by(source, tmp_path / "whole", REMOVED, monkeypatch)
    assert killed(source, out, REMOVED, after=2) == -signal.SIGKILL
    assert not out.exists()
    assert written_by(source, out, REMOVED, monkeypatch) == total - 2
    assert_like_in_memory(out, model, REMOVED, prompts())
    assert names(tmp_path) == {"source", "whole", "out"}


def test_two_runs_at_a_time_are_kept_apart(tmp_path):
    source, out = saved(tiny("llama"), tmp_path / "source"), tmp_path / "out"
    with resumable_folder(out, "other", lambda: None), pytest.raises(UsageError, match="another run"):
        write_sharded(source, plan([1]), out, ref="tiny")
    assert names(tmp_path) == {"source", "out"}


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path):
    source, out = saved(tiny("llama"), tmp_path / "source"), tmp_path / "out"

    def meanwhile(folder: Path) -> None:
        out.mkdir()
        (out / "mine").write_text("")

    with pytest.raises(UsageError, match="not empty"):
        write_sharded(source, plan([1]), out, ref="tiny", verify=meanwhile)
    assert names(out) == {"mine"}


def test_targets_and_plans_are_checked_first(tmp_path, monkeypatch):
    source, out = saved(tiny("llama"), tmp_path / "source"), tmp_path / "out"
    with pytest.raises(UsageError, match="own folder"):
        write_sharded(source, plan([1]), source, ref="tiny", force=True)
    with pytest.raises(PlanError, match="8 layers"):
        write_sharded(source, plan([1], depth=8), out, ref="tiny")
    with monkeypatch.context() as patch:
        patch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(InputError, match="are needed"):
            write_sharded(source, plan([1]), out, ref="tiny")
    assert names(tmp_path) == {"source"}
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        write_sharded(source, plan([1]), out, ref="tiny")
    write_sharded(source, plan([1]), out, ref="tiny", force=True)
    assert "mine.txt" not in names(out)


# Bad input


def header(change):
    """Rewrite the header of the only file as text."""

    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        text = change(data[8 : 8 + length].decode()).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])

    return damage


def cut_short(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 10)


def without(part: str):
    return lambda folder: rename(folder, lambda name: None if part in name else name)


def other_format(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def unknown(folder: Path) -> None:
    rename(folder, lambda name: name.replace("layers.5.mlp.up_proj", "layers.5.mlp.other"))


DAMAGE = {
    "cut short": (cut_short, "shorter than its header says"),
    "longer": (
        lambda folder: (folder / "model.safetensors").open("ab").write(b"x"),
        "longer than its header",
    ),
    "empty": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "header should be"),
    "long header": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 64),
        "header should be",
    ),
    "not json": (header(lambda text: text[:-9]), "not JSON"),
    "not an object": (header(lambda text: "[1, 2]"), "not a JSON object"),
    "twice": (header(lambda text: text.replace("layers.0.", "layers.1.")), "twice"),
    "wrong shape": (header(lambda text: text.replace('"shape":[32]', '"shape":[31]')), "cannot have"),
    "no offsets": (header(lambda text: text.replace("data_offsets", "offsets")), "does not say where"),
    "no layer": (without("layers.3."), "weights of its model are missing, such as model.layers.3"),
    "no norm": (without("model.norm"), "missing, such as model.norm.weight"),
    "unknown": (unknown, "not of its model, such as model.layers.5.mlp.other"),
    "depth": (
        lambda folder: edit(folder / "config.json", num_hidden_layers=7),
        "missing, such as model.layers.6",
    ),
    "width": (lambda folder: edit(folder / "config.json", intermediate_size=40), "has shape"),
    "class": (lambda folder: edit(folder / "config.json", architectures=["Nobody"]), "no class 'Nobody'"),
    "other format": (other_format, "only pytorch_model.bin"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "cannot be read"),
    "config": (lambda folder: (folder / "config.json").write_text("{"), "not JSON"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_one_line_and_writes_nothing(tmp_path, damage):
    source = saved(tiny("llama"), tmp_path / "source")
    make, message = DAMAGE[damage]
    make(source)
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        write_sharded(source, plan([1], depth=7 if damage == "depth" else 6), tmp_path / "out", ref="tiny")
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == {"source"}


def missing_shard(folder: Path) -> None:
    (folder / "model-00003-of-00012.safetensors").unlink()


def wrong_place(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = "model-00001-of-00012.safetensors"
    path.write_text(json.dumps(index))


def in_two_shards(folder: Path) -> None:
    tensors = load_file(folder / "model-00001-of-00012.safetensors")
    more = {"model.norm.weight": torch.ones(32)}
    save_file(tensors | more, folder / "model-00001-of-00012.safetensors", metadata={"format": "pt"})


def outside(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    path.write_text(path.read_text().replace("model-00003", "../model-00003"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing_shard, "not in the folder"),
        (wrong_place, "where it is not"),
        (in_two_shards, "is in model-00001-of-00012.safetensors and in"),
        (outside, "not in the folder"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "no weight_map"),
    ],
)
def test_a_damaged_index_is_one_line_and_writes_nothing(tmp_path, damage, message):
    source = saved(tiny("llama"), tmp_path / "source", "20KB")
    damage(source)
    with pytest.raises(ModelError, match=message):
        write_sharded(source, plan([1]), tmp_path / "out", ref="tiny")
    assert names(tmp_path) == {"source"}


# Memory


def high_water() -> int:
    """The most memory the process has had since it was last reset, bytes."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) * 1024


def test_a_large_tensor_does_not_pass_through_memory(tmp_path):
    source = saved(tiny("llama"), tmp_path / "source")
    rows = 1_600_000
    edit(source / "config.json", vocab_size=rows, tie_word_embeddings=True)
    rename(source, lambda name: None if name in ("lm_head.weight", "model.embed_tokens.weight") else name)
    large = {"dtype": "F32", "shape": [rows, 32], "data_offsets": [0, rows * 128]}
    text = json.dumps({"model.embed_tokens.weight": large}).encode()
    with (source / "more.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + rows * 128)
    (source / "model.safetensors").rename(source / "rest.safetensors")
    places = dict.fromkeys(load_file(source / "rest.safetensors"), "rest.safetensors")
    places["model.embed_tokens.weight"] = "more.safetensors"
    index = {"metadata": {}, "weight_map": places}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("the high-water mark cannot be reset here")
    before = high_water()
    write_sharded(source, plan([1]), tmp_path / "out", ref="tiny")
    assert high_water() - before < 100 * 2**20
