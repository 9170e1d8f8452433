"""Do intervals cover, do tests have their size? Simulated corpora whose truth is known.

    python benchmarks/coverage.py [--corpora 600] [--jobs 2]

Every interval and every test is computed by the code that Shoal prints it with, on corpora of clips of about 9 words
with a WER of 0.20: clips alone, speakers that differ, and loops (2 % of clips with 20 times the errors). Nominal are
95 % and 5 %; with 600 corpora a share of 95 % has a standard error of 0.9 points.

The figures: `worst_coverage` of the plain cases with 20 clusters or more, `worst_coverage_loops`, `worst_size` of the
tests of differences and of the families that Holm's correction and confidence sets guard, `bound_coverage` of the
one-sided bound that counts an unseen loop, and `search_false_acceptance`, the share of searches that confirm a plan
which breaks the budget. Each is the worst of its cases.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from shoal.evaluation.scores.errors import CompoundWer
from shoal.evaluation.significance import PairedBootstrap, Rates
from shoal.plan_search.relative_change import RelativeChange
from shoal.plan_search.rule import confirm_in_sequence, held_on_validation
from shoal.schema import Budget, Estimate
from shoal.settings import Intervals
from shoal.statistics import UnseenDraws, confidence_set, interval, make_resampler, mean_bounds
from shoal.statistics.hypothesis_tests import holm
from support.corpora import LOOP_TIMES, RATE, Case, Corpus, Floats, draw

Shares = dict[str, float]
PLAIN = (
    Case("20 clips", clips=20),
    Case("44 clips", clips=44),
    Case("200 clips", clips=200),
    Case("20 speakers", speakers=20, spread=0.08),
    Case("60 speakers", speakers=60, spread=0.08),
    Case("60 speakers, alike", speakers=60, spread=0.05),
    Case("60 speakers, unlike", speakers=60, spread=0.15),
)
FEW = (Case("5 speakers", speakers=5, spread=0.08),)
LOOPS = tuple(replace(case, name=f"{case.name}, loops", loops=0.02) for case in PLAIN[:3])
SEARCHED = (40, 200, 600, 1200)
"""Clips of a search, split in half."""
OTHERS = ("percentile", "by clip", "bound")
"""Columns of the table of coverage that are no two-sided intervals of today."""
MARGIN = 0.25
BY_LOOPS = MARGIN / (LOOP_TIMES - 1)
BAD_PLANS = {
    "by errors": [(MARGIN * RATE, 0.0)],
    "by loops": [(0.0, BY_LOOPS)],
    "by both": [(MARGIN * RATE / 2, BY_LOOPS / 2)],
    "three by loops": [(0.0, BY_LOOPS)] * 3,
}
"""Plans whose true increase is the limit: errors added at a rate, and the share of clips that loop."""
TOKEN_LIMIT = 60.0
"""Words that a loop may add: the token limit of a clip of 4 s."""


def main() -> None:
    """Simulate, print the tables, end with the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=int, default=600, help="a case")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    print(json.dumps(figures(options.corpora, options.jobs)))


