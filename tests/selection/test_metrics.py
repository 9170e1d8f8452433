"""Plans by any metric: what gradient and ablation measured, of layers, blocks and parts."""

from __future__ import annotations

import pytest

from shoal.cli import main
from shoal.errors import UsageError
from shoal.schema import Audit, Importance, Plan
from shoal.selection import select
from synthetic_audits import DEPTH, audit_of, blocks, random_importance, random_sums, save_audit

SUMS = random_sums(1)
NAMES = SUMS.utterances
SINGLES = tuple((layer,) for layer in range(DEPTH))


def measured() -> Audit:
    """Ablation of layers and pairs (loss, kl), score of pairs, gradient of layers, both parts by ablation."""
    items = [
        random_importance(2, NAMES),
        random_importance(3, NAMES, quantity="kl"),
        random_importance(4, NAMES, quantity="score", sizes=(2,)),
        random_importance(5, NAMES, metric="gradient", quantity="clip-absolute", candidates=SINGLES),
        random_importance(6, NAMES, metric="gradient", quantity="signed", candidates=SINGLES),
        random_importance(7, NAMES, part="attention", candidates=SINGLES),
        random_importance(8, NAMES, metric="gradient", quantity="clip-absolute", part="mlp", candidates=SINGLES),
    ]
    return audit_of({"speech": SUMS}, {"speech": items})


def importance(audit: Audit, name: str) -> Importance:
    (found,) = [item for item in audit.inputs["speech"].importance if item.name == name]
    return found


def slow_best(item: Importance, n: int) -> tuple[int, ...]:
    """The block that keeps the last layer with the smallest value, or sum of its layers' values."""
    value = dict(zip(map(tuple, item.candidates), item.values, strict=True))
    return min(
        blocks(DEPTH, [n]),
        key=lambda layers: value.get(layers) or sum(value[(layer,)] for layer in layers),
    )


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("ablation", "ablation loss"),
        ("ablation-kl", "ablation kl"),
        ("ablation-score", "ablation score"),
        ("gradient", "gradient clip-absolute"),
        ("gradient-signed", "gradient signed"),
    ],
)
def test_contiguous_takes_the_block_with_the_lowest_value(metric, name):
    audit = measured()
    plan = select(audit, 2, metric=metric)
    expected = slow_best(importance(audit, name), 2)
    assert tuple(plan.layers) == expected
    assert (plan.source.metric, plan.source.scope) == (metric, "response")
    named = next((block for block in importance(audit, name).best if block.n == 2), None)
    assert plan.confidence_set == (named.confidence_set if named else [])
    if named:
        assert plan.importance == named.held_out != named.distance
        assert plan.importance.low < plan.importance.value < plan.importance.high
    assert plan.distance.value == audit.inputs["speech"].scopes["response"].metrics["angular"].values[1][expected[0]]


def test_influence_of_a_block_is_the_sum_of_its_layers():
    audit = measured()
    layers = audit.inputs["speech"].scopes["all"].metrics["influence"].values[0]
    best = min(blocks(DEPTH, [3]), key=lambda block: sum(layers[layer] for layer in block))
    plan = select(audit, 3, metric="influence")
    assert tuple(plan.layers) == best
    assert plan.importance.value == pytest.approx(sum(layers[layer] for layer in best))


def test_the_angular_distance_stays_the_distance():
    plan = select(measured(), 2)
    assert plan.importance is None
    assert (plan.source.metric, plan.source.scope) == ("angular", "all")


@pytest.mark.parametrize("allow_last", [False, True])
def test_lowest_ranks_layers_by_what_was_measured_of_each(allow_last):
    audit = measured()
    values = importance(audit, "gradient clip-absolute").values[: DEPTH if allow_last else DEPTH - 1]
    plan = select(audit, 3, strategy="lowest", metric="gradient", allow_last=allow_last)
    assert plan.layers == sorted(sorted(range(len(values)), key=values.__getitem__)[:3])
    assert plan.importance is None
    alone = select(audit, 1, strategy="lowest", metric="gradient", allow_last=allow_last)
    assert alone.importance.value == min(values)


