"""What the bench measures, on a tiny random SpeechLLM."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from shoal import tasks
from shoal.benchmarking.latency import Timings, estimate, time_systems
from shoal.benchmarking.run import _batches, bench
from shoal.benchmarking.settings import BenchSettings
from shoal.benchmarking.size import checkpoint_bytes, size_of
from shoal.cli.bench import advice, summary
from shoal.errors import PlanError, UsageError
from shoal.pruning.in_memory import pruned
from shoal.report import render
from shoal.schema import Bench
from tiny_speech import dataset, loaded, plan

FEW = {"clips": 2, "repeats": 2, "new_tokens": 4, "replicates": 50}


@pytest.fixture(scope="module")
def model():
    return loaded()


@pytest.fixture
def data(tmp_path):
    return dataset(tmp_path / "clips")


def test_figures_for_every_system_and_ratios_for_all_but_the_first(model, data, tmp_path):
    found = bench(model, data, plans=[plan(1), plan(0, 2)], out=tmp_path / "bench.json", **FEW)
    assert [system.name for system in found.systems] == ["full", "manual-1", "manual-2"]
    assert found.clips == FEW["clips"]
    for system in found.systems:
        seconds = system.encode_seconds.value + system.prefill_seconds.value + 3 * system.decode_seconds.value
        assert system.total_seconds.value == pytest.approx(seconds, rel=0.5)
        assert system.decode_seconds.low <= system.decode_seconds.value <= system.decode_seconds.high
        assert system.peak_memory_bytes is None
    full, one, two = found.systems
    assert full.total_ratio is None
    assert full.parameter_ratio is None
    assert full.parameters > one.parameters > two.parameters
    assert one.parameter_ratio == one.parameters / full.parameters
    assert two.checkpoint_ratio < one.checkpoint_ratio < 1
    assert one.encode_seconds == full.encode_seconds
    assert Bench.load(tmp_path / "bench.json") == found
    assert len(model.layers) == 4


def test_sizes_are_those_of_the_saved_checkpoint(model, tmp_path):
    model.model.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert checkpoint_bytes(model.model) == file.stat().st_size - header
    assert size_of(model).parameters == model.info().total_parameters


def test_a_plan_takes_away_exactly_its_layers_parameters(model):
    full = size_of(model)
    with pruned(model.model, [1, 2]):
        less = size_of(model)
    removed = sum(model.info().decoder_layer_parameters[1:3])
    assert full.parameters - less.parameters == removed
    assert full.decoder_parameters - less.decoder_parameters == removed
    assert full.checkpoint_bytes - less.checkpoint_bytes == 4 * removed


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_count_once(tied):
    small = loaded(tie_word_embeddings=tied)
    embedding = small.model.get_input_embeddings().weight.numel()
    stack = sum(parameter.numel() for parameter in small.decoder.parameters())
    assert size_of(small).decoder_parameters == stack + (0 if tied else embedding)


def test_systems_take_turns(model, data, monkeypatch):
    from shoal.benchmarking import latency

    order = []
    real = latency._decode

    def decode(loaded, batch, layers, new_tokens):
        order.append(tuple(layers))
        return real(loaded, batch, layers, new_tokens)

    monkeypatch.setattr(latency, "_decode", decode)
    clips = list(data.clips())[:1]
    systems = [[], [1], [2]]
    timings = time_systems(model, [clips], tasks.get("asr"), systems, repeats=3, new_tokens=2)
    rounds = [order[at : at + 3] for at in range(0, len(order), 3)]
    assert len(rounds) == 4
    assert all(set(each) == {(), (1,), (2,)} for each in rounds)
    assert {each[0] for each in rounds} == {(), (1,), (2,)}
    assert timings.prefill.shape == (3, 1, 3)
    assert (timings.total > 0).all()


def test_a_batch_is_divided_among_its_clips(model, data):
    clips = list(data.clips())[:4]
    timings = time_systems(model, [clips], tasks.get("asr"), [[]], repeats=1, new_tokens=3)
    parts = timings.encode + timings.prefill[0] + 2 * timings.token[0]
    assert timings.total[0] == pytest.approx(parts)


def test_clips_come_from_the_whole_range_of_durations(data):
    (batch,) = _batches(data, BenchSettings(clips=3, batch_size=3))
    lengths = [round(clip.row.duration, 1) for clip in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths == [0.7, 0.5, 0.3]
    assert len(_batches(data, BenchSettings(clips=99))) == 6


def test_estimate_is_the_mean_of_medians_and_its_interval_equals_plain_loops():
    rng = np.random.default_rng(0)
    values = rng.gamma(5, 1, (8, 1)) + rng.gamma(2, 0.2, (8, 5))
    found = estimate(values, replicates=4000)
    assert found.value == pytest.approx(np.mean([sorted(row)[2] for row in values.tolist()]))
    medians = [sorted(row)[2] for row in values.tolist()]
    slow = []
    for _ in range(4000):
        drawn = [medians[rng.integers(8)] for _ in range(8)]
        slow.append((np.mean(drawn) - np.mean(medians)) / max(np.std(drawn), np.std(medians) / 8**0.5) * 7**0.5)
    student, error = stats.t.ppf(0.975, 7), np.std(medians) / 7**0.5
    high = np.mean(medians) + max(student, -np.quantile(slow, 0.025)) * error
    low = np.mean(medians) - max(student, np.quantile(slow, 0.975)) * error
    assert found.low == pytest.approx(low, abs=0.08 * (high - low))
    assert found.high == pytest.approx(high, abs=0.08 * (high - low))


def test_ratios_are_means_of_ratios_and_every_table_says_so(model, data, tmp_path, monkeypatch):
    """A short clip takes as long as before and a long one half as long: 0.75 on average, and 0.545 of the seconds."""
    seconds = np.array([[[1.0], [10.0]], [[1.0], [5.0]]])  # (systems, clips, rounds)
    timings = Timings(encode=np.full((2, 1), 0.1), prefill=seconds, token=seconds, total=seconds)
    monkeypatch.setattr("shoal.benchmarking.run.time_systems", lambda *_, **__: timings)
    document = bench(model, data, plans=[plan(1)], **FEW)
    full, cut = document.systems
    assert (full.total_seconds.value, cut.total_seconds.value, cut.total_ratio.value) == (5.5, 3.0, 0.75)
    assert "mean ratio: a mean over clips of ratios" in summary(document)[0]
    assert "of the unpruned model's time for a clip on average" in advice(document)[0]
    page = render([document], tmp_path / "report.html").read_text()
    assert "not the ratio of the mean times" in page


def test_a_single_measurement_has_no_interval():
    assert estimate(np.array([[2.0]])).low is None


def test_one_disturbed_round_does_not_count():
    assert estimate(np.array([[1.0, 1.0, 90.0]])).value == 1.0


@pytest.mark.parametrize("option", ["clips", "repeats", "batch_size", "new_tokens"])
def test_numbers_that_are_too_small_are_refused(model, data, option):
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')}: 0 does not fit"):
        bench(model, data, **{**FEW, option: 0})


def test_a_plan_for_another_depth_is_refused(model, data):
    with pytest.raises(PlanError, match="5 layers"):
        bench(model, data, plans=[plan(1, depth=5)], **FEW)


def test_the_same_bench_is_not_measured_again_memory_is_added_and_another_is_refused(
    model, data, tmp_path, monkeypatch
):
    from shoal.benchmarking import run

    out, stages = tmp_path / "bench.json", []
    first = bench(model, data, plans=[plan(1)], out=out, **FEW)
    timed = run.time_systems
    monkeypatch.setattr(run, "time_systems", lambda *_, **__: pytest.fail("timed again"))
    again = bench(model, data, plans=[plan(1)], out=out, progress=lambda *stage: stages.append(stage), **FEW)
    assert (again, stages) == (first, [("time", 4, 4)])
    monkeypatch.setattr(run, "peak_memories", lambda *_, **__: [100, 75])
    more = bench(model, data, plans=[plan(1)], out=out, memory=True, **FEW)
    assert [system.peak_memory_bytes for system in more.systems] == [100, 75]
    assert [system.peak_memory_ratio for system in more.systems] == [None, 0.75]
    assert more.systems[1].total_seconds == first.systems[1].total_seconds
    assert bench(model, data, plans=[plan(1)], out=out, **FEW) == more == Bench.load(out)
    with pytest.raises(UsageError, match=r"it holds a bench with systems.manual-1 \[1\], not null.*--force"):
        bench(model, data, out=out, **FEW)
    with pytest.raises(UsageError, match=r"repeats 2, not 3"):
        bench(model, data, plans=[plan(1)], out=out, **{**FEW, "repeats": 3})
    monkeypatch.setattr(run, "time_systems", timed)
    assert len(bench(model, data, out=out, force=True, **FEW).systems) == 1
