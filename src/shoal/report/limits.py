"""What the report does not say, and what to keep in mind when reading it."""

from __future__ import annotations

from shoal import wording
from shoal.cards.limits import TASK_NAMES
from shoal.cards.spoken_answers import GENERATION, speech_untested
from shoal.report import healing_words
from shoal.report.bundle import UNPRUNED, Bundle, Named, baseline, baseline_words
from shoal.schema import Estimate, Healing, Scores

HIGH_WER = 0.5

__all__ = ["TASK_NAMES", "cautions", "speech_warning", "untested"]


def speech_warning(bundle: Bundle) -> str:
    """What stands at the top of a report on a model that answers in speech, until that is among its scores."""
    scores = [named.document for named in bundle.scores]
    silent = list(dict.fromkeys(model.ref for model in bundle.models if speech_untested(model, scores)))
    if not silent:
        return ""
    return (
        f"{wording.listing(silent)} answers in speech, and nothing here was tested of what fewer layers do to that. "
        f"Add scores of the task {GENERATION}, and listen, before you use a pruned one."
    )


def untested(bundle: Bundle) -> list[str]:
    """What was not tested: tasks, generating speech, languages, healing, other clips."""
    notes = [
        _task_note(bundle),
        _speech_note(bundle),
        _language_note(bundle),
        _listening_note(bundle),
        _healing_note(bundle),
        *healing_words.limits(bundle),
        _few(bundle),
    ]
    return [note for note in notes if note]


def _task_note(bundle: Bundle) -> str:
    others = [name for task, name in TASK_NAMES.items() if task not in (*bundle.tasks, GENERATION, "lm")]
    done = [TASK_NAMES.get(task, task) for task in bundle.tasks]
    verb = "was" if len(done) == 1 else "were"
    only = f"Only {wording.listing(done)} {verb} looked at." if done else "No task was looked at."
    missing = f" Not tested: {wording.listing(others)}. They may need other layers." if others else ""
    return only + missing


def _speech_note(bundle: Bundle) -> str:
    return (
        ""
        if GENERATION in bundle.tasks or speech_warning(bundle)
        else "Generating speech was not tested, and nothing here carries over to it."
    )


def _language_note(bundle: Bundle) -> str:
    if bundle.languages:
        return f"Languages of the clips: {wording.listing(bundle.languages)}. No other language was tested."
    return "The clips do not say their language; no claim is made about any other."


def _listening_note(bundle: Bundle) -> str:
    """Scores of tasks that hear, none of them with controls."""
    heard = [named.document for named in bundle.scores if named.document.task_kind not in (GENERATION, "lm")]
    if not heard or any(scores.controlled for scores in heard):
        return ""
    return (
        "Whether text comes from hearing or from fluent guessing was not tested with the wrong audio "
        "(shoal evaluate --controls)."
    )


def _healing_note(bundle: Bundle) -> str:
    if not bundle.pruned_systems:
        return ""
    wins = "what healing wins back is under Healing" if bundle.healings else "healing may win back part of the loss"
    return f"Unless a name says so, nothing was trained after pruning; {wins}."


def _few(bundle: Bundle) -> str:
    return "" if bundle.data is None else wording.few_clips(bundle.data.clips)


def cautions(bundle: Bundle) -> list[str]:
    """What a reader must know about the documents as a set before comparing their numbers."""
    notes = (
        *bundle.notes,
        _several_models(bundle),
        _same_clips(bundle),
        *healing_words.cautions(bundle),
        _poor_baseline(bundle),
        _skipped(bundle),
    )
    return [note for note in notes if note]


def _several_models(bundle: Bundle) -> str:
    marks = {document.model.fingerprint: document.model.ref for document in bundle.measured}
    if len(marks) < 2:
        return ""
    return (
        f"These documents are about {len(marks)} different models ({', '.join(marks.values())}): "
        "their numbers describe different weights."
    )


def _same_clips(bundle: Bundle) -> str:
    audited = {named.document.data.fingerprint for named in bundle.audits} - {""}
    tested: list[Named[Scores] | Named[Healing]] = [*bundle.scores, *bundle.healings]
    scored = {named.document.data.fingerprint for named in tested} - {""}
    if not audited & scored:
        return ""
    return (
        "The layers were chosen and scored on the same clips, so the scores of the chosen plans are optimistic, and "
        "these files do not say by how much: score them on clips that the audit has not seen."
    )


def _poor_baseline(bundle: Bundle) -> str:
    rate = _baseline_rate(bundle)
    if rate is None or rate.value < HIGH_WER:
        return ""
    who = baseline_words(bundle.scores[0].document) if bundle.scores else UNPRUNED
    return (
        f"{who[:1].upper()}{who[1:]} already has a WER of {wording.percent_estimate(rate)} on these clips: "
        "what pruning adds says little about a model that works."
    )


def _baseline_rate(bundle: Bundle) -> Estimate | None:
    """WER of the model that others are compared with, from scores if there are any."""
    if bundle.scores:
        base = baseline(bundle.scores[0].document)
        score = base.measures.get("WER") if base else None
        return score.value if score else None
    rates = [named.document.baseline.value for named in bundle.healings if named.document.score_name == "WER"]
    return next(iter(rates), None)


def _skipped(bundle: Bundle) -> str:
    rows = {(row.manifest, row.line) for document in bundle.measured for row in document.data.skipped}
    if not rows:
        return ""
    verb = "was" if len(rows) == 1 else "were"
    return (
        f"{wording.plural(len(rows), 'manifest row')} {verb} unusable and left out; the reasons are under Provenance."
    )