@pytest.mark.parametrize(("part", "metric"), [("attention", "ablation"), ("mlp", "gradient")])
def test_a_part_is_taken_from_the_layers_where_it_is_worth_least(part, metric):
    audit = measured()
    name = f"{part} {metric} {'loss' if metric == 'ablation' else 'clip-absolute'}"
    item = importance(audit, name)
    item.values[DEPTH - 1] = -9.0
    plan = select(audit, 2, part=part, metric=metric)
    assert plan.layers == sorted(sorted(range(DEPTH - 1), key=item.values.__getitem__)[:2])
    assert (plan.part, plan.distance, plan.name) == (part, None, f"lowest-{part}-2")
    assert DEPTH - 1 in select(audit, 2, part=part, metric=metric, allow_last=True).layers


def test_a_refused_candidate_is_not_chosen():
    audit = measured()
    item = importance(audit, "ablation loss")
    first = select(audit, 1, metric="ablation").layers[0]
    item.values[first], item.refused[first] = None, "not finite"
    for strategy in ("contiguous", "lowest"):
        assert first not in select(audit, 1, strategy=strategy, metric="ablation").layers
    with pytest.raises(UsageError, match="refused"):
        select(audit, 5, strategy="lowest", metric="ablation")
    for place in range(len(item.values)):
        item.refused[place] = "not finite"
    with pytest.raises(UsageError, match="every block of 2 layers was refused"):
        select(audit, 2, metric="ablation")


def test_a_candidate_that_a_race_dropped_is_not_chosen_whatever_its_few_clips_say():
    audit = measured()
    item = importance(audit, "ablation loss")
    item.values[3], item.clips[3] = -9.0, 2
    for strategy in ("contiguous", "lowest", "consensus"):
        assert select(audit, 1, strategy=strategy, metric="ablation").layers != [3]
    item.clips[:5] = [8, 2, 2, 2, 2]
    assert select(audit, 1, strategy="lowest", metric="ablation").layers == [0]
    with pytest.raises(UsageError, match="dropped by a race"):
        select(audit, 2, strategy="lowest", metric="ablation")


def test_blocks_that_were_not_all_measured_are_not_ranked():
    audit = measured()
    with pytest.raises(UsageError, match="--metric ablation --block-sizes 3"):
        select(audit, 3, metric="ablation")
    with pytest.raises(UsageError, match="without layer"):
        select(audit, 2, strategy="lowest", metric="ablation-score")
    with pytest.raises(UsageError, match="layers 4 to 5"):
        select(audit, 2, metric="ablation", allow_last=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"metric": "ablation", "scope": "last"},
        {"part": "attention", "metric": "angular"},
        {"part": "attention", "strategy": "contiguous"},
        {"part": "attention", "strategy": "deepest"},
        {"part": "head"},
        {"part": "mlp"},
    ],
)
def test_what_was_not_measured_is_one_line(wrong):
    with pytest.raises(UsageError) as caught:
        select(measured(), 2, **wrong)
    assert "\n" not in str(caught.value)


def test_an_audit_without_importance_says_how_to_measure_it():
    with pytest.raises(UsageError, match="shoal audit --metric ablation"):
        select(audit_of({"speech": SUMS}), 2, metric="ablation")


def test_the_command_says_what_goes_and_by_which_metric(tmp_path, capsys):
    item = random_importance(7, NAMES, part="attention", candidates=SINGLES)
    save_audit(tmp_path, {"speech": SUMS}, {"speech": [random_importance(2, NAMES), item]})
    out = tmp_path / "plan.json"
    command = ["select", str(tmp_path), "--out", str(out), "--layers"]
    assert main([*command, "2", "--metric", "ablation"]) == 0
    assert "\nablation 0." in capsys.readouterr().out
    assert main([*command, "1", "--part", "attention", "--mergekit", str(tmp_path / "m.yaml")]) == 2
    assert Plan.load(out).part == "layer"
    assert main([*command, "1", "--part", "attention"]) == 0
    assert "remove 1 of 6 layers' attention of org/model (lowest)" in capsys.readouterr().out
