"""What healing promises for every class, over tiny builds: the stock class's loss, and a step that keeps to its target.

What a class can be healed by goes into the record of `shoal families`: `SHOAL_WRITE_FAMILIES=1` writes it down, and
without it the test fails where the record says something else.
"""

from __future__ import annotations

import copy
import math
import string
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    Gemma3nForCausalLM,
    Gemma3nTextConfig,
    Gemma4ForCausalLM,
    Gemma4UnifiedForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.gemma3n import configuration_gemma3n
from transformers.models.timm_wrapper import modeling_timm_wrapper

import tiny_speech
from families_record import note
from full_run import FULL
from shoal import tasks
from shoal.data import Dataset
from shoal.decoder.prepare import prepare
from shoal.decoder.sublayers import BARE_MLP, MLP
from shoal.errors import ModelError
from shoal.healing.run import HealedModel, heal
from shoal.healing.settings import HealSettings
from shoal.models.batch import Kind, PreparedBatch
from shoal.models.loading import LoadedModel, load_model
from shoal.pruning.in_memory import prune_in_place, removal_problem
from shoal.schema import HealRecord, InputKind, Plan
from shoal.selection import manual
from shoal.training.batches import examples_of, response_losses
from shoal.training.processor_batches import ProcessorBatches
from shoal.training.settings import Objective, Optimisation, RuntimeOptions
from shoal.training.step import ModelWithLoss, StepTotals
from tiny_audio import BUILDS, gemma3n, gemma4, gemma4_unified
from tiny_audio.parts import randomised, tokenizer
from tiny_models import BUILDERS, tiny