def figures(corpora: int, jobs: int) -> Shares:
    """Print a table a subject and return the worst shares."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(jobs) as pool:
        simulate = partial(_simulated, pool, corpora)
        covered = simulate(coverage, [*PLAIN, *FEW, *LOOPS])
        sizes = simulate(size, [*PLAIN, *LOOPS])
        power = simulate(size, [replace(case, added=0.04) for case in PLAIN[1:3]])
        families = simulate(family, [Case("10 groups", clips=200), Case("20 groups", clips=400)])
        chosen = simulate(best_block, [Case("20 clips", clips=20), Case("44 clips", clips=44)])
        searches = simulate(search, [Case(f"{size} clips", clips=size) for size in SEARCHED])
    show("Coverage of 95 % intervals (%)", covered)
    show("Size of 5 % tests without a difference (%)", sizes)
    show("Power at +4 points (%)", power)
    show("A significant group where none differs, of groups of 20 clips (%)", families)
    show("Best blocks (%)", chosen)
    show("Plans at the limit of +25 %, and one that changes nothing, confirmed by a search (%)", searches)
    plain, loops = ([shares for name, shares in covered.items() if name in names(cases)] for cases in (PLAIN, LOOPS))
    return {
        "worst_coverage": min(_without(plain, *OTHERS)),
        "worst_coverage_loops": min(_without(loops, *OTHERS)),
        "bound_coverage": min(shares["bound"] for shares in (*plain, *loops)),
        "worst_size": max(
            max(_without(sizes.values(), "percentile")),
            max(shares["Holm"] for shares in families.values()),
            max(1 - shares["confidence set holds the best"] for shares in chosen.values()),
        ),
        "search_false_acceptance": max(_without(searches.values(), "no change")),
    }


def _without(rows: Iterable[Shares], *names: str) -> list[float]:
    return [share for shares in rows for name, share in shares.items() if name not in names]


def names(cases: Iterable[Case]) -> set[str]:
    """Of the cases."""
    return {case.name for case in cases}


def _simulated(
    pool: ProcessPoolExecutor, corpora: int, trial: Callable[[Case, int], Shares], cases: Iterable[Case]
) -> dict[str, Shares]:
    """Case → the mean of what `trial` says of each corpus."""
    running = {case.name: pool.map(partial(trial, case), range(corpora), chunksize=10) for case in cases}
    return {name: _mean(list(results)) for name, results in running.items()}


def _mean(rows: list[Shares]) -> Shares:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def coverage(case: Case, seed: int) -> Shares:
    """Which intervals of one corpus hold the truth; `percentile` and `by clip` are what Shoal once printed."""
    corpus, bootstrap = draw(case, np.random.default_rng(seed)), PairedBootstrap.of(Intervals(seed=seed), case.names)
    second, first = (_rates(bootstrap, corpus, errors) for errors in (corpus.second, corpus.first))
    change = bootstrap.delta(second, first)
    low, high = interval(first.resampled.replicates[:, None], 0.95)
    by_clip = PairedBootstrap.of(Intervals(seed=seed, cluster="utterance"), case.names) if case.speakers else bootstrap
    bounds = mean_bounds(corpus.first[:, None], corpus.words[:, None], bootstrap.resampler, 0.95)
    loop = np.array([TOKEN_LIMIT, 9.0])
    bound = UnseenDraws.of(_error_rate, first.resampled.clusters, loop, draws=999, seed=seed).upper(0.95)
    return {
        "rate": holds(bootstrap.estimate(first), case.rate),
        "difference": holds(change.absolute, case.other_rate - case.rate),
        "relative": 1.0 if change.relative is None else holds(change.relative, case.other_rate / case.rate - 1),
        "mean": float(bounds[0][0] <= case.rate <= bounds[1][0]),
        "by clip": holds(by_clip.estimate(_rates(by_clip, corpus, corpus.first)), case.rate),
        "percentile": float(low[0] <= case.rate <= high[0]),
        "bound": float(case.rate <= bound),
    }


def holds(estimate: Estimate, truth: float) -> float:
    """Whether the interval holds the truth; one that is open does."""
    return float(estimate.low is None or estimate.high is None or estimate.low <= truth <= estimate.high)


def _error_rate(totals: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(totals[..., 0] / totals[..., 1])


def _rates(bootstrap: PairedBootstrap, corpus: Corpus, errors: Floats) -> Rates:
    return bootstrap.rates(_error_rate, corpus.statistics(errors))


def size(case: Case, seed: int) -> Shares:
    """Whether a difference is called significant; `percentile` is the p-value that Shoal once printed."""
    corpus, bootstrap = draw(case, np.random.default_rng(seed)), PairedBootstrap.of(Intervals(seed=seed), case.names)
    second, first = (_rates(bootstrap, corpus, errors) for errors in (corpus.second, corpus.first))
    p_value = bootstrap.delta(second, first).p_value
    draws = second.resampled.replicates - first.resampled.replicates
    inverted = 2 * (1 + min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))) / (len(draws) + 1)
    return {"sign flips": float(p_value is not None and p_value <= 0.05), "percentile": float(inverted <= 0.05)}


def family(case: Case, seed: int) -> Shares:
    """Whether any group of 20 clips is called different after Holm's correction."""
    corpus = draw(case, np.random.default_rng(seed))
    p_values = []
    for start in range(0, case.clips, 20):
        part = slice(start, start + 20)
        bootstrap = PairedBootstrap.of(Intervals(seed=seed, replicates=10), [None] * 20, tests=case.clips // 20)
        second, first = (
            bootstrap.rates(_error_rate, corpus.statistics(errors)[part]) for errors in (corpus.second, corpus.first)
        )
        p_value = bootstrap.delta(second, first).p_value
        assert p_value is not None
        p_values.append(p_value)
    return {"Holm": float(min(holm(p_values)) <= 0.05)}


def best_block(case: Case, seed: int) -> Shares:
    """28 blocks measured on the same clips, four of them nearly as good as the best."""
    generator = np.random.default_rng(seed)
    truth = np.full(28, 0.5)
    truth[:5] = 0.3, 0.302, 0.305, 0.31, 0.32
    positions = 20.0 + generator.poisson(30, case.clips)
    clip = generator.normal(0, 0.1, (case.clips, 1))
    means = truth + clip + generator.normal(0, 0.05, (case.clips, 28))
    resampler = make_resampler([None] * case.clips, replicates=1000, seed=seed)
    kept = confidence_set(means * positions[:, None], positions, resampler, 0.95)
    return {"confidence set holds the best": float(kept[0]), "blocks kept of 28": float(kept.mean())}


def search(case: Case, seed: int) -> Shares:
    """Whether a search on so many clips, split in half, confirms a plan whose true increase is the limit."""
    shares = {name: float(_confirms(case.clips // 2, plans, seed)) for name, plans in BAD_PLANS.items()}
    return shares | {"no change": float(_confirms(case.clips // 2, [(0.0, 0.0)], seed))}


def _confirms(clips: int, plans: Sequence[tuple[float, float]], seed: int) -> bool:
    """The whole rule: bounds on the validation half, a sequence of tests on the other."""
    budget, generator = Budget(max_increase=MARGIN), np.random.default_rng(seed)
    validation, confirmation = (_changes(clips, plans, generator, seed) for _ in range(2))
    held = [test for before, test in zip(validation, confirmation, strict=True) if held_on_validation(before, budget)]
    return any(verdict.confirmed for verdict in confirm_in_sequence(held, budget, MARGIN, clips))


def _changes(
    clips: int, plans: Sequence[tuple[float, float]], generator: np.random.Generator, seed: int
) -> list[RelativeChange]:
    """The same clips under each plan, which adds errors at a rate and loops on a share of clips."""
    corpus = draw(Case("", clips=clips), generator)
    words, full = corpus.words, corpus.first
    bootstrap = PairedBootstrap.of(Intervals(seed=seed, replicates=400), [None] * clips)
    changes = []
    for added, loops in plans:
        again = generator.random(clips) < 0.3
        errors = np.where(again, generator.binomial(words.astype(int), RATE), full)
        errors = errors + generator.binomial(words.astype(int), added)
        errors = np.where(generator.random(clips) < loops, LOOP_TIMES * RATE * words, errors)
        counts = (np.stack([wrong, words], axis=1) for wrong in (errors, full))
        changes.append(RelativeChange.of(CompoundWer(), *counts, bootstrap, TOKEN_LIMIT / words.mean()))
    return changes


def show(title: str, table: Mapping[str, Shares]) -> None:
    """One row a case."""
    columns = list(next(iter(table.values())))
    print(f"\n{title}\n{'':24}" + "  ".join(f"{column:>12}" for column in columns))
    for name, shares in table.items():
        print(f"{name:<24}" + "  ".join(f"{100 * shares[column]:>{max(12, len(column))}.1f}" for column in columns))


if __name__ == "__main__":
    main()
