"""Synthetic documents of plausible shape, for the tests of the report."""

from __future__ import annotations

import math
import random

from shoal.schema import (
    Audit,
    BadRow,
    Bench,
    BestBlock,
    BlockOverlap,
    ComparedAudit,
    Comparison,
    Counts,
    DataInfo,
    Delta,
    Document,
    Estimate,
    Example,
    GroupScore,
    InputAudit,
    ModelInfo,
    Plan,
    PlanSource,
    Provenance,
    ScopeAudit,
    ScopeComparison,
    Scores,
    SystemBench,
    SystemScores,
)

DEPTH = 30
LAYER = 3_540_000
OTHER = 28_311_000
ENCODER, PROJECTOR = 8_208_000, 2_950_000
PLANS = [
    ("contiguous", 1, [25], 0.03),
    ("contiguous", 2, [24, 25], 0.09),
    ("contiguous", 4, [21, 22, 23, 24], 0.31),
    ("contiguous", 8, list(range(18, 26)), 2.4),
    ("deepest", 1, [28], 0.12),
    ("deepest", 2, [27, 28], 0.44),
    ("deepest", 4, [25, 26, 27, 28], 1.6),
    ("deepest", 8, list(range(21, 29)), 6.5),
    ("random", 1, [11], 0.21),
    ("random", 2, [4, 17], 1.1),
    ("random", 4, [3, 9, 14, 22], 4.2),
    ("random", 8, [2, 5, 9, 12, 16, 19, 23, 27], 8.9),
]
SENTENCES = [
    "please leave a message after the tone",
    "the number you have dialled is not in service",
    "to hear these options again press the star key",
    "your call may be recorded for quality purposes",
    "thank you for calling please hold the line",
    "the conference is now being locked",
    "you have three new messages in your mailbox",
    "press one to save this message or two to delete it",
]


def provenance(*command: str) -> Provenance:
    return Provenance(
        shoal="0.1.0",
        created="2026-11-23T13:00:00+00:00",
        command=["shoal", *command],
        python="3.12.3",
        platform="Linux-6.1-x86_64",
        packages={"torch": "2.13.0", "transformers": "5.23.0", "numpy": "2.4.6"},
        threads=2,
    )


def model(**changes: object) -> ModelInfo:
    fields: dict[str, object] = {
        "ref": "pkg:reference",
        "kind": "speech_llm",
        "class_name": "SpeechLLM",
        "family": "speech_llm",
        "depth": DEPTH,
        "hidden_size": 576,
        "encoder_parameters": ENCODER,
        "projector_parameters": PROJECTOR,
        "decoder_layer_parameters": [LAYER] * DEPTH,
        "decoder_other_parameters": OTHER,
        "total_parameters": ENCODER + PROJECTOR + OTHER + LAYER * DEPTH,
        "licence": "research use only: the adapters were trained on data with a research licence",
        "fingerprint": "3f9a" * 16,
    }
    return ModelInfo.model_validate(fields | changes)


def data(**changes: object) -> DataInfo:
    fields: dict[str, object] = {
        "manifests": ["demo/prompts.jsonl"],
        "clips": 50,
        "seconds": 214.6,
        "speakers": 1,
        "languages": ["en"],
        "skipped": [BadRow(manifest="demo/prompts.jsonl", line=17, reason="shorter than 0.1 s")],
        "audio_decoder": "libsndfile 1.2.2",
        "resampler": "soxr 0.5.0 HQ",
        "fingerprint": "77b1" * 16,
    }
    return DataInfo.model_validate(fields | changes)


def _boundary(layer: float, shift: float) -> float:
    """Position of a layer's input on a path whose speed is highest at both ends of the stack."""
    x = layer / DEPTH
    return 0.55 * x**0.45 + 0.12 * x + (0.33 + shift) * max(0.0, x - 0.86) / 0.14


def triangle(shift: float, seed: int) -> list[list[float]]:
    generator = random.Random(seed)
    return [
        [
            round(
                0.62
                * (1 - math.exp(-1.6 * (_boundary(layer + n, shift) - _boundary(layer, shift))))
                * generator.uniform(0.98, 1.02),
                6,
            )
            for layer in range(DEPTH - n + 1)
        ]
        for n in range(1, DEPTH + 1)
    ]


def _best(rows: list[list[float]], spread: float, *, sure: bool) -> list[BestBlock]:
    found = []
    for n, row in enumerate(rows, start=1):
        layer = row.index(min(row))
        others = sorted(range(len(row)), key=row.__getitem__)
        gap = (row[others[1]] - row[layer]) / row[layer] if len(row) > 1 else 1.0
        value = row[layer]
        found.append(
            BestBlock(
                n=n,
                layer=layer,
                distance=Estimate(value=value, low=value * (1 - spread), high=value * (1 + spread))
                if sure
                else Estimate(value=value),
                stability=min(1.0, 0.45 + 12 * gap) if sure else None,
                runner_up=others[1] if len(row) > 1 and sure else None,
            )
        )
    return found


