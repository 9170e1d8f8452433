"""What audio LLMs lose without layers, against the stock forward pass of the pruned model over its own inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.gemma3n import configuration_gemma3n
from transformers.models.timm_wrapper import modeling_timm_wrapper

from shoal import tasks
from shoal.decoder.prepare import prepare
from shoal.errors import MeasureError, ModelError
from shoal.measurement.ablation_losses import Ablation
from shoal.measurement.gate_gradients import gate_gradients
from shoal.models import families
from shoal.models.batch import Kind, PreparedBatch
from shoal.models.loading import LoadedModel, load_model
from shoal.pruning.in_memory import pruned
from tiny_audio import BUILDS
from tiny_audio.gemma3n import NEEDS_TIMM
from tiny_speech import dataset

CLIPS = 3
HEARING = [name for name, build in BUILDS.items() if build.processor is not None]
GEMMA_3N = "Gemma3nForConditionalGeneration"
SPEECH_ONLY = "answers in speech only"
NO_LOSS = {
    "CsmForConditionalGeneration": SPEECH_ONLY,
    "VibeVoiceForConditionalGeneration": SPEECH_ONLY,
    "HiggsAudioV2ForConditionalGeneration": SPEECH_ONLY,
    # It listens only: there is no word in the batch.
    "MoshiForConditionalGeneration": "no token in scope response",
}
"""Class → what is said of why it has no loss."""
MEASURED = [name for name in BUILDS if name not in NO_LOSS]
REMOVED = {
    # Later layers read the keys and values of earlier ones out of it.
    "Gemma4ForConditionalGeneration": "KVSharingDict",
    "Gemma4UnifiedForConditionalGeneration": "KVSharingDict",
    GEMMA_3N: "residual stream",
}
"""Class → why it is not replayed; all others are, so each is known to be right either way."""
WHOLE = ("Nemotron3_5TranscribeForConditionalGeneration", "NemotronH_Omni_Reasoning_V3", GEMMA_3N)
"""Classes whose layers are no attention and MLP: one mixer each, or with four states side by side."""


class Heard:
    """A loaded class, one batch of it, and the inputs of the stock forward pass that belong to it."""

    def __init__(self, loaded: LoadedModel, batch: PreparedBatch, singles: Sequence[PreparedBatch]) -> None:
        self.loaded, self.batch = loaded, batch
        # A batch of clips that were encoded alone has no inputs of its own; those of its clips say the same.
        self.stock = [batch] if batch.inputs else singles


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Heard]:
    """Class name → what is measured, made on first use."""
    made: dict[str, Heard] = {}
    data = dataset(tmp_path_factory.mktemp("clips"), CLIPS)

    def listening(name: str) -> Heard:
        folder = BUILDS[name].write(tmp_path_factory.mktemp("models") / name)
        loaded = load_model(str(folder), device="cpu", dtype="float32", trust_remote_code=False)
        options = {"input": "speech", "response": True, "padding_side": "right"}
        clips = list(data.clips(data.rows))
        batch = prepare(loaded, clips, tasks.get("asr"), **options)
        singles = [] if batch.inputs else [prepare(loaded, [c], tasks.get("asr"), **options) for c in clips]
        return Heard(loaded, batch, singles)

    def get(name: str) -> Heard:
        if name not in made:
            made[name] = listening(name) if BUILDS[name].processor is not None else reading(name)
        return made[name]

    return get


def reading(name: str) -> Heard:
    """A class without a processor here, over random tokens: all but the first of every row count as its response."""
    model = BUILDS[name].build(BUILDS[name].depth).requires_grad_(False)
    family = families.find(model)
    loaded = LoadedModel(name, Path(), model, None, None, family, "audio_llm")
    loaded.__dict__["eos_ids"] = (2, 7)
    inputs = family.silent_inputs(model)
    ids, mask = (inputs[key] for key in family.tokens)
    kinds = torch.where(mask.cumsum(1) == 1, Kind.PROMPT, Kind.TEXT) * mask
    with torch.no_grad():
        call = family.call(model, dict(inputs))
    batch = PreparedBatch(
        [f"row{row}" for row in range(len(ids))],
        call["inputs_embeds"],
        kinds.to(torch.uint8),
        ids.masked_fill(mask == 0, -1),
        call=call,
        inputs=inputs,
    )
    return Heard(loaded, batch, [])


def stock_losses(heard: Heard) -> list[float]:
    """Cross-entropy of every response and its end, token by token, from the whole model's own logits."""
    found = []
    for batch in heard.stock:
        logits = stock_logits(heard.loaded, batch)
        found += [
            row_loss(logits[row], batch, row, heard.loaded.eos_ids if batch.ends else ())
            for row in range(len(batch.ids))
        ]
    return found


@torch.no_grad()
def stock_logits(loaded: LoadedModel, batch: PreparedBatch) -> Tensor:
    inputs = loaded.family.forward_inputs(loaded.model, dict(batch.inputs))
    return loaded.family.answering(loaded.model)(**inputs, use_cache=False).logits.double()


