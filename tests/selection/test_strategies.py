"""One contract for every strategy, and what each of them promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import PlanError, UsageError
from shoal.schema import Audit, BestBlock, Estimate, InputAudit, ModelInfo, Provenance, ScopeAudit
from shoal.selection import REGISTRY, get, layer_count, manual, select
from shoal.selection.strategy import Request


def measured(depth: int, seed: int = 0, *, named: bool = True) -> ScopeAudit:
    """Random numbers in the shape of a measurement."""
    draw = np.random.default_rng(seed)
    triangle = [draw.uniform(0.01, 0.5, depth - n + 1).round(3).tolist() for n in range(1, depth + 1)]

    def best(last: int) -> list[BestBlock]:
        rows = [(n, row[: len(row) - last]) for n, row in enumerate(triangle, 1) if len(row) > last]
        found = [(n, int(np.argmin(row)), min(row)) for n, row in rows]
        return [
            BestBlock(n=n, layer=i, distance=Estimate(value=v), selection_frequency=0.7, confidence_set=[i])
            for n, i, v in found
        ]

    return ScopeAudit(
        positions=10,
        utterances=2,
        angular=triangle,
        angular_low=[[value - 0.01 for value in row] for row in triangle],
        angular_high=[[value + 0.01 for value in row] for row in triangle],
        influence=draw.uniform(0, 1, depth).tolist(),
        best=best(0),
        best_keeping_last=best(1) if named else [],
    )


def audit(depth: int = 8, *, inputs: tuple[str, ...] = ("speech", "text"), named: bool = True) -> Audit:
    parts = {
        name: InputAudit(
            input=name,
            scopes={
                "all": measured(depth, seed, named=named),
                "last": measured(depth, seed + 10, named=named),
            },
            empty_scopes={"audio": "nothing stands in the audio slot"},
        )
        for seed, name in enumerate(inputs)
    }
    model = ModelInfo(
        ref="m",
        kind="causal_lm",
        class_name="M",
        family="causal_lm",
        depth=depth,
        hidden_size=8,
        fingerprint="f",
    )
    data = {"manifests": ["d.jsonl"], "clips": 2, "seconds": 1.0}
    return Audit(provenance=Provenance(shoal="0"), model=model, data=data, task="asr", inputs=parts, replicates=10)


@given(
    name=st.sampled_from(REGISTRY),
    sizes=st.integers(2, 40).flatmap(lambda depth: st.tuples(st.just(depth), st.integers(1, depth - 1))),
    seed=st.integers(0, 99),
    allow_last=st.booleans(),
)
def test_every_strategy_keeps_the_contract(name, sizes, seed, allow_last):
    depth, count = sizes
    metric = get(name).metric
    values = None if metric is None else measured(depth, seed).metrics[metric]
    request = Request(depth, count, metric, values, seed, allow_last)
    layers = get(name).choose(request).layers
    assert len(layers) == count
    assert layers == sorted(set(layers))
    assert 0 <= layers[0] <= layers[-1] < depth
    assert allow_last or depth - 1 not in layers
    assert get(name).choose(request).layers == layers


def test_contiguous_takes_the_smallest_distance_that_leaves_the_last_layer():
    document = audit()
    row = document.inputs["speech"].scopes["all"].metrics["angular"].values[2]
    plan = select(document, 3)
    start = int(np.argmin(row[:-1]))
    assert plan.block == (start, start + 3)
    assert plan.distance is not None
    assert plan.distance.value == row[start]
    assert (plan.selection_frequency, plan.confidence_set) == (0.7, [start])


def test_contiguous_may_end_at_the_last_layer_only_if_told():
    document = audit()
    document.inputs["speech"].scopes["all"].metrics["angular"].values[1][-1] = 0.0
    scope = document.inputs["speech"].scopes["all"]
    scope.metrics["angular"].best[1] = BestBlock(n=2, layer=6, distance=Estimate(value=0.0), selection_frequency=1.0)
    assert 7 not in select(document, 2).layers
    assert select(document, 2, allow_last=True).layers == [6, 7]


def test_without_named_blocks_the_choice_is_the_same_and_its_frequency_unknown():
    with_names, without = select(audit(), 3), select(audit(named=False), 3)
    assert without.layers == with_names.layers
    assert without.selection_frequency is None


@pytest.mark.parametrize(("count", "layers"), [(1, [6]), (3, [4, 5, 6]), (7, [0, 1, 2, 3, 4, 5, 6])])
def test_deepest_keeps_the_last_layer(count, layers):
    assert select(audit(), count, strategy="deepest").layers == layers


@pytest.mark.parametrize(
    ("count", "layers"),
    [(1, [4]), (2, [2, 5]), (3, [2, 4, 6]), (6, [1, 2, 3, 4, 5, 6]), (7, [0, 1, 2, 3, 4, 5, 6])],
)
def test_uniform_spreads_over_the_inner_layers(count, layers):
    assert select(audit(), count, strategy="uniform").layers == layers


def test_random_depends_on_the_seed_alone():
    draws = {tuple(select(audit(16), 5, strategy="random", seed=seed).layers) for seed in range(10)}
    assert len(draws) > 5
    assert select(audit(16), 5, strategy="random", seed=3).seed == 3


def test_lowest_ranks_single_layers():
    document = audit()
    influence = document.inputs["speech"].scopes["all"].metrics["influence"].values[0]
    assert select(document, 2, strategy="lowest").layers == sorted(np.argsort(influence[:-1])[:2].tolist())
    singles = document.inputs["speech"].scopes["all"].metrics["angular"].values[0]
    chosen = select(document, 2, strategy="lowest", metric="angular")
    assert chosen.layers == sorted(np.argsort(singles[:-1])[:2].tolist())
    assert chosen.source is not None
    assert chosen.source.metric == "angular"


def test_a_block_has_its_interval_whoever_chose_it():
    plan = select(audit(), 3, strategy="deepest")
    assert plan.distance is not None
    assert plan.distance.low is not None
    assert plan.selection_frequency is None


def test_speech_is_the_default_and_the_source_is_recorded():
    source = select(audit(), 2, source_path="audit.json").source
    assert source is not None
    assert (source.input, source.scope, source.metric, source.model_fingerprint) == (
        "speech",
        "all",
        "angular",
        "f",
    )
    assert select(audit(inputs=("text",)), 2).source.input == "text"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("depth", "given_", "count"),
    [
        (28, 8, 8),
        (28, "8", 8),
        (28, "30%", 8),
        (30, "25%", 8),
        (24, "1%", 1),
        (32, "96%", 31),
        (10, " 4 ", 4),
    ],
)
def test_a_number_or_a_percentage_of_layers(depth, given_, count):
    assert layer_count(depth, given_) == count


@pytest.mark.parametrize("given_", ["0", 0, "-1", "28", "100%", "0%", "many", "", "%", "nan%", "inf%", "2.5", "1e400%"])
def test_a_number_of_layers_that_makes_no_sense_is_one_line(given_):
    with pytest.raises(UsageError) as caught:
        layer_count(28, given_)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": "best"},
        {"scope": "audio"},
        {"scope": "prompt"},
        {"metric": "perplexity"},
        {"strategy": "random", "metric": "angular"},
        {"input": "video"},
    ],
)
def test_what_cannot_be_chosen_is_one_line(wrong):
    with pytest.raises(UsageError) as caught:
        select(audit(), 2, **wrong)
    assert "\n" not in str(caught.value)


def test_manual_takes_layers_in_any_order_and_refuses_what_does_not_fit():
    assert manual("m", 8, [5, 3]).layers == [3, 5]
    for layers in ([8], [7], [1, 1], [-1], list(range(8))):
        with pytest.raises(PlanError):
            manual("m", 8, layers)
