"""Synthetic documents of plausible shape, for the tests of the report."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from shoal.schema import (
    Audit,
    BadRow,
    Bench,
    BestBlock,
    BlockOverlap,
    Budget,
    ComparedAudit,
    Comparison,
    Confirmation,
    Counts,
    DataInfo,
    Delta,
    Document,
    Drawn,
    Estimate,
    Example,
    Finding,
    GroupScore,
    Healing,
    HealingCell,
    HealRecord,
    Importance,
    InputAudit,
    MeasuredScore,
    MetricTrust,
    ModelInfo,
    Part,
    Plan,
    PlanSource,
    Provenance,
    Scope,
    ScopeAudit,
    ScopeComparison,
    Scores,
    Search,
    SearchStep,
    StageRecord,
    SystemBench,
    SystemScores,
    TaskLoss,
    TaskMatrix,
    TrainingRecord,
    Trust,
    Validation,
    ValidationLoss,
)
from shoal.schema.validation import Verdict

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
                selection_frequency=min(1.0, 0.45 + 12 * gap) if sure else None,
                confidence_set=sorted(others[: 1 + (gap < 0.03)]) if sure else [],
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
            for k, scope in enumerate(["all", "audio", "prompt", "response", "last"])
        },
    )
    text = InputAudit(
        input="text",
        scopes={
            scope: scope_audit(0.02 * k - 0.05, 10 + k, sure=sure)
            for k, scope in enumerate(["all", "prompt", "response", "last"])
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
        selection_frequency=0.94 if strategy == "contiguous" else None,
        source=PlanSource(
            path="audit.json",
            fingerprint="ab" * 32,
            input="speech",
            scope="response",
            metric="angular",
        ),
    )


def _estimate(value: float, spread: float = 0.12) -> Estimate:
    return Estimate(value=value, low=value * (1 - spread), high=value * (1 + spread))


def _error_rate(value: float, **fields: Any) -> MeasuredScore:
    return MeasuredScore(
        value=_estimate(value), higher_is_better=False, fraction=True, signature="jiwer 4.0.0", **fields
    )


def _system(name: str, rate: float, change: Delta | None = None, **more: object) -> SystemScores:
    words = 420
    errors = round(rate * words)
    subs = min(words, round(errors * 0.6))
    dels = min(words - subs, round(errors * 0.15))
    fields: dict[str, object] = {
        "name": name,
        "measures": {
            "WER": _error_rate(
                rate,
                delta=change,
                edits=Counts(
                    hits=words - subs - dels,
                    substitutions=subs,
                    insertions=errors - subs - dels,
                    deletions=dels,
                ),
            ),
            "CER": _error_rate(rate * 0.55, edits=Counts(hits=1900, substitutions=60, insertions=20, deletions=25)),
        },
        "truncated": round(max(0.0, rate - 0.5) * 10),
        "groups": {
            "speaker": {
                "allison": GroupScore(clips=30, measures={"WER": _error_rate(rate * 0.9)}),
                "june": GroupScore(clips=20, measures={"WER": _error_rate(rate * 1.2)}),
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
                Delta(
                    absolute=Estimate(value=absolute, low=absolute - width, high=absolute + width),
                    relative=Estimate(value=relative, low=relative - 0.1, high=relative * 1.1 + 0.1),
                    p_value=0.001 if relative > 0.15 else 0.21,
                ),
                plan=plan(strategy, layers),
                removed=layers,
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
        return Estimate(value=value)

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
        "scopes": {
            s: _scope_comparison(r) for s, r in [("all", 0.94), ("prompt", 0.9), ("response", 0.96), ("last", 0.92)]
        },
    }
    return Comparison.model_validate(fields | changes)


METRICS: list[tuple[str, tuple[Scope, ...]]] = [
    ("angular", ("all", "audio", "prompt", "response", "last")),
    ("influence", ("all", "audio", "prompt", "response", "last")),
    ("gradient clip-absolute", ("response",)),
    ("gradient signed", ("response",)),
]


def importance(
    quantity: str = "loss",
    *,
    metric: str = "ablation",
    part: Part = "layer",
    sizes: Sequence[int] = (1,),
    refused: int | None = 17,
    seed: int = 0,
    sure: bool = True,
) -> Importance:
    """Losses as they are: tiny in the middle, some below zero, towering at the first layer and the last."""
    generator = random.Random(seed)
    rows = triangle(0.0, seed)
    scale = {"score": 0.9, "loss": 6.0, "kl": 5.0}.get(quantity, 3.0) * (0.6 if part == "mlp" else 1.0)
    candidates = [list(range(start, start + n)) for n in sizes for start in range(DEPTH - n + 1)]
    found: list[float | None] = []
    for layers in candidates:
        size = rows[len(layers) - 1][layers[0]]
        found.append(scale * size**2 * (9 if layers[0] == 0 else 1) + generator.gauss(0, 0.0006 * scale))
    if quantity == "clip-absolute":
        found = [None if value is None else abs(value) for value in found]
    if refused is not None:
        found[refused] = None
    bounds = [[None if v is None else v + side * (0.08 * abs(v) + 0.001 * scale) for v in found] for side in (-1, 1)]
    named = {} if metric == "ablation" else {"option": metric, "title": "absolute value of each clip"}
    return Importance(
        **named,
        metric=metric,
        quantity=quantity,
        unit="WER" if quantity == "score" else "nats a token",
        part=part,
        candidates=candidates,
        values=found,
        low=bounds[0] if sure else None,
        high=bounds[1] if sure else None,
        clips=[50 if place % 7 else 12 for place in range(len(candidates))],
        refused={} if refused is None else {refused: f"clip clip-03: the {quantity} without it is not finite"},
        utterances=50,
        positions=610,
        full=None if quantity in ("kl", "clip-absolute") else Estimate(value=0.41, low=0.36, high=0.47),
        best=[_best_measured(n, scale) for n in sizes if sure and metric == "ablation" and part == "layer"],
        method="replay",
    )


def _best_measured(n: int, scale: float) -> BestBlock:
    """Better on its own clips than on others."""
    distance, held_out = (
        Estimate(value=scale * v, low=scale * (v - 0.01), high=scale * (v + 0.01)) for v in (0.02, 0.03)
    )
    return BestBlock(
        n=n, layer=20, distance=distance, selection_frequency=0.8, confidence_set=[20, 23], held_out=held_out
    )


def metric_trust(metric: str, scope: Scope, n: int, regret: float, scale: float) -> MetricTrust:
    rank = max(-0.2, 0.95 - 3 * regret)
    spread = 0.55 * regret + 0.01
    return MetricTrust(
        metric=metric,
        scope=scope,
        n=n,
        candidates=DEPTH - n + 1,
        spearman=Estimate(value=rank),
        reliability=0.9,
        truth_reliability=0.93,
        disattenuated=None if rank < 0 else min(1.0, rank / 0.91),
        picked=22 - n if regret else 24 - n,
        best=24 - n,
        regret=Estimate(value=scale * regret, low=scale * (regret - spread), high=scale * (regret + spread)),
        top_k_regret=Estimate(value=scale * regret / 4, low=0.0, high=scale * regret / 2),
    )


def trust(truth: str = "ablation loss", unit: str = "nats a token", scale: float = 0.3) -> Trust:
    generator = random.Random(5)
    found = []
    for n in (1, 2, 4, 8):
        for metric, scopes in METRICS:
            for scope in scopes:
                regret = 0.0 if (metric, scope) == ("angular", "response") else abs(generator.gauss(0.02, 0.1))
                found.append(metric_trust(metric, scope, n, regret, scale))
    return Trust(truth=truth, unit=unit, metrics=found)


def measured_audit(*, sure: bool = True) -> Audit:
    """An audit with importance of all kinds, and metrics held against it."""
    found = audit()
    parts: list[Part] = ["attention", "mlp"]
    found.inputs["speech"].importance = [
        importance("score", sizes=(1, 2), seed=1, sure=sure),
        importance("loss", sizes=(1, 2, 3, 4, 8), seed=2, sure=sure),
        *(importance("loss", part=part, seed=3, refused=None, sure=sure) for part in parts),
        importance("clip-absolute", metric="gradient", refused=None, seed=4, sure=sure),
        *(importance("clip-absolute", metric="gradient", part=part, refused=None, sure=sure) for part in parts),
    ]
    found.inputs["text"].importance = [
        importance("loss", seed=6, refused=None, sure=sure),
        importance("clip-absolute", metric="gradient", refused=None, seed=7, sure=sure),
    ]
    found.inputs["speech"].trust = [trust(), trust("ablation score", "WER", 0.1)]
    return found


SIDES = [
    ("English recognition", "asr"),
    ("German to English", "ast"),
    ("emotion", "ser"),
    ("dictation", "asr"),
]


def task_matrix(**changes: object) -> TaskMatrix:
    sides = [
        ComparedAudit(path=f"{k}.json", label=label, input="speech", task=task, model_ref="pkg:reference")
        for k, (label, task) in enumerate(SIDES)
    ]

    def likeness(a: int, b: int, least: float) -> Estimate:
        value = 1.0 if a == b else least + 0.12 * ((a * b) % 3)
        return Estimate(value=value)

    losses = [
        _task_loss(task, plan, n, a, b)
        for n in (1, 2, 4, 8)
        for a, (task, _) in enumerate(SIDES)
        for b, plan in enumerate([*(label for label, _ in SIDES), "consensus"])
    ]
    fields: dict[str, object] = {
        "provenance": provenance("compare", "a.json", "b.json", "c.json"),
        "sides": sides,
        "scope": "response",
        "measure": "ablation loss",
        "unit": "nats a token",
        "spearman": [[likeness(a, b, 0.55) for b in range(4)] for a in range(4)],
        "overlap": [[likeness(a, b, 0.4) for b in range(4)] for a in range(4)],
        "sizes": [1, 2, 4, 8],
        "combine": "mean",
        "weights": [1.0] * 4,
        "losses": losses,
        "replicates": 1000,
    }
    return TaskMatrix.model_validate(fields | changes)


def _task_loss(task: str, plan: str, n: int, a: int, b: int) -> TaskLoss:
    start = [22, 20, 12, 23, 21][b] - n
    excess = 0.0 if a == b else 0.006 * n * (1 + (a + 2 * b) % 4) - (0.01 if b == 4 else 0.0)
    width = 0.0 if a == b else 0.008 * n
    return TaskLoss(
        task=task,
        plan=plan,
        n=n,
        layers=list(range(start, start + n)),
        loss=_estimate(0.02 * n + excess),
        excess=Estimate(value=excess, low=excess - width, high=excess + width),
    )


def _step(n: int, limit: float) -> dict[str, object]:
    change = 0.012 * n**1.7
    high = change + 0.05 + 0.01 * n
    return {
        "plan": plan("contiguous", list(range(25 - n, 25))),
        "score": _estimate(0.121 * (1 + change)),
        "change": Estimate(value=change, low=change - 0.05, high=high, level=0.9),
        "holds": high <= limit,
    }


def search(*, confirmed: bool = False, **changes: object) -> Search:
    """Three layers hold, and four do not."""
    steps = [SearchStep.model_validate(_step(n, 0.25) | {"clips_needed": 170 + 40 * n}) for n in range(1, 9)]
    tests = [
        {
            "p_value": 0.002 if confirmed else 0.21,
            "p_seen": 0.001 * 5**n,
            "holds": n < 4,
            "confirmed": confirmed and n < 4,
        }
        for n in (2, 3, 4)
    ]
    confirmations = [
        Confirmation.model_validate(_step(n, 0.25) | test) for n, test in zip((2, 3, 4), tests, strict=True)
    ]
    fields: dict[str, object] = {
        "provenance": provenance("search", "pkg:reference"),
        "model": model(),
        "data": data(),
        "task": "asr",
        "score_name": "WER",
        "higher_is_better": False,
        "fraction": True,
        "budget": Budget(max_increase=0.25, max_layers=28),
        "strategy": "contiguous",
        "metric": "angular",
        "input": "speech",
        "scope": "response",
        "validation_clips": 30,
        "confirmation_clips": 20,
        "validation_drawn": Drawn(clips=30),
        "confirmation_drawn": Drawn(clips=20),
        "least_clips_needed": 180,
        "full_validation": _estimate(0.121),
        "full_confirmation": _estimate(0.127),
        "steps": steps,
        "confirmations": confirmations,
        "chosen": plan("contiguous", [22, 23, 24]),
        "confirmed": confirmed,
        "reason": "The plan of 4 layers held on the validation split and not on unseen clips.",
        "replicates": 1000,
    }
    return Search.model_validate(fields | changes)


def translation_scores(**changes: object) -> Scores:
    """Scores of a task whose edit rate is no error rate."""
    fields: dict[str, object] = {"task": "ast", "normaliser": "none", "scorer": "sacrebleu 2.5.1"}
    found = scores(**(fields | changes))
    for place, system in enumerate(found.systems):
        loss = 0.4 * place
        system.measures = {"BLEU": _measured(31.4, loss, place > 0), "chrF": _measured(58.2, loss, place > 0)}
    return found


def _measured(base: float, loss: float, pruned: bool) -> MeasuredScore:
    delta = Delta(
        absolute=Estimate(value=-loss, low=-loss - 1.1, high=-loss + 0.9),
        relative=Estimate(value=-loss / base, low=(-loss - 1.1) / base, high=(-loss + 0.9) / base),
        p_value=0.03,
    )
    return MeasuredScore(
        value=_estimate(base - loss, 0.06),
        delta=delta if pruned else None,
        higher_is_better=True,
        signature="nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.5.1",
    )


def partial_plan() -> Plan:
    """A plan that removes only the attention of its layers."""
    found = plan()
    return found.model_copy(update={"part": "attention", "strategy": "lowest"})


HEALED = {
    "receiver": (0.77, 92.0, 5_100_000),
    "projector": (0.35, 64.0, PROJECTOR),
    "decoder": (0.9, 241.0, 38_000_000),
    "joint": (0.85, 92.0, 8_050_000),
    "joint-decoder": (0.92, 250.0, 41_000_000),
    "head": (0.72, 130.0, 39_000_000),
    "replace": (0.88, 118.0, LAYER),
    "linear": (0.3, 9.0, 884_736),
}
"""Target → share of the damage that it takes back, seconds, parameters."""
BASE_WER = 0.391
UNHEALED = {2: 0.452, 4: 0.669, 8: 1.34, 12: 2.71}


def healed_score(value: Estimate, delta: Delta | None = None) -> MeasuredScore:
    return MeasuredScore(value=value, delta=delta, higher_is_better=False, fraction=True, signature="jiwer")


def healing_plan(n: int) -> Plan:
    return plan("contiguous", list(range(28 - n, 28)))


def healing_cell(n: int, target: str, *, sure: bool = True, **changes: object) -> HealingCell:
    """One cell; `sure` is whether there are intervals."""
    before = UNHEALED[n]
    share, seconds, parameters = HEALED.get(target, (0.0, 0.0, 0))
    share *= 1 if n < 8 else 0.8
    change, healed = -share * (before - BASE_WER), target != "none"
    back = 1 if target == "replace" else 0
    fields: dict[str, object] = {
        "plan": healing_plan(n),
        "target": target,
        "layers": DEPTH - n + back,
        "parameters": ENCODER + PROJECTOR + OTHER + LAYER * (DEPTH - n + back),
        "trained_parameters": parameters,
        "steps": 500 if healed and target != "linear" else 0,
        "seconds": seconds,
        "loss": _bounded(1.1 + before + change, 0.05, sure),
        "score": healed_score(
            _bounded(before + change, 0.03 + 0.05 * before, sure),
            delta=Delta(
                absolute=_bounded(before + change - BASE_WER, 0.03, sure),
                relative=_bounded((before + change) / BASE_WER - 1, 0.08, sure),
                p_value=0.0004 if before + change - BASE_WER > 0.03 else 0.3,
            ),
        ),
    }
    if healed:
        width = 0.02 + 0.02 * before
        p_value = 0.0004 if change < -width else 0.12
        fields["bought"] = Delta(absolute=_bounded(change, width, sure), p_value=p_value if sure else None)
        fields["recovered"] = _bounded(share, width / (before - BASE_WER), sure)
    return HealingCell.model_validate(fields | changes)


def _bounded(value: float, width: float, sure: bool) -> Estimate:
    return Estimate(value=value, low=value - width, high=value + width) if sure else Estimate(value=value)


def healing(
    sizes: Sequence[int] = (2, 4, 8, 12),
    targets: Sequence[str] = ("none", *HEALED),
    *,
    sure: bool = True,
    **changes: object,
) -> Healing:
    fields: dict[str, object] = {
        "provenance": provenance("heal-sweep", "pkg:reference"),
        "model": model(),
        "task": "asr",
        "data": data(manifests=["test.jsonl"], clips=400, seconds=1804.0, speakers=12, fingerprint="c0" * 32),
        "train_data": data(manifests=["heal.jsonl"], clips=2000, seconds=9000.0, speakers=40, fingerprint="d1" * 32),
        "settings": {
            "rank": 64,
            "optimisation": {"steps": 500, "clips": 16},
            "targets": list(targets),
            "shared_speakers": 3,
        },
        "score_name": "WER",
        "baseline": healed_score(_bounded(BASE_WER, 0.035, sure)),
        "cells": [healing_cell(n, target, sure=sure) for n in sizes for target in targets],
    }
    return Healing.model_validate(fields | changes)


def heal_record(**changes: object) -> HealRecord:
    fields: dict[str, object] = {
        "provenance": provenance("heal", "pruned", "--target", "joint"),
        "model": model(ref="pruned", depth=DEPTH - 4, fingerprint="e2" * 32),
        "teacher": "pkg:reference",
        "target": "joint",
        "settings": {"rank": 64},
        "task": "asr",
        "data": data(manifests=["heal.jsonl"], clips=1900, seconds=8550.0, fingerprint="d2" * 32),
        "trained_parameters": 8_050_000,
        "steps": 500,
        "clips": 8000,
        "seconds": 92.4,
        "last_loss": 0.91,
        "loss_before": 2.3456,
        "loss_after": 1.2,
        "notes": ["memory ran out once: 8,192 positions at once from step 12"],
    }
    return HealRecord.model_validate(fields | changes)


def training_record(**changes: object) -> TrainingRecord:
    fields: dict[str, object] = {
        "provenance": provenance("train", "recipe.yaml"),
        "recipe": {"encoder": "openai/whisper-tiny", "decoder": "HuggingFaceTB/SmolLM2-135M"},
        "data": [data(manifests=["a.jsonl"], clips=5000, seconds=20_000.0), data(manifests=["b.jsonl"])],
        "stages": [
            StageRecord(
                name="ctc",
                steps=300,
                clips=9600,
                seconds=61.0,
                trained_parameters=PROJECTOR,
                first_loss=9.1,
                last_loss=2.25,
            ),
            StageRecord(
                name="joint",
                steps=2000,
                clips=64_000,
                seconds=1900.0,
                trained_parameters=8_050_000,
                first_loss=3.9,
                last_loss=0.734,
            ),
        ],
        "validation": [
            ValidationLoss(data="dev.jsonl", task="asr", clips=200, loss=0.812, loss_as_saved=0.815),
            ValidationLoss(data="digits.jsonl", task="asr", clips=50, loss=0.4),
        ],
        "encode_seconds": 310.0,
        "notes": ["3 clips were longer than the encoder takes"],
    }
    return TrainingRecord.model_validate(fields | changes)


def validation(verdict: Verdict = "holds", **changes: object) -> Validation:
    fields: dict[str, object] = {
        "provenance": provenance("validate", "pruned"),
        "checkpoint": "pruned",
        "confident": True,
        "findings": [
            Finding(requirement="WER <= 20%", verdict="holds", where="asr on test.jsonl", shown="13.2 % [11.6, 14.8]"),
            Finding(requirement="WER increase <= 5%", verdict=verdict, where="asr on test.jsonl", shown="+9.0 %"),
        ],
    }
    return Validation.model_validate(fields | changes)


def everything() -> list[Document | tuple[str, Document]]:
    """One of each, some with a path."""
    return [
        ("audit.json", measured_audit()),
        ("comparison.json", comparison()),
        ("tasks.json", task_matrix()),
        ("search.json", search()),
        ("plan.json", plan()),
        ("scores.json", scores()),
        ("bench.json", bench()),
        ("healing.json", healing()),
        ("shoal-heal.json", heal_record()),
        ("shoal-training.json", training_record()),
        ("validation.json", validation()),
    ]
