"""What Shoal promises for every text LLM class, over tiny builds: pruned both ways, verified in a fresh process."""

from __future__ import annotations

import pytest

from families_record import note, parts_of
from full_run import FULL, in_turn
from shoal.models.stated_depth import stated_depth
from shoal.pruning.in_memory import pruned
from shoal.pruning.on_disk import write_checkpoint
from shoal.pruning.sharded import write_sharded
from shoal.pruning.verify import expectation, verify_checkpoints
from shoal.selection import manual
from tiny_models import BUILDERS, prompts, tiny

CHECKS = ["load", "keys", "depth", "config", "tensors", "logits", "round_trip", "cache"]
WAYS = in_turn(list(BUILDERS), ["memory", "disk"])
CASES = {"padded": prompts(2, 9), "single": prompts(1, 5, padding=0, seed=2)}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Architecture → way → what a fresh process says of its checkpoint pruned in memory, or on disk."""
    jobs = {}
    for name in BUILDERS:
        place, model = tmp_path_factory.mktemp(name), tiny(name)
        model.save_pretrained(place / "whole", max_shard_size="60KB")
        assert stated_depth(place / "whole") in ([None] if name in ("gpt2", "gpt_neo") else [6])
        plan = manual(name, 6, [1, 3])
        with pruned(model, plan):
            expected = expectation(model, CASES)
        for way in WAYS[name]:
            if way == "memory":
                folder = write_checkpoint(model, plan, place / way, cases={})
            else:
                folder = write_sharded(place / "whole", plan, place / way, ref=name)
            jobs[name, way] = folder, expected
    found = dict(zip(jobs, verify_checkpoints(list(jobs.values())), strict=True))
    return {name: {way: found[name, way] for way in WAYS[name]} for name in BUILDERS}


@pytest.mark.parametrize("name", BUILDERS)
def test_pruned_checkpoints_are_verified_in_a_fresh_process(name, reports):
    for way, report in reports[name].items():
        assert report.passed, f"{way}: {report.failures}"
        assert [check.name for check in report.checks] == CHECKS
    model = tiny(name)
    note(type(model).__name__, **parts_of(model), checks=CHECKS)
    if FULL:
        note(type(model).__name__, prune=["memory", "disk"])
