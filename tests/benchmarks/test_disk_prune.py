"""The disk benchmark writes a checkpoint that is one, and notices outputs that are not the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SMALL = {"layers": 4, "hidden": 16, "intermediate": 24, "heads": 4, "kv_heads": 2, "vocabulary": 50}
SHARD = 6000


@pytest.fixture
def part(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield lambda name: __import__(name, fromlist=["it"])
    for name in [name for name in sys.modules if name.partition(".")[0] in ("support", "disk_prune")]:
        del sys.modules[name]


@pytest.fixture
def checkpoint(part, tmp_path):
    big = part("support.big_checkpoint")
    big.write_checkpoint(tmp_path / "source", big.Shape(**SMALL), shard=SHARD)
    return tmp_path / "source"


def test_the_default_shape_is_that_of_an_8b_model(part):
    assert part("support.big_checkpoint").Shape().size == 2 * 8_030_261_248


def test_the_checkpoint_has_the_keys_of_its_class_in_files_of_the_size_asked_for(part, checkpoint):
    files = sorted(checkpoint.glob("*.safetensors"))
    index = json.loads((checkpoint / "model.safetensors.index.json").read_text())
    sizes = [sum(value.nbytes for value in load_file(file).values()) for file in files]
    assert len(files) > 1
    assert max(sizes) <= SHARD
    assert sum(sizes) == index["metadata"]["total_size"]
    assert {name for file in files for name in load_file(file)} == set(index["weight_map"])
    assert part("support.same_tensors").wrong_keys(checkpoint) == []


def test_its_values_are_finite_and_no_two_tensors_are_alike(part, checkpoint):
    tensors = {k: v for file in checkpoint.glob("*.safetensors") for k, v in load_file(file).items()}
    assert all(value.dtype == torch.bfloat16 and value.isfinite().all() for value in tensors.values())
    digests = part("support.same_tensors").digests(checkpoint)
    assert len(set(digests.values())) == len(digests) == len(tensors)


def test_it_is_not_written_twice_but_anew_for_another_shape(part, checkpoint):
    big = part("support.big_checkpoint")
    file = sorted(checkpoint.glob("*.safetensors"))[0]
    before = file.stat().st_mtime_ns
    big.write_checkpoint(checkpoint, big.Shape(**SMALL), shard=SHARD)
    assert file.stat().st_mtime_ns == before
    big.write_checkpoint(checkpoint, big.Shape(**SMALL | {"layers": 3}), shard=SHARD)
    assert part("support.same_tensors").wrong_keys(checkpoint) == []


def test_a_tensor_longer_than_the_block_goes_round_it(part):
    big = part("support.big_checkpoint")
    block = np.arange(10, dtype=np.uint16)
    found = np.concatenate(list(big.tensor_parts(block, 7, 23)))
    start = 7 * 104729 % 10
    assert found.tolist() == [(start + i) % 10 for i in range(23)]


def test_a_changed_a_missing_and_a_retyped_tensor_are_noticed(part, tmp_path):
    same = part("support.same_tensors")
    tensors = {name: torch.full((2, 3), float(number)) for number, name in enumerate("abcd")}
    other = {"a": tensors["a"].clone(), "b": tensors["b"] + 1, "c": tensors["c"].to(torch.bfloat16)}
    for name, values in (("one", tensors), ("two", other)):
        (tmp_path / name).mkdir()
        save_file(values, tmp_path / name / "model.safetensors")
    one, two = (same.digests(tmp_path / name) for name in ("one", "two"))
    assert same.differing(one, two) == ["b", "c", "d"]
    assert same.differing(one, one) == []


def test_keys_that_the_class_does_not_expect_are_noticed(part, checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    wrong = part("support.same_tensors").wrong_keys(checkpoint)
    assert len(wrong) == 9
    assert all(name.startswith("model.layers.3.") for name in wrong)


def test_what_stays_is_counted_without_the_removed_layers(part, checkpoint):
    disk, big = part("disk_prune"), part("support.big_checkpoint")
    shape, smaller = big.Shape(**SMALL), big.Shape(**SMALL | {"layers": 1})
    assert disk.Removal(checkpoint, shape, 1, 4).kept_bytes == smaller.size
    assert disk.ratio([2.0, 3.0, 9.0], [1.0, 1.0, 3.0]) == 3.0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_a_command_is_seen(part, tmp_path):
    watched = part("support.watched")
    code = "import time; held = bytearray(b'x') * 80_000_000; time.sleep(0.5)"
    usage = watched.watch([sys.executable, "-c", code], tmp_path / "log")
    assert usage.resident >= usage.anonymous >= 80_000_000
    with pytest.raises(watched.CommandError, match="exit 3"):
        watched.watch([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log")
