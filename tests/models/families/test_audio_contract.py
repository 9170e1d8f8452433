"""What Shoal promises for every audio LLM class, step by step, over tiny builds of the stock classes.

The outcome of each step is what `shoal families` and `docs/families.md` say of the class: `SHOAL_WRITE_FAMILIES=1` (or
`make families`) writes it down, and without it the test fails where the record says something else.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from families_record import note, parts_of
from full_run import FULL, in_turn
from shoal import tasks
from shoal.data.clip import Clip, Row
from shoal.decoder.prepare import prepare
from shoal.errors import AudioError, UsageError
from shoal.evaluation.model_checks import check_hears
from shoal.measurement.collector import collect
from shoal.models import families
from shoal.models.batch import PreparedBatch
from shoal.models.families.audio_llm import AudioLLM
from shoal.models.loading import LoadedModel, load_model
from shoal.models.stated_depth import stated_depth
from shoal.pruning.from_folder import prune_folder
from shoal.pruning.in_memory import pruned
from shoal.pruning.on_disk import prune
from shoal.pruning.probe import probe
from shoal.pruning.verify import Expectation, expectation, verify_checkpoints
from shoal.schema import SCOPES
from shoal.selection import manual
from tiny_audio import BUILDS
from tiny_audio.parts import keep_float
from tiny_speech import dataset

CLIPS = 3
PLANS: dict[str, list[int]] = {}
"""Layers to remove where 1 and 3 may not go."""
CHECKS = ["load", "keys", "depth", "config", "tensors", "logits", "round_trip", "cache"]
FIXED = {"VoxtralForConditionalGeneration"}
"""Windows of 30 s, each of which has the same number of slots however much of it is silence."""
HEARING = [name for name, build in BUILDS.items() if build.processor is not None]
SIDES = [(name, side) for name, sides in in_turn(HEARING, ["left", "right"]).items() for side in sides]
WAYS = in_turn(list(BUILDS), ["memory", "disk"])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("clips"), CLIPS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Class name → checkpoint folder, made on first use."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = BUILDS[name].write(tmp_path_factory.mktemp("models") / name)
        return made[name]

    return folder


@pytest.fixture(scope="module")
def models(folders):
    """Class name → the model, loaded on first use, which no test changes."""
    return cache(lambda name: load(folders(name)))


def load(folder: Path) -> LoadedModel:
    return load_model(str(folder), device="cpu", dtype="float32", trust_remote_code=False)


@pytest.mark.parametrize("name", BUILDS)
def test_parts_are_where_the_family_says(name):
    build = BUILDS[name]
    model = build.build(build.depth)
    family = families.find(model)
    assert isinstance(family, AudioLLM)
    layers = family.layers(model)
    assert isinstance(layers, nn.ModuleList)
    assert len(layers) == family.depth(model) == build.depth
    assert model.get_submodule(family.layers_path(model)) is layers
    inside = set(family.decoder(model).modules())
    assert set(layers) <= inside
    for index, layer in enumerate(layers):
        assert {value - index for _, _, value in family.layer_indices(layer)} <= {0, 1}
    if family.entry in ("slot", "added", "cross"):
        assert family.encoder(model) is not None
        assert family.encoder(model) not in inside or name == "Phi4MultimodalForCausalLM"
    note(
        name,
        **parts_of(model),
        processor="stock" if build.processor else build.no_processor,
        stand_in=build.stand_ins(),
    )


@pytest.mark.parametrize("name", HEARING)
def test_a_folder_loads_with_its_processor_and_is_fed_by_it(name, models, data):
    loaded = models(name)
    assert loaded.kind == "audio_llm"
    assert loaded.inputs == loaded.family.inputs
    task = tasks.get("asr")
    for kind in loaded.inputs:
        batch = prepare(loaded, list(data.clips(data.rows)), task, input=kind, response=True)
        assert batch.attention_mask.shape == batch.token_ids.shape
        assert len(batch.ids) == CLIPS
        if loaded.family.entry == "slot":
            assert (batch.scope("audio").sum(1) > 0).all()
            assert (batch.scope("response").sum(1) > 0).all()


def noise(name: str, seconds: float) -> Clip:
    samples = np.random.default_rng(0).normal(0, 0.1, round(16_000 * seconds)).astype(np.float32)
    return Clip(Row(name, Path(f"{name}.wav"), seconds, text="she ran"), samples)


@pytest.mark.parametrize("name", HEARING)
def test_what_is_heard_in_a_clip_does_not_depend_on_the_clips_beside_it(name, models):
    """Not only how far the rows are padded: encoders and extractors may look across a batch."""
    loaded = models(name)
    longest = loaded.family.longest(loaded.processor) or 60
    clips = [noise("short", 0.7), noise("long", min(4.1, longest))]
    options = {"input": "speech", "response": True, "padding_side": "right"}
    together = prepare(loaded, clips, tasks.get("asr"), **options)
    alone = prepare(loaded, clips[:1], tasks.get("asr"), **options)
    found, wanted = (
        next(iter(collect(loaded.decoder, loaded.layers, [batch], state=loaded.family.state)))
        for batch in (together, alone)
    )
    assert (found.counts == wanted.counts).all()
    assert np.allclose(found.sums, wanted.sums, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", HEARING)
def test_a_clip_is_heard_to_its_end_or_refused(name, models):
    """A longer clip has more audio in it, up to where the family says that the processor cuts it."""
    loaded = models(name)
    longest = loaded.family.longest(loaded.processor)

    def heard(seconds: float) -> int:
        batch = prepare(loaded, [noise("clip", seconds)], tasks.get("asr"), input="speech")
        return int(batch.scope("audio").sum())

    if loaded.family.entry == "slot" and name not in FIXED:
        lengths = [each for each in (1.0, 1.9, 4.1, 8.0) if longest is None or each <= longest]
        assert sorted(set(map(heard, lengths))) == list(map(heard, lengths))
    if longest is not None and longest < 60:
        with pytest.raises(AudioError, match=f"hears {longest:g} s"):
            heard(longest + 1)


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_the_audit_equals_loops_over_the_states_of_the_stock_forward(name, side, folders, data):
    """Clip by clip through the whole model, without padding, in float64; no code shared with the collector."""
    loaded = load(folders(name))
    # The fused products of experts know no float64.
    loaded.model.set_experts_implementation("eager")
    loaded.model.double()
    if BUILDS[name].float_encoder:
        keep_float(loaded.family.encoder(loaded.model), loaded.family.projector(loaded.model))
    task, depth = tasks.get("asr"), len(loaded.layers)
    clips = list(data.clips(data.rows))
    for kind in loaded.inputs:
        batches = (
            prepare(loaded, part, task, input=kind, response=True, padding_side=side)
            for part in (clips[:2], clips[2:])  # made while the collector listens
        )
        found = list(collect(loaded.decoder, loaded.layers, batches, state=loaded.family.state))
        for clip, sums in zip(clips, found, strict=True):
            single = prepare(loaded, [clip], task, input=kind, response=True)
            states = stock_states(loaded, dict(single.inputs))
            wanted = [mean_angle(states, 0, n, start) for n in range(1, depth + 1) for start in range(depth - n + 1)]
            kept = SCOPES.index("all")
            assert sums.counts[kept] == states.shape[1]
            measured = sums.sums[kept][: len(wanted)] / sums.counts[kept]
            assert np.allclose(measured, wanted, atol=1e-6), f"{name} {kind}"
    note(name, audit=list(loaded.inputs))


def stock_states(loaded: LoadedModel, inputs: dict[str, Any]) -> torch.Tensor:
    """(L+1, T, d): what every layer is given, and what the last one gives, in a plain forward pass."""
    seen: list[torch.Tensor] = []
    state = loaded.family.state

    def before(_: Any, args: Any, kwargs: Any) -> None:
        seen.append(state(args[0] if args else kwargs["hidden_states"])[0])

    def after(_: Any, __: Any, output: Any) -> None:
        seen.append(state(output[0] if isinstance(output, tuple) else output)[0])

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in loaded.layers]
    handles.append(loaded.layers[-1].register_forward_hook(after))
    with torch.no_grad():
        loaded.family.answering(loaded.model)(**inputs, use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.stack(seen).double()


def mean_angle(states: torch.Tensor, first: int, n: int, start: int) -> float:
    angles = []
    for position in range(first, states.shape[1]):
        a, b = states[start, position].tolist(), states[start + n, position].tolist()
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        norm = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
        angles.append(math.acos(max(-1.0, min(1.0, dot / norm))) / math.pi)
    return sum(angles) / len(angles)


@pytest.mark.parametrize("name", HEARING)
def test_decoding_gives_the_tokens_of_generate(name, models, data):
    """A batch through Shoal, whole and pruned, against `generate` one clip at a time by hand."""
    from shoal.evaluation.generate import generated, greedy

    loaded = models(name)
    if not loaded.family.writes:
        with pytest.raises(UsageError, match="speech only"):
            check_hears(loaded)
        return
    task, clips = tasks.get("asr"), list(data.clips(data.rows))
    for removed in ([], [1, 3]):
        with pruned(loaded.model, removed, family=loaded.family):
            batch = prepare(loaded, clips, task, input="speech", response=False, padding_side="left")
            if loaded.engine:
                ours = greedy(loaded.lm, batch, eos_ids=(), max_new_tokens=5)
                assert all(said == ours.tokens for said in continuously(loaded, batch))
            else:
                ours = generated(loaded.family.answering(loaded.model), batch, eos_ids=(), max_new_tokens=5)
            for clip, tokens in zip(clips, ours.tokens, strict=True):
                single = prepare(loaded, [clip], task, input="speech", response=False)
                theirs = (
                    loaded.family.answering(loaded.model)
                    .generate(**single.inputs, do_sample=False, max_new_tokens=5, min_new_tokens=5)[0]
                    .tolist()
                )
                assert theirs[-5:] == tokens
    note(name, evaluate="engine" if loaded.engine else "generate")


def continuously(loaded: LoadedModel, batch: PreparedBatch) -> list[list[list[int]]]:
    """What continuous batching says, in plain and in recorded steps, as far as the class allows them."""
    from shoal.evaluation.engine import Engine, prompts_of, supported
    from shoal.evaluation.engine.steps import EagerSteps, GraphSteps

    lm = loaded.lm
    if not supported(lm):
        return []
    recorded = [GraphSteps(lm, at_once=2, capture=lambda step, undo: step)] * lm._can_compile_fullgraph
    found = []
    for steps in (EagerSteps(lm, at_once=1), *recorded):
        engine = Engine(lm, eos_ids=(), slots=2, steps=steps)
        rows = {done.row: done.tokens for done in engine.run(prompts_of(batch, [5] * len(batch.ids)))}
        found.append([rows[row] for row in range(len(batch.ids))])
    return found


def expected_of(loaded: LoadedModel, removed: list[int]) -> Expectation:
    with pruned(loaded.model, removed, family=loaded.family) as model:
        return expectation(model, probe(loaded), family=loaded.family)


@pytest.fixture(scope="module")
def reports(folders, tmp_path_factory):
    """Class name → way → the checkpoint pruned in memory, or on disk, and what a fresh process says of it."""
    jobs: dict[tuple[str, str], tuple[Path, Expectation]] = {}
    for name in BUILDS:
        place = tmp_path_factory.mktemp("pruned")
        for way in WAYS[name]:
            jobs[name, way] = written(name, way, folders, place)
    found = dict(zip(jobs, verify_checkpoints(list(jobs.values())), strict=True))
    return {name: {way: (jobs[name, way][0], found[name, way]) for way in WAYS[name]} for name in BUILDS}


def written(name: str, way: str, folders: Any, place: Path) -> tuple[Path, Expectation]:
    """A pruned checkpoint, and what it has to be."""
    layers = PLANS.get(name, [1, 3])
    if way == "memory":
        loaded = load(folders(name))
        plan = manual(loaded.ref, loaded.info().depth, layers)
        return prune(loaded, plan, place / way, verify=False), expected_of(loaded, layers)
    # Published checkpoints come in half precision and in shards.
    source = BUILDS[name].write(place / "whole", dtype=torch.bfloat16, max_shard_size="60KB")
    half = load_model(str(source), device="cpu", dtype="stored", trust_remote_code=False, merge=False)
    plan = manual(str(source), half.info().depth, layers)
    return prune_folder(str(source), plan, place / way, verify=False), expected_of(half, layers)


@pytest.mark.parametrize("name", BUILDS)
def test_pruned_checkpoints_are_verified_in_a_fresh_process(name, reports):
    for way, (folder, report) in reports[name].items():
        assert report.passed, f"{way}: {report.failures}"
        again = load(folder)
        checks = CHECKS if again.family.cacheless else CHECKS[:-1]
        assert [check.name for check in report.checks] == checks
        # Where the field has another name in the file, nothing is said before the model is loaded.
        renamed = name.startswith(("Moonshine", "Nemotron"))
        assert stated_depth(folder) in ([None, len(again.layers)] if renamed else [len(again.layers)])
        assert len(again.layers) == BUILDS[name].depth - len(again.info().removed_layers)
        assert again.info().removed_layers == PLANS.get(name, [1, 3])
        note(name, checks=checks)
    if FULL:
        note(name, prune=["memory", "disk"])
