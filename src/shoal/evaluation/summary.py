"""From raw outputs to scores: pure, so it can be repeated without a model.

Every system is scored on the same clips, with one bootstrap draw for all of them (and one for each group),
so that differences are paired. Texts are read in blocks and counted; no more than a block is held at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.errors import ManifestError
from shoal.evaluation import measures
from shoal.evaluation.edit_counts import EditCounts, word_counts
from shoal.evaluation.groups import GroupScores, groupings, noted_fields, score_groups
from shoal.evaluation.output_file import Output
from shoal.evaluation.rating import Judge, Rating
from shoal.evaluation.scores.errors import units_apart
from shoal.evaluation.significance import PairedBootstrap, Rates, correct
from shoal.evaluation.utterance_counts import UtteranceCounts, label_set, tallied
from shoal.schema import Example, Plan, SystemScores

if TYPE_CHECKING:
    from shoal.evaluation.comet import Comet
    from shoal.evaluation.measures import Score
    from shoal.evaluation.settings import Resampling
    from shoal.tasks import Task

EXAMPLES = 12


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """Which system: what is known of it without its outputs."""

    name: str
    model_ref: str | None = None
    plan: Plan | None = None
    outputs_file: str | None = None


@dataclass(frozen=True)
class Summary:
    """Everything in `Scores` that comes from the outputs, under the same names."""

    systems: list[SystemScores]
    examples: list[Example]
    normaliser: str
    scorer: str
    out_of_domain: list[str]


def summarise(
    systems: Sequence[SystemIdentity],
    outputs: Sequence[Mapping[str, Output]],
    ids: Sequence[str],
    task: Task,
    *,
    resampling: Resampling,
    group_by: Sequence[str] | None,
    out_of_domain: Sequence[str] = (),
    comet: Comet | None = None,
) -> Summary:
    """Score systems on the same clips; the first is the baseline.

    Args:
        systems: which they are.
        outputs: for each system clip id → output; each is read a few times, by id.
        ids: the clips to score, all in every system's outputs.
        task: says how text is normalised and what a word is.
        resampling: replicates, seed, level and what is drawn.
        group_by: manifest fields; None is the speaker where known. The data set is added where there are several,
            except for an empty list.
        out_of_domain: names of data sets; those and all others are pooled as groups of the field `domain`.
        comet: scores translations too.

    Raises:
        ManifestError: no clip, or no reference word in any of them.
        UsageError: an unknown field in `group_by`, or an unknown data set in `out_of_domain`.
    """
    if not ids:
        raise ManifestError("no clip is left to score", fix="see the skipped rows above")
    # Sorted, so that the same clips give the same draws whatever order they were decoded in.
    ids = sorted(ids)
    measures = _measures(task, outputs[0], ids, comet)
    tallies, clips, texts = tallied(outputs, ids, task, measures, noted_fields(group_by))
    if not tallies[0].words.lengths.sum():
        raise ManifestError(
            "no reference has a word after normalising", fix="check the text of the manifest and its language"
        )
    judge = Judge(measures, resampling)
    fields = _overall(judge.rate(tallies, clips))
    for grouping in groupings(clips, group_by, out_of_domain):
        for found, groups in zip(fields, score_groups(tallies, clips, grouping, judge), strict=True):
            _add_groups(found, grouping.field, groups)
    merged = [_system(identity, found) for identity, found in zip(systems, fields, strict=True)]
    examples = _examples([system.name for system in merged], tallies, outputs, ids)
    return Summary(merged, examples, texts.label, texts.scorer, list(out_of_domain))


def word_edits(outputs: Sequence[Output], task: Task) -> EditCounts:
    """The edits of every output against its reference, normalised; in words, or what `task` counts instead."""
    return word_counts(*units_apart(measures.answers(task, outputs)))


def _measures(
    task: Task, outputs: Mapping[str, Output], ids: Sequence[str], comet: Comet | None
) -> tuple[Score, ...]:
    """What the task is scored by; nothing for `asr`, whose rates have fields of their own."""
    own = () if task.name == "asr" else measures.scores(task, label_set(task, outputs, ids))
    return own if comet is None else (*own, comet)


def _overall(rating: Rating) -> list[dict[str, Any]]:
    """For every system the fields of `SystemScores` that all clips decide."""
    words, chars, compounds = rating.word_errors(), rating.char_errors(), rating.compound_errors()
    rated = rating.rated()
    if rating.scores and rating.scores[0].name not in rated:
        raise ManifestError(
            f"{rating.scores[0].name} finds nothing in the references", fix="check them in the manifest"
        )
    bootstrap, measures = rating.bootstrap, rating.measures(rated)
    deltas = [bootstrap.delta(rate, words[0]) if place else None for place, rate in enumerate(words)]
    correct(deltas)
    for name in rated:
        correct(found[name].delta for found in measures)
    return [
        {
            "wer": bootstrap.estimate(words[place]),
            "cer": bootstrap.estimate(chars[place]),
            "compound_wer": None if merged is None else bootstrap.estimate(merged),
            "delta_wer": deltas[place],
            "measures": measures[place],
            "standard_errors": _standard_errors(
                bootstrap,
                {
                    "wer": words[place],
                    "cer": chars[place],
                    "compound_wer": merged,
                    **{name: rates[place] for name, (_, rates) in rated.items()},
                },
            ),
            "disagreements": tally.disagreements,
            "word_counts": tally.words.total(),
            "char_counts": tally.chars.total(),
            "empty_references": int((tally.words.lengths == 0).sum()),
            **tally.totals,
            "groups": {},
            "worst_group": {},
            "most_worsened": {},
        }
        for place, (tally, merged) in enumerate(zip(rating.tallies, compounds, strict=True))
    ]


def _standard_errors(bootstrap: PairedBootstrap, rates: Mapping[str, Rates | None]) -> dict[str, float]:
    errors = {name: bootstrap.standard_error(rate) for name, rate in rates.items() if rate is not None}
    return {name: error for name, error in errors.items() if error is not None}


def _add_groups(fields: dict[str, Any], name: str, groups: GroupScores) -> None:
    fields["groups"][name] = groups.scores
    if groups.worst is not None:
        fields["worst_group"][name] = groups.worst
    if groups.most_worsened is not None:
        fields["most_worsened"][name] = groups.most_worsened


def _system(identity: SystemIdentity, fields: Mapping[str, Any]) -> SystemScores:
    removed = identity.plan.layers if identity.plan else []
    known = {
        "name": identity.name,
        "model_ref": identity.model_ref,
        "plan": identity.plan,
        "removed": removed,
    }
    return SystemScores.model_validate({**known, "outputs_file": identity.outputs_file, **fields})


def _examples(
    names: Sequence[str],
    tallies: Sequence[UtteranceCounts],
    outputs: Sequence[Mapping[str, Output]],
    ids: Sequence[str],
) -> list[Example]:
    """Clips from the whole range, from those the systems agree on to those they differ on most."""
    errors = np.stack([tally.words.errors for tally in tallies])  # (systems, U)
    lengths = np.maximum(tallies[0].words.lengths, 1)
    spread = (errors.max(axis=0) - errors.min(axis=0)) / lengths
    order = np.argsort(spread, kind="stable")
    places = np.unique(np.linspace(0, len(order) - 1, EXAMPLES).round().astype(int))
    return [_example(ids[order[place]], names, outputs) for place in places]


def _example(clip: str, names: Sequence[str], outputs: Sequence[Mapping[str, Output]]) -> Example:
    said = {name: found[clip].pred_text for name, found in zip(names, outputs, strict=True)}
    return Example(id=clip, reference=outputs[0][clip].text, outputs=said)
