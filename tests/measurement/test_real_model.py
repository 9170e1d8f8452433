"""The numbers on a real model: SmolLM2-135M in float64 against loops that share no code with the collector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import shoal
from full_run import FULL
from shoal import tasks
from shoal.decoder.prepare import prepare
from shoal.demo import clips_manifest
from shoal.measurement.collector import UtteranceSums, collect
from shoal.measurement.metrics import metric_slices
from shoal.models.loading import LoadedModel
from shoal.schema import SCOPES

pytestmark = pytest.mark.weights
CLIPS = 16 if FULL else 6


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    loaded = shoal.load("pkg:smollm2-135m-instruct")
    loaded.model.double()
    return loaded


@pytest.fixture(scope="module")
def clips() -> list:
    found = list(shoal.read_manifests([clips_manifest()]).clips())
    return sorted(found, key=lambda clip: len(clip.row.text))[2 : 2 + CLIPS]


def measured(model: LoadedModel, clips: list, side: str, size: int) -> dict[str, UtteranceSums]:
    batches = [
        prepare(model, clips[at : at + size], tasks.get("asr"), input="text", response=True, padding_side=side)
        for at in range(0, len(clips), size)
    ]
    return {item.id: item for item in collect(model.decoder, model.layers, batches)}


@pytest.fixture(scope="module")
def batched(model: LoadedModel, clips: list) -> dict[str, UtteranceSums]:
    return measured(model, clips, "right", CLIPS)


def loop(model: LoadedModel, clip: object) -> tuple[np.ndarray, np.ndarray]:
    """Angular distances [l][m] between boundaries and influence [l], each (positions), of one clip by itself."""
    batch = prepare(model, [clip], tasks.get("asr"), input="text", response=True, padding_side="right")
    rows: list[np.ndarray] = [batch.embeds[0].numpy()]
    handles = [
        layer.register_forward_hook(lambda _module, _args, out: rows.append(out[0].numpy()))
        for layer in model.model.model.layers
    ]
    with torch.inference_mode():
        model.model(inputs_embeds=batch.embeds)
    for handle in handles:
        handle.remove()
    count, depth = len(rows[0]), len(rows) - 1
    angles, influence = np.zeros((depth + 1, depth + 1, count)), np.zeros((depth, count))
    for first in range(depth + 1):
        for last in range(first + 1, depth + 1):
            for position in range(count):
                a, b = rows[first][position], rows[last][position]
                cosine = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
                angles[first, last, position] = np.arccos(np.clip(cosine, -1, 1)) / np.pi
                if last == first + 1:
                    influence[first, position] = 1 - cosine
    return angles, influence


def test_every_block_and_layer_equals_the_loop(
    model: LoadedModel, clips: list, batched: dict[str, UtteranceSums]
) -> None:
    clip = min(clips, key=lambda clip: len(clip.row.text))
    angles, influence = loop(model, clip)
    depth = len(influence)
    kinds = prepare(model, [clip], tasks.get("asr"), input="text", response=True, padding_side="right").kinds[0]
    positions = {"all": kinds > 0, "audio": kinds == 1, "prompt": kinds == 2, "response": kinds == 3}
    last = max(i for i, kind in enumerate(kinds.tolist()) if kind in (1, 2))
    positions["last"] = torch.arange(len(kinds)) == last
    for index, scope in enumerate(SCOPES):
        at = positions[scope].numpy()
        means = batched[clip.id].sums[index] / batched[clip.id].counts[index]
        expected = [angles[l, l + n, at].mean() for n in range(1, depth + 1) for l in range(depth - n + 1)]  # noqa: E741
        assert means[metric_slices(depth)["angular"]].tolist() == pytest.approx(expected, abs=1e-6)
        assert means[metric_slices(depth)["influence"]].tolist() == pytest.approx(influence[:, at].mean(1), abs=1e-6)


@pytest.mark.parametrize(("side", "size"), [("left", CLIPS), ("left", 1)])
def test_padding_side_and_batch_size_do_not_matter(
    model: LoadedModel, clips: list, batched: dict[str, UtteranceSums], side: str, size: int
) -> None:
    for name, item in measured(model, clips, side, size).items():
        assert (item.counts == batched[name].counts).all()
        assert np.abs(item.sums - batched[name].sums).max() / item.counts.max() < 1e-6


def test_the_audit_of_a_text_llm_needs_no_encoder(tmp_path: Path) -> None:
    loaded = shoal.load("pkg:smollm2-135m-instruct")
    data = shoal.read_manifests([clips_manifest()], limit=4)
    audit = shoal.audit(loaded, data, out=tmp_path, replicates=20)
    assert (audit.depth, set(audit.inputs), audit.model.encoder_parameters) == (30, {"text"}, 0)
    assert len(audit.model.decoder_layer_parameters) == 30
