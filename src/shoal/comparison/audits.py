"""How alike two audits are: text against speech, two tasks, two languages, two encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shoal.comparison.settings import CompareSettings
from shoal.errors import UsageError
from shoal.measurement.blocks import block_slice
from shoal.measurement.importance import ImportanceSums
from shoal.measurement.metric_types import CosineMetric
from shoal.measurement.metrics import cosine_metrics
from shoal.measurement.sums import Sums, load_sums, units_of
from shoal.measurement.trust import cost_rows
from shoal.provenance import provenance
from shoal.schema import (
    SCOPES,
    Audit,
    BlockOverlap,
    ComparedAudit,
    Comparison,
    Estimate,
    InputKind,
    MetricComparison,
    Scope,
    ScopeComparison,
)
from shoal.settings import takes
from shoal.statistics import Floats, Resampler, disattenuated, halves_of, make_resampler, reliability, spearman
from shoal.terms import Caution


@dataclass(frozen=True)
class Side:
    """One side of a comparison, read from disk."""

    path: Path
    audit: Audit
    input: InputKind
    sums: Sums
    importance: list[ImportanceSums] = field(default_factory=list)
    """What was measured of importance with this input."""

    @property
    def traits(self) -> tuple[str, str, str]:
        """What can tell two sides apart."""
        return self.input, self.audit.task, Path(self.audit.model.ref).name

    def apart_from(self, other: Side) -> str:
        """A label that says what sets this side apart from `other`."""
        differing = [mine for mine, theirs in zip(self.traits, other.traits, strict=True) if mine != theirs]
        return ", ".join(differing or self.traits)

    def described(self, label: str) -> ComparedAudit:
        """For the record, under a label."""
        return ComparedAudit(
            path=str(self.path), label=label, input=self.input, task=self.audit.task, model_ref=self.audit.model.ref
        )


@takes(CompareSettings)
def compare(a: str | Path, b: str | Path, settings: CompareSettings | None = None, **options: Any) -> Comparison:
    """How alike two audits are: rank correlations of the triangles and overlap of the chosen blocks.

    They have no interval: the noise of the clips lowers them, and lowers them once more in every bootstrap replicate.
    Random halves of the clips say how well each order repeats, and what the correlation is without that noise.

    Args:
        a: an `audit.json`.
        b: another, or the same (then speech is compared with text).
        settings: what is compared.
        **options: fields of `CompareSettings`, instead of `settings` or in their place.

    Raises:
        FileFormatError: a file or its `.npz` is missing or broken.
        UsageError: depths differ, or an input or scope is missing.
    """
    settings = CompareSettings.of(settings, options)
    a, b = Path(a), Path(b)
    left = read_side(a, settings.input_a, None)
    same_file = a.resolve() == b.resolve()
    right = read_side(b, settings.input_b, "text" if same_file else left.input)
    if left.sums.depth != right.sums.depth:
        raise UsageError(
            f"the decoders have {left.sums.depth} and {right.sums.depth} layers",
            where=f"{a} and {b}",
            fix="compare audits of decoders with the same depth",
        )
    first, second = resamplers_of([left, right], 0, settings.seed)
    halves = [halves_of(resampler, seed=settings.seed) for resampler in (first, second)]
    return Comparison(
        provenance=provenance(),
        a=left.described(left.apart_from(right)),
        b=right.described(right.apart_from(left)),
        paired=first is second,
        same_layers=same_layers(left, right),
        scopes={
            scope: compare_scope(left.sums, right.sums, scope, *halves)
            for scope in _shared_scopes(left, right, settings.scopes)
        },
    )


def compare_scope(a: Sums, b: Sums, scope: Scope, halves_a: Resampler, halves_b: Resampler) -> ScopeComparison:
    """Correlations and overlaps over one scope; the halves of the clusters of each side say how well they repeat."""
    comparisons = {}
    for metric in cosine_metrics():
        if metric.name in a.slices and metric.name in b.slices and scope in metric.scopes:
            pair = Pair(cost_rows(a, scope, metric, halves_a), cost_rows(b, scope, metric, halves_b))
            comparisons[metric.name] = _compare_metric(pair, metric, a.depth)
    return ScopeComparison(metrics=comparisons)


def _compare_metric(pair: Pair, metric: CosineMetric, depth: int) -> MetricComparison:
    blocks = metric.per == "block"
    statistic = partial(within_sizes, depth=depth) if blocks else spearman
    halves = pair.a[1:], pair.b[1:]
    comparison = MetricComparison(
        title=metric.title,
        spearman=pair.observed(spearman),
        reliability_a=reliability(halves[0], statistic),
        reliability_b=reliability(halves[1], statistic),
        disattenuated=disattenuated(*halves, statistic) if all(map(len, halves)) else None,
    )
    if blocks:
        comparison.spearman_within_n = pair.observed(statistic)
        comparison.overlaps = [_overlap(pair, depth, n) for n in range(1, depth)]
        comparison.mean_overlap = pair.observed(partial(mean_overlap, depth=depth))
    return comparison


@dataclass(frozen=True)
class Pair:
    """The same columns of both audits, the lower the more redundant: row 0 the means, the others from draws.

    Both are (1 + draws, columns); a side with one cluster has no draws.
    """

    a: Floats
    b: Floats

    def observed(self, statistic: Callable[[Floats, Floats], Floats]) -> Estimate:
        """`statistic` of the means, without an interval."""
        return Estimate(value=float(statistic(self.a[:1], self.b[:1])[0]))


def within_sizes(x: Floats, y: Floats, depth: int) -> Floats:
    """Mean over n < L of the rank correlation among blocks of n layers: (R, blocks) → (R,).

    Distances grow with n whatever the model, so the correlation over all blocks flatters; this one does not.
    """
    parts = [block_slice(depth, n) for n in range(1, depth)]
    return np.mean([spearman(x[:, part], y[:, part]) for part in parts] or [np.zeros(len(x))], axis=0)


def block_overlap(x: Floats, y: Floats, depth: int, n: int) -> Floats:
    """Share of layers that the best blocks of n layers have in common: (R, blocks) → (R,)."""
    part = block_slice(depth, n)
    apart = np.abs(x[:, part].argmin(1) - y[:, part].argmin(1))
    return np.maximum(0, n - apart) / n


def mean_overlap(x: Floats, y: Floats, depth: int) -> Floats:
    """Mean of `block_overlap` over n < L."""
    parts = [block_overlap(x, y, depth, n) for n in range(1, depth)]
    return np.mean(parts or [np.ones(len(x))], axis=0)


def _overlap(pair: Pair, depth: int, n: int) -> BlockOverlap:
    part = block_slice(depth, n)
    return BlockOverlap(
        n=n,
        a=int(pair.a[0, part].argmin()),
        b=int(pair.b[0, part].argmin()),
        overlap=pair.observed(partial(block_overlap, depth=depth, n=n)),
    )


def read_side(path: Path, asked: InputKind | None, default: InputKind | None) -> Side:
    """One input of an audit and its sums: the one asked for, else the default if it is there.

    Raises:
        FileFormatError: the audit or its `.npz` is missing or broken.
        UsageError: it has no such input.
    """
    audit = Audit.load(path)
    measured = load_sums(path.with_name(audit.sums_file or "audit.npz"))
    fallback: InputKind = "speech" if "speech" in measured.inputs else "text"
    kind = asked or (default if default in measured.inputs else fallback)
    if kind not in measured.inputs:
        raise UsageError(
            f"this audit has no {kind} input", where=str(path), fix=f"it has {', '.join(sorted(measured.inputs))}"
        )
    return Side(path, audit, kind, measured.inputs[kind], measured.importance.get(kind, []))


def same_layers(a: Side, b: Side) -> bool:
    """Whether two decoders have the same layout: as many layers, each as wide and with as many parameters."""
    first, second = a.audit.model, b.audit.model
    sizes = [model.decoder_layer_parameters for model in (first, second)]
    alike = sizes[0] == sizes[1] or not all(sizes)
    return alike and (first.depth, first.hidden_size) == (second.depth, second.hidden_size)


def caution_of(sides: Sequence[Side]) -> Caution | None:
    """Why an interval over all of them is not to be relied on: the gravest reason of any."""
    cautions = [units_of(side.sums, side.audit.cluster).caution for side in sides]
    return "one speaker" if "one speaker" in cautions else next(filter(None, cautions), None)


def resamplers_of(sides: Sequence[Side], replicates: int, seed: int) -> list[Resampler]:
    """Sides measured on the same utterances are resampled together, others by draws of their own."""
    resamplers: list[Resampler] = []
    for index, side in enumerate(sides):
        clusters = units_of(side.sums, side.audit.cluster).clusters
        same = [
            resamplers[before]
            for before, other in enumerate(sides[:index])
            if other.sums.utterances == side.sums.utterances and other.audit.cluster == side.audit.cluster
        ]
        resamplers += same[:1] or [make_resampler(clusters, replicates=replicates, seed=seed + index)]
    return resamplers


def _shared_scopes(left: Side, right: Side, asked: Sequence[Scope] | None) -> list[Scope]:
    def has(side: Side, scope: Scope) -> bool:
        return bool(side.sums.counts[:, SCOPES.index(scope)].sum())

    shared = [scope for scope in SCOPES if has(left, scope) and has(right, scope)]
    missing = [scope for scope in asked or () if scope not in shared]
    if missing or not shared:
        raise UsageError(
            f"no positions in scope {', '.join(missing) or 'any'} on both sides",
            where="--scope",
            fix=f"shared scopes: {', '.join(shared) or 'none'}",
        )
    return [scope for scope in shared if scope in asked] if asked else shared
