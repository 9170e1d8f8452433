"""From raw outputs to scores: pure, so it can be repeated without a model.

Every system is scored on the same clips, with one bootstrap draw for all of them (and one for each group),
so that differences are paired. Texts are read in blocks and counted; no more than a block is held at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shoal.errors import ManifestError
from shoal.evaluation.cliff import cliffs
from shoal.evaluation.empty_references import NAMED
from shoal.evaluation.failures import KINDS, NONE, failure_shares
from shoal.evaluation.groups import add_groups, groupings, noted_fields
from shoal.evaluation.listening import ControlledSystem, add_controls
from shoal.evaluation.loops import largest_clip
from shoal.evaluation.paired_scores import PairedScores
from shoal.evaluation.scores import registry
from shoal.evaluation.significance import PairedBootstrap
from shoal.evaluation.system_outputs import Output
from shoal.evaluation.unseen_bounds import add_bounds
from shoal.evaluation.utterance_counts import UtteranceCounts, count_systems, label_set
from shoal.schema import Cliff, Drawn, Example, MeasuredScore, Plan, SystemScores
from shoal.statistics import Units
from shoal.terms import Control

if TYPE_CHECKING:
    from shoal.evaluation.comet import Comet
    from shoal.evaluation.scores.base import Score
    from shoal.evaluation.settings import ScoringSettings, TokenLimit
    from shoal.tasks import Task

EXAMPLES = 12
BASELINE = "baseline"
"""The name of another checkpoint that the others are compared with."""


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """Which system: what is known of it without its outputs."""

    name: str
    model_ref: str | None = None
    plan: Plan | None = None
    outputs_file: str | None = None
    missing: Sequence[int] = ()
    """Layers that the checkpoint itself lacks, in the numbering of the model that it was made from."""
    controls: Mapping[Control, str | None] = field(default_factory=dict)
    """Where its outputs under every control lie."""
    fingerprint: str = ""
    """Of another checkpoint than the document's model."""
    healed: str = ""
    """The target that it was healed by."""


@dataclass(frozen=True)
class ScoredSystems:
    """Everything in `Scores` that comes from the outputs, under the same names."""

    systems: list[SystemScores]
    cliffs: list[Cliff]
    examples: list[Example]
    normaliser: str
    scorer: str
    out_of_domain: list[str]
    drawn: Drawn
    intervals: Literal["studentised"] = "studentised"


def score_systems(
    systems: Sequence[SystemIdentity],
    outputs: Sequence[Mapping[str, Output]],
    ids: Sequence[str],
    task: Task,
    scoring: ScoringSettings,
    *,
    controls: Sequence[Mapping[Control, Mapping[str, Output]]] = (),
    comet: Comet | None = None,
    limit: TokenLimit | None = None,
) -> ScoredSystems:
    """Score systems on the same clips; the first is the baseline.

    Args:
        systems: which they are.
        outputs: for each system clip id → output; each is read a few times, by id.
        ids: the clips to score, all in every system's outputs.
        task: says how text is normalised and what a word is.
        scoring: groups, data sets out of domain, and how intervals are made.
        controls: for each system control → clip id → output, where there are any.
        comet: scores translations too.
        limit: how many tokens a clip could get; None where it is not known, and what a loop can cost neither.

    Raises:
        ManifestError: no clip, or no reference word in any of them.
        UsageError: an unknown field to group by, or an unknown data set out of domain.
    """
    if not ids:
        raise ManifestError("no clip is left to score", fix="see the skipped rows above")
    # Sorted, so that the same clips give the same draws whatever order they were decoded in.
    ids = sorted(ids)
    scores = registry.scores_of(task, label_set(task, outputs[0], ids))
    if comet is not None:
        scores = (*scores, comet)
    counts, clips = count_systems(outputs, ids, task, scores, noted_fields(scoring.group_by))
    if not counts[0].words.lengths.sum():
        raise ManifestError(
            "no reference has a word after normalising", fix="check the text of the manifest and its language"
        )
    scored = PairedScores.of(scores, counts, PairedBootstrap.of(scoring, clips.speakers, tests=len(systems)))
    if scores[0].name not in scored.scores:
        raise ManifestError(f"{scores[0].name} finds nothing in the references", fix="check them in the manifest")
    measures = scored.corrected_measures()
    if limit is not None:
        limits = [limit.of_seconds(seconds) for seconds in clips.seconds]
        add_bounds(measures, scores[0], counts, (limits, clips.seconds), scored.bootstrap)
    system_scores = [_system(*parts, scores[0], ids) for parts in zip(systems, measures, counts, strict=True)]
    cliff: list[Cliff] = []
    if scores[0].counts_errors:
        for system, counted in zip(system_scores, counts, strict=True):
            system.failures = failure_shares(counted.failures, ids, scored.bootstrap)
        cliff = cliffs(system_scores, scored.rates[scores[0].name], scoring.level)
    for grouping in groupings(clips, scoring.group_by, scoring.out_of_domain):
        add_groups(system_scores, scores, counts, clips, grouping, scoring)
    controlled = [
        ControlledSystem(scored, of_system, said, under, system.controls)
        for scored, of_system, said, under, system in zip(
            system_scores, counts, outputs, controls, systems, strict=bool(controls)
        )
    ]
    add_controls(controlled, ids, clips.speakers, task, [score for score in scores if score is not comet], scoring)
    examples = _examples(
        [system.name for system in system_scores], counts, outputs, ids, failing=scores[0].counts_errors
    )
    return ScoredSystems(
        system_scores,
        cliff,
        examples,
        clips.normaliser(task),
        clips.scorer(task, scores),
        list(scoring.out_of_domain),
        Units.of(clips.speakers, scoring.cluster).drawn,
    )


