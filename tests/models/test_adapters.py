"""Adapters only: round trip, merged against unmerged, and files that do not fit."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from speech_llm_parts import PROJECTORS, clips, encoder_config, feature_extractor, text_config, tokenizer
from transformers import AutoModel, AutoModelForCausalLM

from shoal.errors import FileFormatError, ModelError
from shoal.models import lora
from shoal.models.adapters import TENSORS_FILE, load_adapters, save_adapters
from shoal.models.build import build
from shoal.models.lineage import ADAPTERS_FILE
from shoal.models.speech_llm import SpeechLLM

TARGETS = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders of a tiny Whisper (encoder and decoder) and a tiny Llama, as they come from elsewhere."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bases")
    whisper = encoder_config("whisper")
    whisper.update({"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "vocab_size": 60})
    whisper.update({"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1})
    AutoModel.from_config(whisper).save_pretrained(folder / "whisper")
    feature_extractor("whisper").save_pretrained(folder / "whisper")
    words = tokenizer()
    AutoModelForCausalLM.from_config(text_config("llama", len(words))).save_pretrained(folder / "llama")
    words.save_pretrained(folder / "llama")
    return folder


@pytest.fixture
def trained(bases):
    """A SpeechLLM with random low-rank updates, and its processor."""
    torch.manual_seed(1)
    model, processor = build(
        str(bases / "whisper"),
        str(bases / "llama"),
        projector=PROJECTORS["mlp"],
        prompt_template="<|im_start|>{audio}\n{instruction}<|im_end|>",
        resolve=_as_folder,
    )
    updates = {}
    for layer in range(4):
        for target in TARGETS:
            name = f"model.layers.{layer}.{target}"
            out, width = model.decoder.get_submodule(name).weight.shape
            updates[name] = (torch.randn(3, width), 0.1 * torch.randn(out, 3))
    lora.add_updates(model.decoder, updates)
    return model.eval(), processor


def _as_folder(ref):
    from pathlib import Path

    return Path(ref)


def save(trained, bases, folder, **options):
    refs = {"encoder": str(bases / "whisper"), "decoder": str(bases / "llama")}
    return save_adapters(trained[0], folder, **refs, **options)


def load(folder, **options):
    return load_adapters(folder, resolve=_as_folder, **options)


@torch.inference_mode()
def logits(model, processor):
    batch = processor(text=[processor.format_prompt("say it")] * 3, audio=clips(0.5, 2.3, 1.0))
    return model(**batch).logits


def test_round_trip_unmerged_and_merged_give_the_same_logits(trained, bases, tmp_path):
    expected = logits(*trained)
    folder = save(trained, bases, tmp_path / "adapters", licence="CC0-1.0")
    unmerged, merged = load(folder, merge=False), load(folder)
    torch.testing.assert_close(logits(*unmerged), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(logits(*merged), expected, atol=1e-5, rtol=0)
    assert not list(lora.lora_layers(merged[0].decoder))
    assert len(list(lora.lora_layers(unmerged[0].decoder))) == 4 * len(TARGETS)


def test_the_updates_matter(trained, bases, tmp_path):
    before = logits(*trained)
    for _, layer in lora.lora_layers(trained[0].decoder):
        layer.lora_B["default"].weight.data.zero_()
    assert (logits(*trained) - before).abs().max() > 0.01


def test_merging_in_place_keeps_the_logits_and_takes_the_updates_out(trained):
    expected = logits(*trained)
    assert len(list(lora.lora_layers(trained[0].decoder))) == 4 * len(TARGETS)
    lora.merge(trained[0].decoder, "trained")
    torch.testing.assert_close(logits(*trained), expected, atol=1e-5, rtol=0)
    assert not list(lora.lora_layers(trained[0].decoder))


def test_only_adapters_train_after_injection(trained):
    names = [name for name, weight in trained[0].decoder.named_parameters() if weight.requires_grad]
    assert names
    assert all(".lora_" in name for name in names)


def test_scaling_is_folded_when_saved(trained, bases, tmp_path):
    expected = logits(*trained)
    for _, layer in lora.lora_layers(trained[0].decoder):
        layer.scaling["default"] = 4.0
        layer.lora_B["default"].weight.data /= 4
    spec = json.loads((save(trained, bases, tmp_path) / ADAPTERS_FILE).read_text())
    assert spec["lora"] == {"rank": 3, "alpha": 3.0, "targets": ["down_proj", "q_proj", "v_proj"]}
    torch.testing.assert_close(logits(*load(tmp_path)), expected, atol=1e-5, rtol=0)


def test_alpha_over_rank_scales_the_updates(trained, bases, tmp_path):
    save(trained, bases, tmp_path)
    spec = json.loads((tmp_path / ADAPTERS_FILE).read_text())
    spec["lora"]["alpha"] = 6
    (tmp_path / ADAPTERS_FILE).write_text(json.dumps(spec))
    for _, layer in lora.lora_layers(trained[0].decoder):
        layer.scaling["default"] = 2.0
    torch.testing.assert_close(logits(*load(tmp_path)), logits(*trained), atol=1e-5, rtol=0)


def test_compressed_adapters_are_small_and_close(trained, bases, tmp_path):
    save(trained, bases, tmp_path / "full")
    save(trained, bases, tmp_path / "small", compress=True)
    sizes = [sum(t.nbytes for t in load_file(tmp_path / each / TENSORS_FILE).values()) for each in ("full", "small")]
    assert sizes[1] < 0.4 * sizes[0]
    difference = (logits(*load(tmp_path / "small")) - logits(*trained)).abs().max()
    assert 0 < difference < 0.2


def test_a_model_without_updates_saves_its_projector(bases, tmp_path):
    model, processor = build(
        str(bases / "whisper"), str(bases / "llama"), projector=PROJECTORS["conv"], resolve=_as_folder
    )
    save((model, processor), bases, tmp_path)
    assert json.loads((tmp_path / ADAPTERS_FILE).read_text())["lora"] is None
    torch.testing.assert_close(logits(*load(tmp_path)), logits(model, processor))


def test_references_beside_the_adapters_are_found(trained, bases):
    refs = {"encoder": "../whisper", "decoder": "../llama"}
    save_adapters(trained[0], bases / "adapters", **refs)
    model, processor = load_adapters(bases / "adapters", resolve=_nowhere)
    torch.testing.assert_close(logits(model, processor), logits(*trained), atol=1e-5, rtol=0)


def _nowhere(ref):
    raise ModelError("not looked for here", where=ref)


def test_a_merged_checkpoint_saves_and_loads(trained, bases, tmp_path):
    model, processor = load(save(trained, bases, tmp_path / "adapters"))
    model.save_pretrained(tmp_path / "merged")
    again = SpeechLLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(again, processor), logits(model, processor), atol=1e-6, rtol=0)
    with pytest.raises(ModelError, match="folded into the decoder"):
        save((again, processor), bases, tmp_path / "again")


def test_saving_a_checkpoint_with_unmerged_updates_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match="unmerged LoRA"):
        trained[0].save_pretrained(tmp_path)


def test_lower_precision_merges_in_float32(trained, bases, tmp_path):
    save(trained, bases, tmp_path)
    exact, rounded = load(tmp_path)[0], load(tmp_path, dtype=torch.bfloat16)[0]
    name = "model.layers.1.mlp.down_proj"
    weights = [model.decoder.get_submodule(name).weight for model in (exact, rounded)]
    # Rounding the base and then the sum: two roundings of eight bits each, no more.
    torch.testing.assert_close(weights[1].float(), weights[0], rtol=2**-7, atol=2**-9)
    assert rounded.dtype == torch.bfloat16


def _drop(tensors, spec):
    tensors.pop(next(name for name in tensors if name.endswith("lora_B.weight")))


def _deeper(tensors, spec):
    for name in [name for name in tensors if name.startswith("model.layers.3.")]:
        tensors[name.replace(".3.", ".9.")] = tensors.pop(name)


def _wider(tensors, spec):
    name = next(name for name in tensors if name.endswith("q_proj.lora_A.weight"))
    tensors[name] = torch.zeros(3, 7)


def _no_projector(tensors, spec):
    tensors.pop("projector.output.bias")


def _another_depth(tensors, spec):
    assert spec["decoder_layers"] == 4
    spec["decoder_layers"] = 3


def _other_weights(tensors, spec):
    assert len(spec["decoder_fingerprint"]) == 64
    spec["decoder_fingerprint"] = 64 * "0"


def _no_lora(tensors, spec):
    spec["lora"] = None


def _strange_projector(tensors, spec):
    spec["projector"]["type"] = "qformer"


def test_the_base_is_known_in_whichever_precision_it_is_loaded(trained, bases, tmp_path):
    folder = save(trained, bases, tmp_path)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for merge in (True, False):
            load(folder, dtype=dtype, merge=merge)
    # Of the same shape, with other weights.
    decoder = AutoModelForCausalLM.from_pretrained(bases / "llama")
    torch.nn.init.normal_(decoder.model.layers[2].mlp.down_proj.weight)
    for source in (bases / "llama").iterdir():
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / source.name).write_bytes(source.read_bytes())
    decoder.save_pretrained(tmp_path / "other")
    spec = json.loads((folder / ADAPTERS_FILE).read_text())
    (folder / ADAPTERS_FILE).write_text(json.dumps(spec | {"decoder": str(tmp_path / "other")}))
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(ModelError, match="trained on other weights"):
            load(folder, dtype=dtype)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, "do not make a pair"),
        (_deeper, "no such layer"),
        (_wider, "does not fit this layer"),
        (_no_projector, r"output\.bias"),
        (_another_depth, "trained on a decoder of 3 layers, and .*llama has 4; name the decoder"),
        (_other_weights, "trained on other weights than those of .*llama; name the decoder"),
        (_no_lora, "no `lora`"),
        (_strange_projector, "unknown projector 'qformer'"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_in_one_line(trained, bases, tmp_path, change, message):
    save(trained, bases, tmp_path)
    tensors, spec = load_file(tmp_path / TENSORS_FILE), json.loads((tmp_path / ADAPTERS_FILE).read_text())
    change(tensors, spec)
    save_file(tensors, tmp_path / TENSORS_FILE)
    (tmp_path / ADAPTERS_FILE).write_text(json.dumps(spec))
    for merge in (True, False):
        with pytest.raises(ModelError, match=message) as caught:
            load(tmp_path, merge=merge)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [ADAPTERS_FILE, TENSORS_FILE])
@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_missing_and_broken_files_are_refused(trained, bases, tmp_path, name, content):
    save(trained, bases, tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=name) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_build_decodes_greedily_and_asks_as_the_decoder_is_used_to(bases, tmp_path):
    import shutil

    shutil.copytree(bases / "llama", tmp_path / "llama")
    words = tokenizer()
    words.chat_template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}."
    words.save_pretrained(tmp_path / "llama")
    model, processor = build(str(bases / "whisper"), str(tmp_path / "llama"), resolve=_as_folder)
    assert processor.prompt_template == "<|im_start|>{audio}\n{instruction}<|im_end|>."
    assert processor.end_token == "<|im_end|>"
    assert (model.generation_config.do_sample, model.generation_config.eos_token_id) == (False, [1])


def test_build_refuses_bases_that_cannot_be_loaded(bases, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="cannot be loaded"):
        build(str(tmp_path / "empty"), str(bases / "llama"), resolve=_as_folder)
    with pytest.raises(ModelError, match="unknown response style"):
        build(str(bases / "whisper"), str(bases / "llama"), response_style="loud", resolve=_as_folder)


def test_build_refuses_incomplete_weights(bases, tmp_path):
    import shutil

    shutil.copytree(bases / "llama", tmp_path / "llama")
    tensors = load_file(tmp_path / "llama" / "model.safetensors")
    tensors.pop("model.layers.2.mlp.up_proj.weight")
    save_file(tensors, tmp_path / "llama" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"weights are missing, such as model\.layers\.2"):
        build(str(bases / "whisper"), str(tmp_path / "llama"), resolve=_as_folder)
