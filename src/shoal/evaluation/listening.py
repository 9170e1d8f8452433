"""Is it still listening? Systems with the right audio against themselves with the wrong audio, and with none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

import numpy as np

from shoal.evaluation.output import AUDIO_OF
from shoal.evaluation.paired_scores import Clips, PairedScores
from shoal.evaluation.scores.answers import answers_of
from shoal.evaluation.scores.edit_counts import EditCounts
from shoal.evaluation.significance import PairedBootstrap, correct
from shoal.evaluation.utterance_counts import UtteranceCounts, blocks, count_outputs
from shoal.schema import ControlScore, Estimate, SystemScores
from shoal.terms import Control

if TYPE_CHECKING:
    from shoal.evaluation.scores.base import Score
    from shoal.evaluation.settings import ScoringSettings
    from shoal.evaluation.system_outputs import Output
    from shoal.tasks import Task


@dataclass(frozen=True, slots=True)
class ControlledSystem:
    """One system with the right audio, and what it said under controls."""

    scored: SystemScores
    """Is given the scores of the controls."""
    counts: UtteranceCounts
    """Of all clips."""
    outputs: Mapping[str, Output]
    answers: Mapping[Control, Mapping[str, Output]]
    files: Mapping[Control, str | None]
    """Where `answers` lie."""


def add_controls(
    systems: Sequence[ControlledSystem],
    ids: Sequence[str],
    speakers: Sequence[str | None],
    task: Task,
    scores: Sequence[Score],
    scoring: ScoringSettings,
) -> None:
    """Score every system under every control, on the clips that all of them answered under it.

    Args:
        systems: those without answers under a control have no score under it.
        ids: U clips, in the order of the systems' counts.
        speakers: of the clips.
        task: says how text is normalised.
        scores: what by, the headline first.
        scoring: how intervals are made.
    """
    for control in get_args(Control):
        having = [system for system in systems if control in system.answers]
        heard = [place for place, clip in enumerate(ids) if all(clip in each.answers[control] for each in having)]
        if not having or not heard:
            continue
        clips = np.array(heard, dtype=np.intp)
        bootstrap = PairedBootstrap.of(scoring, [speakers[place] for place in heard], tests=len(having))
        for system in having:
            system.scored.controls[control] = _scored(system, control, clips, ids, task, scores, bootstrap)
        for score in scores:
            measured = [system.scored.controls[control].measures.get(score.name) for system in having]
            correct(found.delta for found in measured if found)


def _scored(
    system: ControlledSystem,
    control: Control,
    clips: Clips,
    ids: Sequence[str],
    task: Task,
    scores: Sequence[Score],
    bootstrap: PairedBootstrap,
) -> ControlScore:
    names, answers = [ids[place] for place in clips], system.answers[control]
    wrong = count_outputs(answers, names, task, scores)
    pair = PairedScores.of(scores, [system.counts.select(clips), wrong], bootstrap).measures()
    follows = None
    if control == "shuffled":
        follows = share_that_follows(wrong.words, _against_heard(system.outputs, answers, names, task), bootstrap)
    measures = pair[1] if pair else {}
    return ControlScore(clips=len(names), measures=measures, follows=follows, outputs_file=system.files.get(control))


def share_that_follows(own: EditCounts, heard: EditCounts, bootstrap: PairedBootstrap) -> Estimate:
    """The share of U answers that are nearer to the clip that was heard; as near to both counts half.

    An answer that owes nothing to the audio is as likely to be nearer to one as to the other: a half.

    Args:
        own: word edits of the answers from the references of their clips.
        heard: word edits from the references of the clips whose audio was heard.
        bootstrap: over the clips.
    """
    mine, others = (edits.errors / np.maximum(edits.lengths, 1) for edits in (own, heard))
    nearer = np.where(others < mine, 1.0, np.where(others == mine, 0.5, 0.0))
    counted = np.stack([nearer, np.ones_like(nearer)], axis=1)  # (U, 2)
    return bootstrap.estimate(bootstrap.rates(lambda sums: sums[..., 0] / sums[..., 1], counted, (0.0, 1.0)))


def _against_heard(
    outputs: Mapping[str, Output], answers: Mapping[str, Output], ids: Sequence[str], task: Task
) -> EditCounts:
    """Word edits of the answers from the references of the clips that were heard."""
    tables = []
    for block in blocks(ids):
        heard = [_as_heard(answers[clip], outputs) for clip in block]
        tables.append(answers_of(task, heard).word_edits.table)
    return EditCounts(np.concatenate(tables))


def _as_heard(answer: Output, outputs: Mapping[str, Output]) -> Output:
    """An answer beside the reference of the clip that was heard; its own where that one has no output."""
    partner = str(answer.fields[AUDIO_OF])
    return replace(answer, text=outputs[partner].text) if partner in outputs else answer
