"""Documents about a tiny checkpoint, made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shoal.schema import (
    Bench,
    Counts,
    DataInfo,
    Delta,
    Estimate,
    GroupScore,
    MeasuredScore,
    ModelInfo,
    Plan,
    Provenance,
    Scores,
    SystemBench,
    SystemScores,
)


def loaded_as_the_card_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the lines of Python in a checkpoint's card define when they are run in its folder."""
    lines = (folder / "README.md").read_text().partition("```python\n")[2].partition("\n```")[0]
    assert lines
    names: dict[str, Any] = {}
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        exec(lines, names)
    return names


def provenance(created: str = "2026-01-01T00:00:00+00:00", **fields: Any) -> Provenance:
    return Provenance(shoal="0", created=created, **fields)


def plan(layers: list[int], depth: int = 6, **extra: Any) -> Plan:
    return Plan(provenance=provenance(), model_ref="tiny", depth=depth, layers=layers, **extra)


def around(value: float, reach: float = 0.01) -> Estimate:
    return Estimate(value=value, low=value - reach, high=value + reach)


def delta(absolute: float, relative: float | None, reach: float = 0.01, p: float = 0.01) -> Delta:
    return Delta(
        absolute=around(absolute, reach),
        relative=None if relative is None else around(relative, reach),
        p_value=p,
        p_holm=min(1, 2 * p),
    )


def system(name: str, wer: float = 0.2, change: Delta | None = None, **fields: Any) -> SystemScores:
    counts = Counts(hits=8, substitutions=1, insertions=0, deletions=1)
    removed = fields["plan"].layers if fields.get("plan") else []
    rates = {"WER": error_rate(wer, change, edits=counts), "CER": error_rate(wer / 2, edits=counts)}
    return SystemScores(name=name, **{"removed": removed, "measures": rates, **fields})


def error_rate(value: float, change: Delta | None = None, **fields: Any) -> MeasuredScore:
    return measure(value, change, higher_is_better=False, **fields)


def group(wer: float, change: Delta | None = None, clips: int = 40) -> GroupScore:
    return GroupScore(clips=clips, measures={"WER": error_rate(wer, change)})


def measure(value: float, change: Delta | None = None, **fields: Any) -> MeasuredScore:
    known = {"higher_is_better": True, "fraction": True, "signature": "mine"}
    return MeasuredScore(value=around(value), delta=change, **(known | fields))


def info(fingerprint: str = "own", **fields: Any) -> ModelInfo:
    known = {
        "ref": "some/model",
        "kind": "causal_lm",
        "class_name": "LlamaForCausalLM",
        "family": "causal_lm",
        "depth": 6,
        "hidden_size": 32,
    }
    return ModelInfo(**(known | fields), fingerprint=fingerprint)


def data(name: str = "calls/manifest.jsonl", clips: int = 400, **fields: Any) -> DataInfo:
    known = {"languages": ["en"], "fingerprint": name}
    return DataInfo(manifests=[name], clips=clips, seconds=3.0 * clips, **(known | fields))


def scores(model: ModelInfo, systems: list[SystemScores] | None = None, **fields: Any) -> Scores:
    """With a baseline, unless `systems` says otherwise."""
    if systems is None:
        systems = [system("baseline", 0.2, model_ref="whole"), system("full", 0.3, delta(0.1, 0.5))]
    known = {"provenance": provenance(), "data": data(), "task": "asr", "normaliser": "n 1", "scorer": "s 2"}
    return Scores(**(known | fields), model=model, systems=systems)


def bench(model: ModelInfo, ratio: Estimate | None, **fields: Any) -> Bench:
    """Of the model alone, or with `ratio` of a plan over it without layer 1."""

    def timed(name: str, **more: Any) -> SystemBench:
        seconds = dict.fromkeys(("encode_seconds", "prefill_seconds", "decode_seconds", "total_seconds"), around(0.5))
        return SystemBench(
            name=name, parameters=90, decoder_parameters=80, checkpoint_bytes=2_500_000, **seconds, **more
        )

    systems = [timed("full")]
    if ratio is not None:
        systems.append(timed("manual-1", removed=[1], total_ratio=ratio, parameter_ratio=0.75))
    known = {"provenance": provenance(), "data": data(), "repeats": 3, "batch_size": 1, "new_tokens": 8}
    return Bench(**(known | fields), model=model, systems=systems)
