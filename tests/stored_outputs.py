"""Folders as `shoal evaluate` leaves them, from texts."""

from __future__ import annotations

import json
from pathlib import Path

from shoal import tasks
from shoal.evaluation.score_systems import SystemIdentity, score_systems
from shoal.evaluation.settings import ScoringSettings
from shoal.evaluation.system_outputs import Output
from shoal.schema import (
    DataInfo,
    ModelInfo,
    Plan,
    Provenance,
    Scores,
    SystemScores,
)


def output(number, text, said, *, lang="en", speaker=None, data="", source=None, **fields):
    """One output; `source` is the manifest's own text where the reference is another."""
    return Output(
        id=f"c{number:03}",
        audio_filepath=f"{number}.wav",
        duration=1.5,
        offset=0.0,
        text=text,
        pred_text=said,
        lang=lang,
        speaker=speaker,
        tokens=3,
        truncated=False,
        encode_seconds=0.5,
        prefill_seconds=0.25,
        decode_seconds=1.0,
        fields={**fields, **({} if source is None else {"text": source})},
        data=data,
    )


def summary(*systems, task="asr", **options):
    """Scores of systems (clip id → output), without a folder."""
    names = [SystemIdentity(f"system{place}") for place in range(len(systems))]
    comet = options.pop("comet", None)
    scoring = ScoringSettings(**{"replicates": 40} | options)
    return score_systems(names, systems, list(systems[0]), tasks.get(task), scoring, comet=comet)


def by_id(outputs):
    """Clip id → output."""
    return {each.id: each for each in outputs}


def evaluation(folder: Path, systems, *, task: str = "asr") -> Path:
    """Write `scores.json` and the outputs of systems (name → outputs); scores are not those of the outputs yet."""
    (folder / "outputs").mkdir(parents=True)
    for name, outputs in systems.items():
        lines = "".join(each.line() + "\n" for each in outputs)
        (folder / "outputs" / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        (folder / "outputs" / f"{name}.json").write_text(json.dumps({"shoal_outputs": 1}))
    clips = len(next(iter(systems.values())))
    Scores(
        provenance=Provenance(shoal="1.2.3", created="2026-11-28T10:20:30+00:00", packages={"transformers": "5.23.0"}),
        model=ModelInfo(
            ref="org/model", kind="speech_llm", class_name="M", family="speech_llm", depth=4, hidden_size=8
        ),
        data=DataInfo(manifests=["test.jsonl"], clips=clips, seconds=1.5 * clips),
        task=task,
        normaliser="n",
        scorer="s",
        decoding={"strategy": "greedy", "batch_size": 4},
        systems=[_system(place, name) for place, name in enumerate(systems)],
    ).save(folder / "scores.json")
    return folder


def _system(place: int, name: str) -> SystemScores:
    plan = Plan(
        provenance=Provenance(shoal="1.2.3"),
        name=name,
        model_ref="org/model",
        depth=4,
        layers=[1],
        strategy="deepest",
    )
    return SystemScores(
        name=name,
        plan=plan if place else None,
        outputs_file=f"outputs/{name}.jsonl",
    )