def scope_audit(shift: float = 0.0, seed: int = 0, *, sure: bool = True) -> ScopeAudit:
    rows = triangle(shift, seed)
    influence = [value * 1.7 for value in rows[0]]
    spread = 0.06
    return ScopeAudit(
        positions=9_431,
        utterances=50,
        angular=rows,
        angular_low=[[v * (1 - spread) for v in row] for row in rows] if sure else None,
        angular_high=[[v * (1 + spread) for v in row] for row in rows] if sure else None,
        influence=influence,
        influence_low=[v * 0.9 for v in influence] if sure else None,
        influence_high=[v * 1.1 for v in influence] if sure else None,
        best=_best(rows, spread, sure=sure),
        best_keeping_last=_best([row[:-1] for row in rows[:-1]], spread, sure=sure),
    )


def audit(*, sure: bool = True, inputs: tuple[str, ...] = ("speech", "text"), **changes: object) -> Audit:
    speech = InputAudit(
        input="speech",
        scopes={
            scope: scope_audit(0.02 * k, k, sure=sure)
            for k, scope in enumerate(["all", "audio", "prompt", "text", "last"])
        },
    )
    text = InputAudit(
        input="text",
        scopes={
            scope: scope_audit(0.02 * k - 0.05, 10 + k, sure=sure)
            for k, scope in enumerate(["all", "prompt", "text", "last"])
        },
        empty_scopes={"audio": "nothing stands in the audio slot"},
    )
    both = {"speech": speech, "text": text}
    fields: dict[str, object] = {
        "provenance": provenance("audit", "pkg:reference", "--data", "demo/prompts.jsonl"),
        "model": model(),
        "data": data(),
        "task": "asr",
        "inputs": {name: both[name] for name in inputs},
        "replicates": 1000 if sure else 0,
        "seconds": 31.4,
    }
    return Audit.model_validate(fields | changes)


def plan(strategy: str = "contiguous", layers: list[int] | None = None) -> Plan:
    return Plan(
        provenance=provenance("select", "audit.json"),
        model_ref="pkg:reference",
        depth=DEPTH,
        layers=[21, 22, 23, 24] if layers is None else layers,
        strategy=strategy,
        seed=0 if strategy == "random" else None,
        distance=Estimate(value=0.081, low=0.078, high=0.085) if strategy == "contiguous" else None,
        stability=0.94 if strategy == "contiguous" else None,
        source=PlanSource(
            path="audit.json",
            fingerprint="ab" * 32,
            input="speech",
            scope="text",
            metric="angular",
        ),
    )


def _estimate(value: float, spread: float = 0.12) -> Estimate:
    return Estimate(value=value, low=value * (1 - spread), high=value * (1 + spread))


def _system(name: str, rate: float, **more: object) -> SystemScores:
    words = 420
    errors = round(rate * words)
    subs = min(words, round(errors * 0.6))
    dels = min(words - subs, round(errors * 0.15))
    fields: dict[str, object] = {
        "name": name,
        "wer": _estimate(rate),
        "cer": _estimate(rate * 0.55),
        "word_counts": Counts(
            hits=words - subs - dels, substitutions=subs, insertions=errors - subs - dels, deletions=dels
        ),
        "char_counts": Counts(hits=1900, substitutions=60, insertions=20, deletions=25),
        "truncated": round(max(0.0, rate - 0.5) * 10),
        "groups": {
            "speaker": {
                "allison": GroupScore(clips=30, wer=_estimate(rate * 0.9)),
                "june": GroupScore(clips=20, wer=_estimate(rate * 1.2)),
            }
        },
        "worst_group": {"speaker": "june"},
        "generated_tokens": 610,
    }
    return SystemScores.model_validate(fields | more)


def _garble(text: str, amount: float, generator: random.Random) -> str:
    words: list[str] = []
    for word in text.split():
        roll = generator.random()
        if roll < amount * 0.12:
            continue
        words.append(word[::-1] if roll < amount * 0.3 else word)
        if roll > 1 - amount * 0.08:
            words.append("the")
    return " ".join(words).capitalize() + "."