def _system(
    identity: SystemIdentity,
    measures: dict[str, MeasuredScore],
    counts: UtteranceCounts,
    headline: Score,
    ids: Sequence[str],
) -> SystemScores:
    empty = np.flatnonzero(counts.words.lengths == 0)
    looping = np.flatnonzero(counts.loops)
    largest = largest_clip(headline, counts.statistics[headline.name])
    totals: Mapping[str, Any] = counts.totals
    return SystemScores(
        name=identity.name,
        model_ref=identity.model_ref,
        fingerprint=identity.fingerprint,
        healed=identity.healed,
        plan=identity.plan,
        removed=identity.plan.layers if identity.plan else [],
        missing=list(identity.missing),
        measures=measures,
        disagreements=counts.disagreements,
        empty_references=len(empty),
        empty_reference_clips=[ids[clip] for clip in empty[:NAMED]],
        words_without_reference=int(counts.words.errors[empty].sum()),
        loops=len(looping),
        loop_clips=[ids[clip] for clip in looping[:NAMED]],
        largest_clip=ids[largest[0]] if largest else None,
        largest_share=largest[1] if largest else None,
        outputs_file=identity.outputs_file,
        **totals,
    )


def _examples(
    names: Sequence[str],
    counts: Sequence[UtteranceCounts],
    outputs: Sequence[Mapping[str, Output]],
    ids: Sequence[str],
    *,
    failing: bool,
) -> list[Example]:
    """Clips from the whole range, from those the systems agree on to those they differ on most."""
    errors = np.stack([system.words.errors for system in counts])  # (systems, U)
    lengths = np.maximum(counts[0].words.lengths, 1)
    spread = (errors.max(axis=0) - errors.min(axis=0)) / lengths
    order = np.argsort(spread, kind="stable")
    ranks = np.unique(np.linspace(0, len(order) - 1, EXAMPLES).round().astype(int))
    kinds = np.stack([system.failures for system in counts]) if failing else np.full(errors.shape, NONE)
    chosen = order[ranks].tolist()
    # One clip of each way in which an answer is wrong, too.
    for kind in np.setdiff1d(kinds[kinds != NONE], kinds[:, chosen]):
        chosen.append(int((kinds == kind).any(axis=0).argmax()))
    return [_example(ids[clip], kinds[:, clip].tolist(), names, outputs) for clip in chosen]


def _example(clip: str, kinds: Sequence[int], names: Sequence[str], outputs: Sequence[Mapping[str, Output]]) -> Example:
    texts = {name: system[clip].pred_text for name, system in zip(names, outputs, strict=True)}
    failures = {name: KINDS[kind] for name, kind in zip(names, kinds, strict=True) if kind != NONE}
    return Example(id=clip, reference=outputs[0][clip].text, outputs=texts, failures=failures)
