"""Gemma 3n and Gemma 4 as text models: layers that read the tokens, not only their embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_audio_contract import mean_angle, stock_states
from transformers import (
    Gemma3nForCausalLM,
    Gemma3nTextConfig,
    Gemma4ForCausalLM,
    Gemma4UnifiedForCausalLM,
)

from families_record import note, parts_of
from full_run import FULL, in_turn
from shoal import tasks
from shoal.decoder.prepare import prepare
from shoal.evaluation.generate import generated
from shoal.measurement.collector import collect
from shoal.models.loading import load_model
from shoal.pruning.from_folder import prune_folder
from shoal.pruning.in_memory import pruned
from shoal.pruning.on_disk import prune
from shoal.schema import SCOPES
from shoal.schema.verification import REPORT_FILE, VerificationReport
from shoal.selection import manual
from tiny_audio import gemma3n, gemma4, gemma4_unified
from tiny_audio.parts import randomised, tokenizer
from tiny_speech import dataset

DEPTH = gemma4.DEPTH
BUILDS = {
    "gemma3n": lambda: Gemma3nForCausalLM(Gemma3nTextConfig(**gemma3n.decoder(DEPTH))),
    "gemma4": lambda: Gemma4ForCausalLM(gemma4.build(DEPTH).config.text_config),
    "gemma4_unified": lambda: Gemma4UnifiedForCausalLM(gemma4_unified.build(DEPTH).config.text_config),
}


WAYS = in_turn(list(BUILDS), ["memory", "disk"])


@pytest.fixture(params=BUILDS)
def loaded(request, tmp_path):
    randomised(BUILDS[request.param]()).save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    return load_model(str(tmp_path / "model"), device="cpu", dtype="float32", trust_remote_code=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("clips"), 2)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_audit_equals_loops_over_the_states_of_the_stock_forward(loaded, side, data):
    loaded.model.double()
    clips, task, depth = list(data.clips(data.rows)), tasks.get("asr"), len(loaded.layers)
    batch = prepare(loaded, clips, task, input="text", response=True, padding_side=side)
    found = collect(loaded.decoder, loaded.layers, [batch], state=loaded.family.state)
    for clip, sums in zip(clips, found, strict=True):
        single = prepare(loaded, [clip], task, input="text", response=True)
        states = stock_states(loaded, {"input_ids": single.token_ids})
        wanted = [mean_angle(states, 0, n, start) for n in range(1, depth + 1) for start in range(depth - n + 1)]
        kept = SCOPES.index("all")
        assert np.allclose(sums.sums[kept][: len(wanted)] / sums.counts[kept], wanted, atol=1e-6)
    note(type(loaded.model).__name__, audit=["text"])


def test_decoding_gives_the_tokens_of_generate_where_the_engine_does_not(loaded, data):
    assert loaded.engine == (loaded.model.config.model_type == "gemma4_unified_text")
    if loaded.engine:
        return
    clips, task = list(data.clips(data.rows)), tasks.get("asr")
    with pruned(loaded.model, [1, 3], family=loaded.family):
        batch = prepare(loaded, clips, task, input="text", response=False)
        ours = generated(loaded.model, batch, eos_ids=(), max_new_tokens=5)
        for clip, tokens in zip(clips, ours.tokens, strict=True):
            ids = prepare(loaded, [clip], task, input="text", response=False).token_ids
            theirs = loaded.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, min_new_tokens=5, do_sample=False
            )
            assert theirs[0, -5:].tolist() == tokens


def test_a_pruned_checkpoint_is_verified_in_a_fresh_process(request, loaded, tmp_path):
    plan = manual(loaded.ref, DEPTH, [1, 3, 6])
    for way in WAYS[request.node.callspec.params["loaded"]]:
        write, source = (prune, loaded) if way == "memory" else (prune_folder, loaded.ref)
        out = write(source, plan, tmp_path / way)
        again = load_model(str(out), device="cpu", dtype="float32", trust_remote_code=False)
        assert len(again.layers) == DEPTH - 3
        checks = [check.name for check in VerificationReport.load(out / REPORT_FILE).checks]
    note(type(loaded.model).__name__, **parts_of(loaded.model), checks=checks)
    if FULL:
        note(type(loaded.model).__name__, prune=["memory", "disk"])
