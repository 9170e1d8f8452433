"""From per-utterance sums to the numbers of an audit: means, intervals, the best blocks and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shoal.measurement.blocks import block_slice, to_triangle
from shoal.measurement.importance import ImportanceSums, summarise_importance
from shoal.measurement.sums import Cluster, Sums, clusters_of
from shoal.measurement.trust import aligned, trust_of
from shoal.schema import SCOPES, BestBlock, Estimate, InputAudit, InputKind, Scope, ScopeAudit
from shoal.statistics import Resampler, interval, make_resampler

Floats = npt.NDArray[np.float64]

EMPTY_SCOPE = {
    "audio": "nothing stands in the audio slot",
    "text": "the clips have no response text",
}


def summarise(
    sums: Sums,
    kind: InputKind,
    *,
    cluster: Cluster,
    replicates: int,
    level: float,
    seed: int,
    importance: Sequence[ImportanceSums] = (),
) -> InputAudit:
    """Every scope of one input, and what else was measured with it; see `ScopeAudit`, `Importance`, `Trust`."""
    resampler = make_resampler(clusters_of(sums, cluster), replicates=replicates, seed=seed)
    scopes: dict[Scope, ScopeAudit] = {}
    empty: dict[Scope, str] = {}
    for scope in SCOPES:
        if sums.counts[:, SCOPES.index(scope)].sum() == 0:
            empty[scope] = EMPTY_SCOPE.get(scope, "no position")
        else:
            scopes[scope] = summarise_scope(sums, scope, resampler, level)
    items = [aligned(item, sums.utterances) for item in importance]
    return InputAudit(
        input=kind,
        scopes=scopes,
        empty_scopes=empty,
        importance=[summarise_importance(item, resampler, level) for item in items],
        trust=trust_of(sums, items, resampler, level),
    )


def summarise_scope(sums: Sums, scope: Scope, resampler: Resampler, level: float) -> ScopeAudit:
    """One scope: triangle, influence, best blocks, all with intervals where there are two clusters or more."""
    distances = sums.mean(scope, "angular")
    angular, counts = sums.scope(scope, "angular")
    influence, _ = sums.scope(scope, "influence")
    replicates = resampler.means(angular, counts) if resampler.clusters > 1 else None
    result = ScopeAudit(
        positions=int(counts.sum()),
        utterances=int((counts > 0).sum()),
        angular=to_triangle(distances, sums.depth),
        influence=sums.mean(scope, "influence").tolist(),
        best=best_blocks(distances, replicates, sums.depth, level),
        best_keeping_last=best_blocks(distances, replicates, sums.depth, level, keep_last=True),
    )
    if replicates is not None:
        low, high = interval(replicates, level)
        result.angular_low, result.angular_high = to_triangle(low, sums.depth), to_triangle(high, sums.depth)
        low, high = interval(resampler.means(influence, counts), level)
        result.influence_low, result.influence_high = low.tolist(), high.tolist()
    return result


def best_blocks(
    distances: Floats, replicates: Floats | None, depth: int, level: float, *, keep_last: bool = False
) -> list[BestBlock]:
    """The block with the smallest distance for each n = 1 … L (with `keep_last`, to L-1).

    Args:
        distances: (blocks,) means, in the order of `block_ends`.
        replicates: (R, blocks) bootstrap replicates, or None.
        depth: number of layers L.
        level: of the interval.
        keep_last: leave out the blocks that end at the last layer.
    """
    found = []
    for n in range(1, depth + (not keep_last)):
        blocks = block_slice(depth, n)
        part = slice(blocks.start, blocks.stop - keep_last)
        here = None if replicates is None else replicates[:, part]
        found.append(_best_of_size(n, distances[part], here, level))
    return found


def _best_of_size(n: int, distances: Floats, replicates: Floats | None, level: float) -> BestBlock:
    layer = int(distances.argmin())
    value = float(distances[layer])
    if replicates is None:
        return BestBlock(n=n, layer=layer, distance=Estimate(value=value, level=level), stability=None)
    low, high = interval(replicates[:, layer], level)
    usable = replicates[~np.isnan(replicates).any(1)]
    wins = np.bincount(usable.argmin(1), minlength=len(distances))
    others = wins.copy()
    others[layer] = 0
    return BestBlock(
        n=n,
        layer=layer,
        distance=Estimate(value=value, low=float(low), high=float(high), level=level),
        stability=float(wins[layer] / max(1, wins.sum())),
        runner_up=int(others.argmax()) if others.any() else None,
    )