def row_loss(logits: Tensor, batch: PreparedBatch, row: int, ends: Sequence[int]) -> float:
    text = [at for at in range(len(logits)) if batch.kinds[row, at] == Kind.TEXT]
    total = 0.0
    for at in text:
        total += float(functional.cross_entropy(logits[at - 1], batch.token_ids[row, at]))
    if ends:
        share = functional.softmax(logits[text[-1]], -1)
        total -= float(torch.log(sum(share[token] for token in ends)))
    return total


def removable(ablation: Ablation, depth: int) -> list[tuple[int, ...]]:
    """The first, the middle and the last layer that the model can go without, and a block of two."""
    every = [(layer,) for layer in range(depth)] + [(layer, layer + 1) for layer in range(depth - 1)]
    refused = ablation.refused(every)
    allowed = [layers for place, layers in enumerate(every) if place not in refused]
    single, pair = ([layers for layers in allowed if len(layers) == n] for n in (1, 2))
    return [single[0], single[len(single) // 2], pair[len(pair) // 2], single[-1]]


def check(this: Heard, name: str) -> None:
    """Measure some candidates, and hold what comes out against the stock forward pass without their layers."""
    ablation = Ablation(this.loaded)
    candidates = removable(ablation, len(this.loaded.layers))
    found = ablation.measure(this.batch, candidates)
    assert ablation.method == ("removal" if name in REMOVED else "replay"), ablation.why_not
    assert REMOVED[name] in ablation.why_not if name in REMOVED else not ablation.why_not
    assert found.full == pytest.approx(stock_losses(this), rel=1e-4)
    for place, layers in enumerate(candidates):
        with pruned(this.loaded.model, layers, family=this.loaded.family):
            expected = stock_losses(this)
        assert found.loss[:, place] == pytest.approx(expected, rel=1e-4), layers
        # Else the loss of the whole model would pass for it.
        assert not np.allclose(found.loss[:, place], found.full, rtol=1e-3)


@pytest.mark.parametrize("name", MEASURED)
def test_the_loss_without_layers_is_that_of_the_stock_class_without_them(
    name: str, heard: Callable[[str], Heard]
) -> None:
    check(heard(name), name)


def check_slopes(this: Heard, name: str) -> None:
    """Every layer has a slope, and every attention and MLP where there are such."""
    found = gate_gradients(this.loaded, [this.batch])
    assert {each.part for each in found} == ({"layer"} if name in WHOLE else {"layer", "attention", "mlp"})
    for each in found:
        assert each.utterances == tuple(this.batch.ids)
        assert np.isfinite(each.values).all()
        single = [place for place, layers in enumerate(each.candidates) if len(layers) == 1]
        if each.quantity == "absolute":
            assert (each.values[:, single] > 0).all()


@pytest.mark.parametrize("name", MEASURED)
def test_every_layer_of_an_audio_llm_has_a_slope(name: str, heard: Callable[[str], Heard]) -> None:
    check_slopes(heard(name), name)


@pytest.mark.parametrize("name", [name for name in NO_LOSS if name in HEARING])
def test_a_class_without_a_known_loss_says_so_in_one_line(name: str, heard: Callable[[str], Heard]) -> None:
    this = heard(name)
    for measure in (
        lambda: Ablation(this.loaded).measure(this.batch, [(1,)]),
        lambda: gate_gradients(this.loaded, [this.batch]),
    ):
        with pytest.raises((ModelError, MeasureError), match=NO_LOSS[name]) as caught:
            measure()
        assert "\n" not in str(caught.value)


def test_layers_of_gemma_3n_keep_their_own_embeddings_when_others_go(
    monkeypatch: pytest.MonkeyPatch, heard: Callable[[str], Heard]
) -> None:
    """Handed too many embeddings, its decoder takes the first without a word. The vision tower, of timm, is empty."""

    def init(self: PreTrainedModel, config: PreTrainedConfig) -> None:
        PreTrainedModel.__init__(self, config)
        self.timm_model = nn.Linear(2, 2)
        self.post_init()

    monkeypatch.setattr(modeling_timm_wrapper.TimmWrapperModel, "__init__", init)
    monkeypatch.setattr(configuration_gemma3n, "requires_backends", lambda *needed: None)
    monkeypatch.setattr(configuration_gemma3n, "infer_imagenet_subset", lambda config: None, raising=False)
    monkeypatch.setitem(BUILDS, GEMMA_3N, NEEDS_TIMM[GEMMA_3N])
    this = heard(GEMMA_3N)
    for layer in this.loaded.layers:
        # It begins as zeros, which leave nothing of the embeddings.
        layer.altup.correct_output_scale.fill_(1.0)
    check(this, GEMMA_3N)
    check_slopes(this, GEMMA_3N)


def test_each_way_that_audio_enters_is_measured() -> None:
    ways = {families.find(BUILDS[name].build(4)).entry for name in MEASURED if name not in REMOVED}
    assert ways == {"slot", "cross", "codes", "added"}
