"""Plans for the attention or the MLP of layers, through everything that takes a plan."""

from __future__ import annotations

import pytest

from shoal import tasks
from shoal.benchmarking.memory import peak_memories
from shoal.benchmarking.memory_child import gone_without
from shoal.benchmarking.run import bench
from shoal.benchmarking.size import size_of
from shoal.cli import main
from shoal.errors import PlanError
from shoal.evaluation import evaluate
from shoal.pruning.from_folder import prune_folder
from shoal.pruning.in_memory import pruned
from shoal.pruning.on_disk import prune
from shoal.schema import Plan
from shoal.selection import mergekit_yaml
from tiny_speech import dataset, loaded
from tiny_speech import plan as whole


def plan(*layers: int, part: str) -> Plan:
    return whole(*layers).model_copy(update={"part": part})


@pytest.fixture
def model():
    return loaded()


def test_evaluation_tells_parts_of_the_same_layers_apart(model, tmp_path):
    data = dataset(tmp_path / "clips")
    plans = [whole(1, 2), plan(1, 2, part="attention"), plan(1, 2, part="mlp"), plan(0, 2, part="mlp")]
    few = {"replicates": 50, "batch_size": 6, "max_new_tokens": 12}
    scores = evaluate(model, data, plans=plans, out=tmp_path / "out", **few)
    files = {system.name: system.outputs_file for system in scores.systems}
    assert files == {
        "full": "outputs/full.jsonl",
        "manual-2": "outputs/without-1-to-2.jsonl",
        "manual-attention-2": "outputs/without-attention-1-to-2.jsonl",
        "manual-mlp-2": "outputs/without-mlp-1-to-2.jsonl",
        "manual-mlp-2#2": "outputs/without-mlp-0+2.jsonl",
    }
    said = [(tmp_path / "out" / name).read_text() for name in files.values()]
    assert len({"".join(line.split('"pred_text"')[1] for line in text.splitlines()) for text in said}) == 5
    assert evaluate(model, data, plans=plans, out=tmp_path / "out", **few).systems == scores.systems


def test_the_bench_counts_what_is_left(model, tmp_path):
    few = {"clips": 2, "repeats": 2, "new_tokens": 4, "replicates": 50}
    plans = [plan(1, part="attention"), plan(1, part="mlp"), whole(1)]
    found = bench(model, dataset(tmp_path), plans=plans, **few)
    full, *less = (system.parameters for system in found.systems)
    norms = 2 * model.decoder.config.hidden_size
    assert (full - less[0]) + (full - less[1]) + norms == full - less[2]
    assert found.systems[1].removed == [1]


def test_what_a_fresh_process_goes_without_takes_no_memory(model):
    with pruned(model.model, [1], part="mlp"):
        expected = size_of(model)
    mlp = model.layers[1].mlp
    with gone_without(model, [1], "mlp"):
        assert size_of(model) == expected
        assert all(weight.is_meta for weight in mlp.parameters())


def test_a_fresh_process_measures_a_model_without_attention(model, tmp_path):
    (clip, *_) = dataset(tmp_path / "clips").clips()
    model.model.save_pretrained(tmp_path / "model")
    model.processor.save_pretrained(tmp_path / "model")
    model.ref = str(tmp_path / "model")
    (peak,) = peak_memories(model, clip, tasks.get("asr"), [plan(1, part="attention")], new_tokens=3)
    assert peak > 50_000_000


def test_no_checkpoint_is_written_without_a_part(model, tmp_path):
    with pytest.raises(PlanError, match="only the attention"):
        prune(model, plan(1, part="attention"), tmp_path / "out")
    with pytest.raises(PlanError, match="only the MLP"):
        prune_folder(str(tmp_path), plan(1, part="mlp"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["memory", "disk"])
def test_the_command_refuses_in_one_line(tmp_path, capsys, how):
    plan(1, part="attention").save(tmp_path / "plan.json")
    where = ["prune", str(tmp_path), "--plan", str(tmp_path / "plan.json"), "--out", str(tmp_path / "out")]
    assert main([*where, "--how", how]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert "measured in memory" in error
    assert "stock classes have no layer without" in error


def test_mergekit_slices_whole_layers():
    with pytest.raises(PlanError, match="whole layers"):
        mergekit_yaml(plan(1, part="mlp"))
