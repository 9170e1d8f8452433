"""Rank correlations and overlaps against their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shoal.comparison.audits import block_overlap, compare_scope, within_sizes
from shoal.errors import FileFormatError
from shoal.measurement.blocks import block_ends, block_slice, to_triangle
from shoal.measurement.collector import UtteranceSums
from shoal.measurement.metrics import metric_slices
from shoal.measurement.settings import AuditSettings
from shoal.measurement.summary import summarise
from shoal.measurement.sums import Sums, SumsFile, SumsWriter, load_sums, save_sums
from shoal.schema import SCOPES
from shoal.statistics import halves_of, make_resampler, ranks, spearman
from synthetic_audits import slow_spearman

DEPTH = 6
COLUMNS = max(part.stop for part in metric_slices(DEPTH).values())


def make_sums(seed: int, utterances: int = 9, noise: float = 0.01) -> Sums:
    """Positions 1 … 9 an utterance, means near a fixed random profile; the audio scope is empty."""
    profile = np.random.default_rng(0).random(COLUMNS)
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 10, (utterances, len(SCOPES)))
    counts[:, SCOPES.index("audio")] = 0
    values = counts[:, :, None] * (profile + noise * rng.normal(size=(utterances, len(SCOPES), COLUMNS)))
    names = [f"u{i}" for i in range(utterances)]
    return Sums(DEPTH, names, [None] * utterances, values, counts.astype(np.int64))


def slow_ranks(values: list[float]) -> list[float]:
    return [sum(other < v for other in values) + (sum(other == v for other in values) - 1) / 2 for v in values]


def test_blocks_are_laid_out_by_size_then_start() -> None:
    starts, stops = block_ends(3)
    assert list(zip(starts.tolist(), stops.tolist(), strict=True)) == [
        (0, 1),
        (1, 2),
        (2, 3),
        (0, 2),
        (1, 3),
        (0, 3),
    ]
    flat = np.arange(6.0)
    assert to_triangle(flat, 3) == [[0, 1, 2], [3, 4], [5]]
    assert (np.concatenate(to_triangle(flat, 3)) == flat).all()


def test_ranks_share_ties_like_the_definition() -> None:
    rows = np.random.default_rng(0).integers(0, 5, (20, 13)).astype(float)
    assert ranks(rows).tolist() == [slow_ranks(row) for row in rows.tolist()]


def test_spearman_equals_pearson_of_ranks() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.random((5, 30)), rng.random((5, 30))
    expected = [np.corrcoef(slow_ranks(a), slow_ranks(b))[0, 1] for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    assert spearman(x, y) == pytest.approx(expected)
    assert spearman(np.ones((1, 4)), rng.random((1, 4))) == [0]


def test_overlap_counts_shared_layers() -> None:
    x, y = np.ones((1, COLUMNS)), np.ones((1, COLUMNS))
    part = block_slice(DEPTH, 4)
    x[0, part.start + 0] = 0
    y[0, part.start + 1] = 0
    assert block_overlap(x, y, DEPTH, 4) == [3 / 4]
    part = block_slice(DEPTH, 2)
    x[0, part.start], y[0, part.start + 3] = 0, 0
    assert block_overlap(x, y, DEPTH, 2) == [0]


def test_an_audit_is_identical_to_itself() -> None:
    sums = make_sums(1)
    halves = halves_of(make_resampler([None] * 9, replicates=0, seed=0))
    found = compare_scope(sums, sums, "all", halves, halves).metrics["angular"]
    assert found.spearman.value == found.spearman_within_n.value == found.mean_overlap.value == 1
    assert found.disattenuated == pytest.approx(1)
    assert 0.9 < found.reliability_a == found.reliability_b <= 1
    one = halves_of(make_resampler([None], replicates=0, seed=0))
    found = compare_scope(make_sums(1, 1), make_sums(2, 1), "all", one, one).metrics["influence"]
    assert (found.reliability_a, found.disattenuated) == (None, None)


def test_what_two_audits_share_is_found_under_the_noise_of_their_clips() -> None:
    """One profile measured twice on other clips: noise lowers the observed correlation, and is taken out again."""
    a, b = (make_sums(seed, 40, noise=0.8) for seed in (1, 2))
    halves = [halves_of(make_resampler([None] * 40, replicates=0, seed=seed)) for seed in (0, 1)]
    found = compare_scope(a, b, "all", *halves).metrics["angular"]
    slow = sum(slow_half(a, b, k, *halves) for k in range(40)) / 40
    pairs = zip((a, b), halves, strict=True)
    own = [sum(slow_half(side, side, k, half, half) for k in range(40)) / 40 for side, half in pairs]
    assert found.reliability_a == pytest.approx(2 * own[0] / (1 + own[0]))
    assert found.disattenuated == pytest.approx(min(1, slow / (own[0] * own[1]) ** 0.5))
    assert found.spearman_within_n.value < 0.9 < found.disattenuated


def slow_half(a: Sums, b: Sums, k: int, halves_a, halves_b) -> float:
    """Rank correlation of the first side on half k with the second on the other half, mean over sizes below L."""
    triangles = []
    for sums, halves, row in ((a, halves_a, k), (b, halves_b, k ^ 1)):
        chosen = [u for u in range(len(sums.utterances)) if halves.weights[row, halves.groups[u]]]
        part = metric_slices(DEPTH)["angular"]
        positions = sum(sums.counts[u, 0] for u in chosen)
        triangles.append([sum(sums.values[u, 0, c] for u in chosen) / positions for c in range(part.start, part.stop)])
    sizes = [block_slice(DEPTH, n) for n in range(1, DEPTH)]
    return sum(slow_spearman(triangles[0][size], triangles[1][size]) for size in sizes) / len(sizes)


def test_within_sizes_ignores_that_distance_grows_with_n() -> None:
    """Two unrelated triangles that only share the trend over n correlate overall, not within sizes."""
    rng = np.random.default_rng(3)
    depth = 12
    trend = np.concatenate([np.full(depth - n + 1, float(10 * n)) for n in range(1, depth + 1)])
    x, y = (trend + rng.random((1, len(trend))) for _ in range(2))
    assert spearman(x, y)[0] > 0.95
    assert abs(within_sizes(x, y, depth)[0]) < 0.6


def test_summary_names_the_best_block_and_its_rival() -> None:
    sums = make_sums(1, noise=0.2)
    result = summarise(sums, "speech", AuditSettings(replicates=200))
    assert "audio" in result.empty_scopes
    angular = result.scopes["all"].metrics["angular"]
    for best in angular.best:
        row = angular.values[best.n - 1]
        assert best.layer == row.index(min(row))
        assert best.distance.low <= best.distance.value <= best.distance.high
        assert 0 <= best.selection_frequency <= 1
        assert best.layer in best.confidence_set
        assert best.selection_frequency < 1 or not best.rivals
    assert angular.best[-1].selection_frequency == 1
    assert any(best.rivals for best in angular.best)


def test_one_utterance_has_no_interval() -> None:
    scope = summarise(make_sums(1, 1), "text", AuditSettings(replicates=50)).scopes["all"]
    assert scope.metrics["angular"].low is None
    best = scope.metrics["angular"].best[0]
    assert (best.selection_frequency, best.confidence_set) == (None, [])


def test_sums_survive_the_disk(tmp_path: Path) -> None:
    sums = make_sums(5)
    writer = SumsWriter(DEPTH, tmp_path)
    for row, name in enumerate(sums.utterances):
        writer.add(UtteranceSums(name, sums.values[row], sums.counts[row]))
    spooled = writer.finish(["s", None, "t"] * 3)
    path = save_sums(tmp_path / "audit.npz", SumsFile({"speech": spooled}, {"task": "asr"}, 1.5))
    found = load_sums(path)
    assert (found.measured_on, found.seconds) == ({"task": "asr"}, 1.5)
    assert (found.inputs["speech"].values == sums.values).all()
    assert found.inputs["speech"].speakers[:3] == ["s", None, "t"]
    assert [each.name for each in tmp_path.iterdir()] == ["audit.npz"]


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut"])
def test_a_broken_npz_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "audit.npz").write_bytes(content)
    with pytest.raises(FileFormatError, match="run the audit again"):
        load_sums(tmp_path / "audit.npz")
