"""Random plans over every architecture: each is refused, or gives a checkpoint that computes what it should.

The reference shares nothing with pruning: the unpruned model, as it is, with each removed layer bypassed (what comes
out of it is what went in). Config, masks, caches and indices are those of the whole model there, so a checkpoint that
describes the wrong layers cannot agree with it.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

import tiny_models
from full_run import FULL
from shoal.errors import ModelError, PlanError
from shoal.models import families
from shoal.models.contexts import quiet
from shoal.models.loading import load_model
from shoal.models.whole import reported
from shoal.pruning.on_disk import write_checkpoint
from shoal.pruning.probe import DECODING, probe
from shoal.pruning.sharded import write_sharded
from shoal.selection import manual
from tiny_audio import BUILDS

EXAMPLES = int(os.environ.get("SHOAL_EXAMPLES", "260" if FULL else "40"))
"""For each of the two ways; more of them, and others each time, with `SHOAL_EXAMPLES=5000`."""
NAMES = sorted({*tiny_models.BUILDERS, *BUILDS})
TOLERANCE = 2e-5
RANDOM_PLANS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="SHOAL_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@cache
def whole(name: str) -> tuple[PreTrainedModel, dict[str, Any], Path, TemporaryDirectory]:
    """The unpruned model, inputs for it (audio where it hears), and its checkpoint in small shards."""
    place = TemporaryDirectory(prefix="shoal-whole-")
    folder = Path(place.name)
    if name not in BUILDS:
        model = tiny_models.tiny(name, 6)
        with quiet():
            model.save_pretrained(folder, max_shard_size="60KB")
        return model, tiny_models.prompts(), folder, place
    with quiet():
        BUILDS[name].write(folder, max_shard_size="60KB")
    loaded = load_model(str(folder), device="cpu", dtype="float32", trust_remote_code=False)
    cases = {case: inputs for case, inputs in probe(loaded).items() if case != DECODING}
    return loaded.model, list(cases.values())[-1], folder, place


def bypassed(model: PreTrainedModel, removed: list[int], inputs: dict[str, Any]) -> torch.Tensor:
    """Logits of the whole model when the layers in `removed` hand on what they are given."""

    def hook(_: Any, args: Any, kwargs: Any, output: Any) -> Any:
        given = args[0] if args else kwargs["hidden_states"]
        return (given, *output[1:]) if isinstance(output, tuple) else given

    family = families.find(model)
    layers = family.layers(model)
    with ExitStack() as undo, torch.no_grad():
        for layer in removed:
            undo.callback(layers[layer].register_forward_hook(hook, with_kwargs=True).remove)
        return family.answering(model)(**inputs, use_cache=False).logits


def logits_of(folder: Path, inputs: dict[str, Any], depth: int) -> torch.Tensor:
    """Of the checkpoint, loaded by the class that it names."""
    config = transformers.AutoConfig.from_pretrained(folder)
    with quiet():
        model, report = reported(getattr(transformers, config.architectures[0]), folder)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[kind], f"{kind}: {sorted(report[kind])[:3]}"
    family = families.find(model.eval())
    assert family.depth(model) == depth
    with torch.no_grad():
        return family.answering(model)(**inputs, use_cache=False).logits


def compare(name: str, removed: list[int], write: Any) -> str:
    """`equal`, or the refusal's first words; anything else fails."""
    model, inputs, source, _ = whole(name)
    depth = families.find(model).depth(model)
    plan = manual(str(source), depth, removed, allow_last=True)
    with TemporaryDirectory(prefix="shoal-random-") as scratch:
        out = Path(scratch, "out")
        try:
            write(model, source, plan, out)
        except (ModelError, PlanError) as refusal:
            assert not list(Path(scratch).iterdir())
            return str(refusal)[:60]
        found, wanted = logits_of(out, inputs, depth - len(removed)), bypassed(model, removed, inputs)
    scale = max(1.0, wanted.abs().max().item())
    assert torch.allclose(found, wanted, atol=TOLERANCE * scale), f"{name} without {removed}"
    return "equal"


def plans(data: Any, names: list[str]) -> tuple[str, list[int]]:
    name = data.draw(st.sampled_from(names), label="architecture")
    depth = BUILDS[name].depth if name in BUILDS else 6
    layers = data.draw(st.lists(st.integers(0, depth - 1), min_size=1, max_size=depth - 1, unique=True), label="layers")
    return name, sorted(layers)


def from_memory(model: PreTrainedModel, source: Path, plan: Any, out: Path) -> None:
    write_checkpoint(model, plan, out, cases={}, source=source)


def from_disk(model: PreTrainedModel, source: Path, plan: Any, out: Path) -> None:
    write_sharded(
        source,
        plan,
        out,
        ref=str(source),
        licence=None,
        verify=None,
        force=False,
        trust_remote_code=False,
        progress=None,
    )


class TestInMemory:
    outcomes: ClassVar[Counter[str]] = Counter()

    @RANDOM_PLANS
    @given(st.data())
    def test_no_plan_gives_a_wrong_checkpoint(self, data):
        name, removed = plans(data, NAMES)
        self.outcomes[compare(name, removed, from_memory)] += 1

    def test_most_plans_are_carried_out(self):
        assert self.outcomes.total() >= EXAMPLES
        assert self.outcomes["equal"] > 0.7 * self.outcomes.total(), self.outcomes


class TestOnDisk:
    outcomes: ClassVar[Counter[str]] = Counter()

    @RANDOM_PLANS
    @given(st.data())
    def test_no_plan_gives_a_wrong_checkpoint(self, data):
        name, removed = plans(data, NAMES)
        self.outcomes[compare(name, removed, from_disk)] += 1

    def test_most_plans_are_carried_out(self):
        assert self.outcomes.total() >= EXAMPLES
        assert self.outcomes["equal"] > 0.7 * self.outcomes.total(), self.outcomes


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_sees_every_layer(name):
    """Bypassing any layer changes the logits: a test that could not fail would show nothing."""
    model, inputs, *_ = whole(name)
    plain = bypassed(model, [], inputs)
    for layer in range(families.find(model).depth(model)):
        assert not torch.allclose(bypassed(model, [layer], inputs), plain, atol=TOLERANCE)
