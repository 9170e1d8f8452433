"""Gemma 3n, whose class needs timm for a vision tower that Shoal never runs: here a stand-in is there for it.

What the contract shows in a fresh process is shown in this one, since the stand-in is only here.
"""

from __future__ import annotations

import pytest
import test_audio_contract as contract
from test_audio_contract import data, folders  # noqa: F401 - fixtures
from torch import nn
from transformers import PreTrainedModel
from transformers.models.gemma3n import configuration_gemma3n
from transformers.models.timm_wrapper import modeling_timm_wrapper

import tiny_audio
from families_record import note
from shoal.pruning.from_folder import prune_folder
from shoal.pruning.in_memory import pruned
from shoal.pruning.on_disk import prune
from shoal.pruning.probe import probe
from shoal.pruning.verify import expectation
from shoal.pruning.verify_child import checkpoint_checks
from shoal.selection import manual
from tiny_audio.gemma3n import NEEDS_TIMM

NAME = "Gemma3nForConditionalGeneration"


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    def init(self, config):
        PreTrainedModel.__init__(self, config)
        self.timm_model = nn.Linear(2, 2)
        self.post_init()

    monkeypatch.setattr(modeling_timm_wrapper.TimmWrapperModel, "__init__", init)
    monkeypatch.setattr(configuration_gemma3n, "requires_backends", lambda *needed: None)
    monkeypatch.setattr(configuration_gemma3n, "infer_imagenet_subset", lambda config: None, raising=False)
    monkeypatch.setitem(tiny_audio.BUILDS, NAME, NEEDS_TIMM[NAME])


def test_its_parts_are_found():
    contract.test_parts_are_where_the_family_says(NAME)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_audit_equals_loops_over_the_four_states_of_altup(side, folders, data):  # noqa: F811
    contract.test_the_audit_equals_loops_over_the_states_of_the_stock_forward(NAME, side, folders, data)


def test_decoding_gives_the_tokens_of_generate(folders, data):  # noqa: F811
    contract.test_decoding_gives_the_tokens_of_generate(NAME, lambda name: contract.load(folders(name)), data)


@pytest.mark.parametrize("layers", [[1, 3], [0, 5, 7]])
def test_a_pruned_checkpoint_passes_all_checks(layers, folders, tmp_path):  # noqa: F811
    loaded = contract.load(folders(NAME))
    plan = manual(loaded.ref, loaded.info().depth, layers)
    with pruned(loaded.model, plan, family=loaded.family) as model:
        expected = expectation(model, probe(loaded), family=loaded.family)
    for write, source in ((prune, loaded), (prune_folder, loaded.ref)):
        out = write(source, plan, tmp_path / write.__name__, verify=False)
        checks = checkpoint_checks(out, expected.facts, expected.tensors)
        assert [check["name"] for check in checks if check["passed"]] == contract.CHECKS, checks
    how = "in the tests' process, with a stand-in for its vision tower (it needs timm)"
    note(NAME, prune=["memory", "disk"], checks=contract.CHECKS, how=how)