def scores(**changes: object) -> Scores:
    base = 0.121
    systems = [_system("unpruned", base)]
    for strategy, n, layers, relative in PLANS:
        rate = base * (1 + relative)
        absolute, width = base * relative, base * 0.12 * (1 + relative)
        systems.append(
            _system(
                f"{strategy}-{n}",
                rate,
                plan=plan(strategy, layers),
                removed=layers,
                delta_wer=Delta(
                    absolute=Estimate(value=absolute, low=absolute - width, high=absolute + width),
                    relative=Estimate(value=relative, low=relative - 0.1, high=relative * 1.1 + 0.1),
                    p_value=0.001 if relative > 0.15 else 0.21,
                ),
            )
        )
    generator = random.Random(1)
    examples = [
        Example(
            id=f"clip-{k:02d}",
            reference=sentence,
            outputs={
                "unpruned": _garble(sentence, 0.4, generator),
                "contiguous-4": _garble(sentence, 0.9, generator),
                "deepest-4": _garble(sentence, 2.2, generator),
                "random-4": _garble(sentence, 3.0, generator),
            },
        )
        for k, sentence in enumerate(SENTENCES)
    ]
    fields: dict[str, object] = {
        "provenance": provenance("evaluate", "pkg:reference", "--data", "demo/prompts.jsonl"),
        "model": model(),
        "data": data(),
        "task": "asr",
        "normaliser": "whisper-normalizer English 0.1.12",
        "scorer": "jiwer 4.0.0",
        "decoding": {"do_sample": False, "max_new_tokens": 96},
        "systems": systems,
        "examples": examples,
    }
    return Scores.model_validate(fields | changes)


def _cost(name: str, removed: list[int]) -> SystemBench:
    kept = (DEPTH - len(removed)) / DEPTH
    total = ENCODER + PROJECTOR + OTHER
    encode, prefill, decode = 0.041, 0.055 * (0.1 + 0.9 * kept), 0.021 * (0.25 + 0.75 * kept)
    whole = 0.041 + 0.055 + 24 * 0.021
    time = encode + prefill + 24 * decode
    parameters = total + LAYER * (DEPTH - len(removed))
    share = parameters / (total + LAYER * DEPTH)
    fields: dict[str, object] = {
        "name": name,
        "removed": removed,
        "parameters": parameters,
        "decoder_parameters": parameters - ENCODER - PROJECTOR,
        "checkpoint_bytes": parameters * 4,
        "peak_memory_bytes": parameters * 4 + 310_000_000,
        "encode_seconds": _estimate(encode, 0.04),
        "prefill_seconds": _estimate(prefill, 0.05),
        "decode_seconds": _estimate(decode, 0.03),
        "total_seconds": _estimate(time, 0.03),
    }
    if removed:
        fields |= {
            "prefill_ratio": _estimate(0.1 + 0.9 * kept, 0.03),
            "decode_ratio": _estimate(0.25 + 0.75 * kept, 0.02),
            "total_ratio": _estimate(time / whole, 0.02),
            "parameter_ratio": share,
            "checkpoint_ratio": share,
            "peak_memory_ratio": share * 0.98 + 0.02,
        }
    return SystemBench.model_validate(fields)


def bench(**changes: object) -> Bench:
    systems = [_cost("unpruned", [])]
    systems += [_cost(f"{s}-{n}", layers) for s, n, layers, _ in PLANS if s == "contiguous"]
    fields: dict[str, object] = {
        "provenance": provenance("bench", "pkg:reference"),
        "model": model(),
        "data": data(clips=8, seconds=33.0),
        "repeats": 5,
        "batch_size": 1,
        "new_tokens": 24,
        "systems": systems,
    }
    return Bench.model_validate(fields | changes)


def _scope_comparison(rank: float) -> ScopeComparison:
    def near(value: float) -> Estimate:
        return Estimate(value=value, low=value - 0.03, high=min(1.0, value + 0.02))

    overlaps = [
        BlockOverlap(n=n, a=max(0, 25 - n), b=max(0, 24 - n), overlap=near(min(1.0, (n - 1 + 0.2) / n)))
        for n in range(1, DEPTH + 1)
    ]
    return ScopeComparison(
        spearman=near(rank),
        spearman_within_n=near(rank - 0.12),
        influence_spearman=near(rank - 0.05),
        overlaps=overlaps,
        mean_overlap=near(0.83),
    )


def comparison(**changes: object) -> Comparison:
    def side(kind: str) -> ComparedAudit:
        return ComparedAudit.model_validate(
            {
                "path": "audit.json",
                "label": f"{kind} input",
                "input": kind,
                "task": "asr",
                "model_ref": "pkg:reference",
            }
        )

    fields: dict[str, object] = {
        "provenance": provenance("compare", "audit.json"),
        "a": side("speech"),
        "b": side("text"),
        "paired": True,
        "replicates": 1000,
        "scopes": {
            s: _scope_comparison(r)
            for s, r in [("all", 0.94), ("prompt", 0.9), ("text", 0.96), ("last", 0.92)]
        },
    }
    return Comparison.model_validate(fields | changes)


def everything() -> list[Document | tuple[str, Document]]:
    """One of each, some with a path."""
    return [
        ("audit.json", audit()),
        ("comparison.json", comparison()),
        ("plan.json", plan()),
        ("scores.json", scores()),
        ("bench.json", bench()),
    ]