CLIPS = 2
DEPTH = 6
GEMMA: dict[str, Callable[[], PreTrainedModel]] = {
    "gemma3n": lambda: Gemma3nForCausalLM(Gemma3nTextConfig(**gemma3n.decoder(gemma3n.DEPTH))),
    "gemma4": lambda: Gemma4ForCausalLM(gemma4.build(gemma4.DEPTH).config.text_config),
    "gemma4_unified": lambda: Gemma4UnifiedForCausalLM(gemma4_unified.build(gemma4.DEPTH).config.text_config),
}
"""Text LLMs whose layers read the tokens, not only their embeddings."""
GEMMA_3N = "Gemma3nForConditionalGeneration"
TEXT = (*BUILDERS, *GEMMA)
SPEECH_ONLY = "answers in speech only"
UNTAUGHT = {
    "CsmForConditionalGeneration": SPEECH_ONLY,
    "VibeVoiceForConditionalGeneration": SPEECH_ONLY,
    "HiggsAudioV2ForConditionalGeneration": SPEECH_ONLY,
    "MoshiForConditionalGeneration": SPEECH_ONLY,
    "KyutaiSpeechToTextForConditionalGeneration": "its batches hold what it writes itself",
    "VoxtralRealtimeForConditionalGeneration": "when it writes a word depends on when it is said",
}
"""Class → why it is not trained."""
HEARING = [name for name, build in BUILDS.items() if build.processor is not None]
LEARNING = [*(name for name in HEARING if name not in UNTAUGHT), *TEXT]
TARGETS = ("receiver", "decoder", "projector", "joint")
NO_PROJECTOR = dict.fromkeys(("projector", "joint"), "it has no projector that Shoal knows")
NO_MLP = dict.fromkeys(("receiver", "joint"), "has no MLP of linear layers")
MIXTURE = dict.fromkeys(("receiver", "joint"), "the MLP is a mixture of experts")
REFUSED: dict[str, dict[str, str]] = {
    "CanaryForConditionalGeneration": NO_PROJECTOR,
    "WhisperForConditionalGeneration": NO_PROJECTOR,
    "MoonshineForConditionalGeneration": NO_PROJECTOR,
    "MoonshineStreamingForConditionalGeneration": NO_PROJECTOR,
    # The projection is the end of the encoder, or all of it.
    "Qwen2_5OmniThinkerForConditionalGeneration": NO_PROJECTOR,
    "Qwen2_5OmniForConditionalGeneration": NO_PROJECTOR,
    "Qwen3OmniMoeThinkerForConditionalGeneration": NO_PROJECTOR | MIXTURE,
    "Qwen3OmniMoeForConditionalGeneration": NO_PROJECTOR | MIXTURE,
    "Gemma4UnifiedForConditionalGeneration": NO_PROJECTOR,
    # A layer is one mixer, so there is no MLP behind a cut.
    "Nemotron3_5TranscribeForConditionalGeneration": NO_MLP,
    "NemotronH_Omni_Reasoning_V3": NO_MLP,
    **dict.fromkeys(TEXT, NO_PROJECTOR),
    "qwen3_moe": NO_PROJECTOR | MIXTURE,
    "deepseek_v3": NO_PROJECTOR | MIXTURE,
}
"""Class → target → what is said of why it is not to be had; all other targets are."""
SPARSE = {name for name, why in REFUSED.items() if MIXTURE.items() <= why.items()}
"""Classes in which the layer behind the cut shall be a mixture of experts, as all are in published checkpoints."""
CLOSED = {
    "Qwen2AudioForConditionalGeneration": "",
    "WhisperForConditionalGeneration": "",
    "Gemma4ForConditionalGeneration": "norm",
    "llama": "",
    "gpt2": "",
    "gemma3": "norm",
}
"""Class → why the closed form is not to be had; nothing where it is."""
WRITTEN = {
    "Qwen2AudioForConditionalGeneration": "joint",
    "Phi4MultimodalForCausalLM": "projector",
    "WhisperForConditionalGeneration": "decoder",
    "llama": "receiver",
    "gpt2": "decoder",
}
"""Class → the target whose checkpoint is written."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_speech.dataset(tmp_path_factory.mktemp("clips"), CLIPS)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LoadedModel]:
    """Class name → the unpruned model, which no test changes."""
    made: dict[str, LoadedModel] = {}

    def get(name: str) -> LoadedModel:
        if name not in made:
            folder = tmp_path_factory.mktemp("models") / name
            written = BUILDS[name].write(folder) if name in BUILDS else write_text_model(name, folder)
            made[name] = load_model(str(written), device="cpu", dtype="float32", trust_remote_code=False)
            for layer in made[name].layers:
                if hasattr(layer, "altup"):
                    # It begins as zeros, which leave nothing of the embeddings.
                    layer.altup.correct_output_scale.fill_(1.0)
        return made[name]

    return get


def write_text_model(name: str, folder: Path) -> Path:
    """A text LLM, one of `tiny_models` with characters as its tokens."""
    if name in GEMMA:
        randomised(GEMMA[name]()).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        return folder
    tiny(name, DEPTH).save_pretrained(folder)
    special = ["<|pad|>", "<|bos|>", "<|eos|>"]
    letters = [*string.printable[:94], "Ġ", "Ċ"]
    vocab = {token: index for index, token in enumerate([*special, *letters])}
    backend = Tokenizer(models.BPE(vocab, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    named = dict(zip(("pad_token", "bos_token", "eos_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=backend, **named).save_pretrained(folder)
    return folder


def fresh(loaded: LoadedModel) -> LoadedModel:
    """The same model once more, to be changed."""
    return replace(loaded, model=copy.deepcopy(loaded.model))


def input_of(loaded: LoadedModel) -> InputKind:
    return "speech" if "speech" in loaded.inputs else "text"


def job(loaded: LoadedModel, data: Dataset, target: str, layers: Sequence[int], **options: Any) -> dict[str, Any]:
    """One step over both clips, without the layers."""
    steps = Optimisation(steps=1, clips=CLIPS, lora_lr=1e-2, projector_lr=1e-2, full_lr=1e-2)
    out = options.pop("out", None)
    chosen = {"input": input_of(loaded)} | options
    settings = HealSettings(target=target, rank=2, alpha=2, dropout=0.0, optimisation=steps, **chosen)
    plan = manual(loaded.ref, len(loaded.layers), list(layers))
    return {"data": data, "settings": settings, "plan": plan, "out": out}


def removable(loaded: LoadedModel, choices: Sequence[list[int]]) -> list[int]:
    """The first of some blocks that the model can go without."""
    return next(each for each in choices if not removal_problem(loaded.model, each, family=loaded.family))


def prepared(loaded: LoadedModel, data: Dataset) -> list[PreparedBatch]:
    """Every clip by itself, with its response."""
    kind = input_of(loaded)
    return [
        prepare(loaded, [clip], tasks.get("asr"), input=kind, response=True, padding_side="right")
        for clip in data.clips(data.rows)
    ]


def stock_loss(loaded: LoadedModel, batch: PreparedBatch) -> Tensor:
    """Cross-entropy of a clip's response and its end, from the logits of the stock class's own forward pass."""
    if batch.inputs:
        inputs = loaded.family.forward_inputs(loaded.model, copy.deepcopy(dict(batch.inputs)))
    else:
        inputs = {"input_ids": batch.token_ids.clone(), "attention_mask": batch.attention_mask.clone()}
    (logits,) = loaded.family.answering(loaded.model)(**inputs, use_cache=False).logits
    text = (batch.kinds[0] == Kind.TEXT).nonzero()[:, 0].tolist()
    total = functional.cross_entropy(logits[[at - 1 for at in text]], batch.token_ids[0, text].clone(), reduction="sum")
    ends = functional.softmax(logits[text[-1]], -1)[list(loaded.eos_ids)].sum()
    return total - torch.log(ends)


def marked(loaded: LoadedModel) -> dict[str, nn.Parameter]:
    """What is in front of the decoder, in its first layer and behind it, made trainable."""
    decoder: Any = loaded.decoder
    parts = [decoder.get_input_embeddings(), loaded.layers[0], loaded.family.projector(loaded.model)]
    for part in parts:
        if part is not None:
            part.requires_grad_(True)
    return {name: each for name, each in loaded.model.named_parameters() if each.requires_grad}


def gradients(parameters: dict[str, nn.Parameter], loss: Tensor) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {name: each for name, each in zip(parameters, found, strict=True) if each is not None}


@pytest.mark.parametrize("name", LEARNING)
def test_loss_and_gradients_are_those_of_the_stock_forward_pass(
    name: str, original: Callable[[str], LoadedModel], data: Dataset
) -> None:
    check_loss(original(name), data)


def check_loss(original: LoadedModel, data: Dataset) -> None:
    """Through the projector and the input embeddings too, for clips in a batch against clips by themselves."""
    loaded = fresh(original)
    parameters = marked(loaded)
    batches = ProcessorBatches(loaded, examples_of(data, tasks.get("asr")), input=input_of(loaded))
    every = np.arange(CLIPS)
    batch = batches.collate(every, np.zeros_like(every))
    ours = ModelWithLoss(loaded, batches, Objective())(batch, StepTotals(1.0, 1.0), {"ce": 1.0})["loss"]
    singles = prepared(loaded, data)
    theirs = torch.stack([stock_loss(loaded, each) for each in singles]).sum()
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-4)
    expected = [int(each.scope("response").sum()) + 1 for each in singles]
    assert batches.targets.tolist() == expected
    found, wanted = (gradients(parameters, loss) for loss in (ours, theirs))
    assert found.keys() == wanted.keys()
    projector = loaded.family.projector(loaded.model)
    if projector is not None:
        reached = [key for key, each in parameters.items() if any(each is one for one in projector.parameters())]
        assert all(found[key].any() for key in reached)
    for key, each in found.items():
        atol = 1e-4 * max(1.0, float(wanted[key].abs().max()))
        torch.testing.assert_close(each, wanted[key], rtol=1e-3, atol=atol, msg=lambda said, key=key: f"{key} {said}")


def changes(before: nn.Module, healed: HealedModel) -> set[str]:
    """Names of the parameters that are new or another; buffers stay as they are."""
    model = healed.loaded.model
    old = dict(before.named_parameters())
    buffers = dict(model.named_buffers())
    for name, each in before.named_buffers():
        assert torch.equal(each, buffers[name]), name
    return {
        name
        for name, each in model.named_parameters()
        if (place := name.replace(".base_layer", "")) not in old or not torch.equal(each, old[place])
    }


def pruned(loaded: LoadedModel, plan: Plan) -> LoadedModel:
    found = fresh(loaded)
    prune_in_place(found.model, plan, family=found.family)
    return found


def allowed(loaded: LoadedModel, target: str, layer: int) -> Callable[[str], bool]:
    """Which parameters a target may change in a model that layer `layer` was taken out of."""
    layers = loaded.family.layers_path(loaded.model)
    projector = loaded.family.projector(loaded.model)
    own = {id(each) for each in projector.parameters()} if projector is not None else set()
    projected = {name for name, each in loaded.model.named_parameters() if id(each) in own}

    def receiver(name: str) -> bool:
        parts = name.removeprefix(f"{layers}.{layer}.").split(".")
        return name.startswith(f"{layers}.{layer}.") and ".lora_" in name and parts[0] in (*MLP, *BARE_MLP)

    return {
        "receiver": receiver,
        "decoder": lambda name: name.startswith(f"{layers}.") and ".lora_" in name,
        "projector": lambda name: name in projected,
        "joint": lambda name: receiver(name) or name in projected,
    }[target]


def check_step(loaded: LoadedModel, healing: dict[str, Any], target: str, layer: int) -> None:
    """One step: what is trained moves, all of it, and nothing else does."""
    before = pruned(loaded, healing["plan"])
    healed = heal(fresh(loaded), **healing)
    assert healed.record.last_loss is not None
    assert math.isfinite(healed.record.last_loss)
    assert len(healed.loaded.layers) == len(loaded.layers) - 1
    changed = changes(before.model, healed)
    assert changed
    assert all(map(allowed(healed.loaded, target, layer), changed)), changed
    trained = {name: each for name, each in healed.loaded.model.named_parameters() if each.requires_grad}
    assert all(bool(torch.isfinite(each).all()) for each in trained.values())
    # The second factor of an update begins as zeros, so a gradient has reached all of them that are not.
    assert all(bool(each.any()) for name, each in trained.items() if ".lora_B." in name)
    whole = {name for name in trained if ".lora_" not in name}
    assert whole <= changed
    assert bool(whole) == (target in ("projector", "joint"))


@pytest.mark.parametrize("name", LEARNING)
def test_a_step_of_each_target_changes_what_it_says_or_is_refused(
    name: str, original: Callable[[str], LoadedModel], data: Dataset
) -> None:
    check_targets(name, original(name), data)


def check_targets(name: str, loaded: LoadedModel, data: Dataset) -> None:
    """Every target does what it says or is refused as it should be, and the record says which."""
    (layer,) = [4] if name in SPARSE else removable(loaded, [[3], [1]])
    refusals = REFUSED.get(name, {})
    for target, why in refusals.items():
        healing = job(loaded, data, target, [layer])
        refused(lambda healing=healing: heal(fresh(loaded), **healing), type(loaded.model).__name__, why)
    taken = [target for target in TARGETS if target not in refusals]
    # By default each class takes a step of one of them, another than the class before.
    turn = (*LEARNING, GEMMA_3N).index(name) % len(taken)
    for target in taken if FULL else taken[turn : turn + 1]:
        check_step(loaded, job(loaded, data, target, [layer]), target, layer)
    if FULL:
        note(type(loaded.model).__name__, heal=taken)


def test_gemma_3n_with_a_stand_in_for_its_vision_tower(
    monkeypatch: pytest.MonkeyPatch, original: Callable[[str], LoadedModel], data: Dataset
) -> None:
    def init(self: PreTrainedModel, config: PreTrainedConfig) -> None:
        PreTrainedModel.__init__(self, config)
        self.timm_model = nn.Linear(2, 2)
        self.post_init()

    monkeypatch.setattr(modeling_timm_wrapper.TimmWrapperModel, "__init__", init)
    monkeypatch.setattr(configuration_gemma3n, "requires_backends", lambda *needed: None)
    monkeypatch.setattr(configuration_gemma3n, "infer_imagenet_subset", lambda config: None, raising=False)
    monkeypatch.setitem(BUILDS, GEMMA_3N, gemma3n.NEEDS_TIMM[GEMMA_3N])
    loaded = original(GEMMA_3N)
    check_loss(loaded, data)
    check_targets(GEMMA_3N, loaded, data)


def test_so_does_a_step_of_shoals_own_class(data: Dataset, tmp_path: Path) -> None:
    loaded = tiny_speech.loaded(num_hidden_layers=DEPTH)
    for target in TARGETS:
        how = RuntimeOptions(features=tmp_path)
        check_step(loaded, job(loaded, data, target, [3], how=how), target, 3)
    note("SpeechLLM", heal=list(TARGETS))


def refused(act: Callable[[], object], *said: str) -> None:
    """It raises a `ModelError` of one line, which names the class, says why and what to do."""
    with pytest.raises(ModelError) as caught:
        act()
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.fix
    assert all(each in line for each in said), line


@pytest.mark.parametrize("name", UNTAUGHT)
def test_what_cannot_learn_from_transcripts_is_refused(
    name: str, original: Callable[[str], LoadedModel], data: Dataset
) -> None:
    loaded = original(name)
    why = UNTAUGHT[name] if name in HEARING else "no processor that can be loaded"
    for target in ("receiver", "decoder"):
        healing = job(loaded, data, target, [3], input="speech")
        refused(lambda healing=healing: heal(fresh(loaded), **healing), why)
    if name in HEARING:
        note(name, heal=[])


def test_a_projector_is_not_trained_where_it_does_not_run(
    original: Callable[[str], LoadedModel], data: Dataset
) -> None:
    name = "Qwen2AudioForConditionalGeneration"
    loaded = original(name)
    for target in ("projector", "joint"):
        healing = job(loaded, data, target, [3], input="text")
        refused(lambda healing=healing: heal(fresh(loaded), **healing), name, "on the text input")


def layers_changed(loaded: LoadedModel, changed: set[str]) -> set[int]:
    prefix = f"{loaded.family.layers_path(loaded.model)}."
    return {int(name.removeprefix(prefix).split(".")[0]) for name in changed if name.startswith(prefix)}


@pytest.mark.parametrize("name", CLOSED)
def test_head_and_replaced_layers_and_the_closed_form(
    name: str, original: Callable[[str], LoadedModel], data: Dataset
) -> None:
    loaded = original(name)
    block = removable(loaded, [[2, 3], [5, 6]])
    first, depth = block[0], len(loaded.layers) - 2
    found: dict[str, tuple[HealedModel, set[str]]] = {}
    for target in ("head", "replace", "linear", "chain"):
        healing = job(loaded, data, target, block)
        if target in ("linear", "chain") and CLOSED[name]:
            refused(lambda healing=healing: heal(fresh(loaded), **healing), CLOSED[name])
            continue
        healed = heal(fresh(loaded), **healing)
        assert healed.plan is not None
        found[target] = healed, changes(pruned(loaded, healed.plan).model, healed)
    healed, changed = found["head"]
    head = loaded.family.head(healed.loaded.model)
    assert head is not None
    names = {name for name, each in healed.loaded.model.named_parameters() if any(each is p for p in head.parameters())}
    assert layers_changed(loaded, changed) == set(range(depth - 3, depth))
    assert names
    assert {each for each in changed if not each.startswith(loaded.family.layers_path(loaded.model))} == names
    healed, changed = found["replace"]
    assert len(healed.loaded.layers) == depth + 1
    assert layers_changed(loaded, changed) == {first}
    if not CLOSED[name]:
        healed, changed = found["linear"]
        assert len(healed.loaded.layers) == depth
        assert layers_changed(loaded, changed) == {first - 1}
        assert len({each.rpartition(".")[0] for each in changed}) == 1
        healed, changed = found["chain"]
        assert len(healed.loaded.layers) == depth
        assert {first - 1} < layers_changed(loaded, changed) <= set(range(first - 1, depth))
        assert len({each.rpartition(".")[0] for each in changed}) == len(layers_changed(loaded, changed))


@pytest.mark.parametrize("name", WRITTEN)
def test_a_healed_checkpoint_is_verified_and_loads(
    name: str, original: Callable[[str], LoadedModel], data: Dataset, tmp_path: Path
) -> None:
    loaded = original(name)
    (layer,) = removable(loaded, [[3], [1]])
    out = tmp_path / "healed"
    healed = heal(fresh(loaded), **job(loaded, data, WRITTEN[name], [layer], out=out))
    assert healed.folder == out
    again = load_model(str(out), device="cpu", dtype="float32", trust_remote_code=False)
    assert type(again.model) is type(loaded.model)
    assert again.info().removed_layers == [layer]
    assert HealRecord.load(out / "shoal-heal.json") == healed.record
    examples = examples_of(data, tasks.get("asr"))
    in_memory, on_disk, before = (
        response_losses(each, ProcessorBatches(each, examples, input=input_of(loaded))).sums
        for each in (healed.loaded, again, pruned(loaded, healed.plan))
    )
    assert in_memory == pytest.approx(on_disk, rel=1e-4)
    assert not np.allclose(in_memory, before, rtol=1e-3)
