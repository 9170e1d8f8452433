"""From raw outputs to scores: pure, so it can be repeated without a model.

Every system is scored on the same clips, with one bootstrap draw for all of them (and one for each group),
so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shoal.errors import ManifestError, UsageError
from shoal.evaluate import quality
from shoal.evaluate.outputs import Output
from shoal.evaluate.score import EditCounts, char_counts, scorer_name, word_counts
from shoal.evaluate.significance import PairedBootstrap, Rates
from shoal.schema import Example, GroupScore, MeasuredScore, Plan, SystemScores

if TYPE_CHECKING:
    from shoal.evaluate.settings import Resampling
    from shoal.tasks import Task

MIN_GROUP_CLIPS = 5
MIN_GROUP_WORDS = 30
"""A group with fewer clips or reference words is scored but never named the worst: its rate is chance."""
EXAMPLES = 12


@dataclass(frozen=True, slots=True)
class Identity:
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


@dataclass(frozen=True, slots=True)
class _Counted:
    """A system's outputs for U clips, normalised and counted."""

    outputs: list[Output]
    references: list[str]
    hypotheses: list[str]
    words: EditCounts
    chars: EditCounts


def summarise(
    systems: Sequence[Identity],
    outputs: Sequence[Mapping[str, Output]],
    ids: Sequence[str],
    task: Task,
    *,
    resampling: Resampling,
    group_by: Sequence[str] | None,
) -> Summary:
    """Score systems on the same clips; the first is the baseline.

    Args:
        systems: which they are.
        outputs: for each system clip id → output.
        ids: the clips to score, all in every system's outputs.
        task: says how text is normalised and what a word is.
        resampling: replicates, seed, level and what is drawn.
        group_by: manifest fields; None is the speaker where known.

    Raises:
        ManifestError: no clip, or no reference word in any of them.
        UsageError: an unknown field in `group_by`.
    """
    if not ids:
        raise ManifestError("no clip is left to score", fix="see the skipped rows above")
    texts = _Texts(task)
    # Sorted, so that the same clips give the same draws whatever order they were decoded in.
    counted = [_count([found[clip] for clip in sorted(ids)], texts) for found in outputs]
    groups = _groupings(counted[0].outputs, group_by)
    scored = _score(counted, groups, resampling, task)
    merged = [_system(identity, fields) for identity, fields in zip(systems, scored, strict=True)]
    return Summary(merged, _examples([system.name for system in merged], counted), texts.label, texts.scorer)


def word_edits(outputs: Sequence[Output], task: Task) -> EditCounts:
    """The edits of every output against its reference, normalised; in words, or what `task` counts instead."""
    return _count(list(outputs), _Texts(task)).words


class _Texts:
    """Normalises by language and remembers what was used."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._normalisers: dict[str, None] = {}
        self._without_spaces: dict[str, None] = {}

    def normalise(self, text: str, lang: str | None) -> str:
        """Text as it is compared."""
        normaliser = self._task.normaliser(lang)
        self._normalisers[normaliser.label] = None
        return normaliser(text)

    def words(self, text: str, lang: str | None) -> str:
        """`text` with a space between words; in scripts without spaces, every character is a word."""
        if self._task.unit(lang) == "char":
            self._without_spaces[str(lang)] = None
        return self._task.words(text, lang)

    @property
    def label(self) -> str:
        """The normalisers used so far, with versions."""
        return ", ".join(sorted(self._normalisers))

    @property
    def scorer(self) -> str:
        """What counted, and where characters counted as words."""
        by_character = (
            f" (characters as words: {', '.join(self._without_spaces)})" if self._without_spaces else ""
        )
        return scorer_name() + by_character


def _count(outputs: list[Output], texts: _Texts) -> _Counted:
    references = [texts.normalise(output.text, output.lang) for output in outputs]
    hypotheses = [texts.normalise(output.pred_text, output.lang) for output in outputs]
    langs = [output.lang for output in outputs]
    words = word_counts(
        [texts.words(text, lang) for text, lang in zip(references, langs, strict=True)],
        [texts.words(text, lang) for text, lang in zip(hypotheses, langs, strict=True)],
    )
    return _Counted(outputs, references, hypotheses, words, char_counts(references, hypotheses))


def _groupings(outputs: Sequence[Output], fields: Sequence[str] | None) -> dict[str, list[str | None]]:
    """Field → its value for every clip, as text; None where the clip has none."""
    if fields is None:
        fields = ["speaker"] if len({output.speaker for output in outputs} - {None}) > 1 else []
    groupings = {field: [_value(output, field) for output in outputs] for field in fields}
    for field, values in groupings.items():
        if all(value is None for value in values):
            known = sorted({"speaker", "lang", *(key for output in outputs for key in output.fields)})
            raise UsageError(
                f"no clip has the field {field!r}", where="--group-by", fix=f"fields are {', '.join(known)}"
            )
    return groupings


def _value(output: Output, field: str) -> str | None:
    value = {"speaker": output.speaker, "lang": output.lang}.get(field) or output.fields.get(field)
    return None if value is None else str(value)


def _score(
    counted: Sequence[_Counted],
    groupings: Mapping[str, list[str | None]],
    resampling: Resampling,
    task: Task,
) -> list[dict[str, object]]:
    """For every system the fields of `SystemScores` that its outputs decide."""
    outputs = counted[0].outputs
    bootstrap = resampling.draw(outputs)
    if not counted[0].words.lengths.sum():
        raise ManifestError(
            "no reference has a word after normalising", fix="check the text of the manifest and its language"
        )
    words = [bootstrap.rates(each.words.errors, each.words.lengths) for each in counted]
    chars = [bootstrap.rates(each.chars.errors, each.chars.lengths) for each in counted]
    groups = {field: _score_groups(counted, values, resampling) for field, values in groupings.items()}
    measures = _measures(counted, bootstrap, task)
    return [
        {
            "wer": bootstrap.estimate(words[place]),
            "cer": bootstrap.estimate(chars[place]),
            "delta_wer": bootstrap.delta(words[place], words[0]) if place else None,
            "measures": measures[place],
            "groups": {field: scores[place] for field, scores in groups.items()},
            "worst_group": _worst_groups(groups, place, counted[place], groupings),
            **_totals(each),
        }
        for place, each in enumerate(counted)
    ]


def _measures(
    counted: Sequence[_Counted], bootstrap: PairedBootstrap, task: Task
) -> list[dict[str, MeasuredScore]]:
    """For every system what the task is scored by; nothing for `asr`, whose rates have fields of their own."""
    found: list[dict[str, MeasuredScore]] = [{} for _ in counted]
    for score in () if task.name == "asr" else quality.scores(task):
        rates = [_corpus_score(score, each, bootstrap) for each in counted]
        for place, rate in enumerate(rates):
            found[place][score.name] = MeasuredScore(
                value=bootstrap.estimate(rate),
                delta=bootstrap.delta(rate, rates[0]) if place else None,
                higher_is_better=score.higher_is_better,
                fraction=score.fraction,
                signature=score.signature,
            )
    return found


def _corpus_score(score: quality.Score, counted: _Counted, bootstrap: PairedBootstrap) -> Rates:
    statistics = score.statistics(counted.references, counted.hypotheses)
    value = float(score.value(statistics.sum(axis=0)))
    if np.isnan(value):
        raise ManifestError(f"{score.name} finds nothing in the references", fix="check them in the manifest")
    return Rates(value, score.value(bootstrap.resampler.totals(statistics)))


def _totals(counted: _Counted) -> dict[str, object]:
    outputs = counted.outputs
    return {
        "word_counts": counted.words.total(),
        "char_counts": counted.chars.total(),
        "empty_references": int((counted.words.lengths == 0).sum()),
        "truncated": sum(output.truncated for output in outputs),
        "encode_seconds": sum(output.encode_seconds for output in outputs),
        "prefill_seconds": sum(output.prefill_seconds for output in outputs),
        "decode_seconds": sum(output.decode_seconds for output in outputs),
        "generated_tokens": sum(output.tokens for output in outputs),
    }


def _score_groups(
    counted: Sequence[_Counted], values: Sequence[str | None], resampling: Resampling
) -> list[dict[str, GroupScore]]:
    """For every system value → score; groups without a reference word have none."""
    found: list[dict[str, GroupScore]] = [{} for _ in counted]
    for value in sorted({value for value in values if value is not None}):
        member = np.array([each == value for each in values])
        if counted[0].words.lengths[member].sum():
            outputs = [output for output, inside in zip(counted[0].outputs, member, strict=True) if inside]
            bootstrap = resampling.draw(outputs)
            rates = [_group_rates(bootstrap, each, member) for each in counted]
            for place, rate in enumerate(rates):
                delta = bootstrap.delta(rate, rates[0]) if place else None
                found[place][value] = GroupScore(
                    clips=len(outputs), wer=bootstrap.estimate(rate), delta=delta
                )
    return found


def _group_rates(bootstrap: PairedBootstrap, counted: _Counted, member: npt.NDArray[np.bool_]) -> Rates:
    inside = counted.words.select(member)
    return bootstrap.rates(inside.errors, inside.lengths)


def _worst_groups(
    groups: Mapping[str, list[dict[str, GroupScore]]],
    place: int,
    counted: _Counted,
    groupings: Mapping[str, list[str | None]],
) -> dict[str, str]:
    """Field → the value with the highest WER among groups large enough to be judged."""
    worst: dict[str, str] = {}
    for field, scores in groups.items():
        words = dict.fromkeys(scores[place], 0)
        for value, length in zip(groupings[field], counted.words.lengths.tolist(), strict=True):
            if value in words:
                words[value] += length
        large = [
            (score.wer.value, value)
            for value, score in scores[place].items()
            if score.clips >= MIN_GROUP_CLIPS and words[value] >= MIN_GROUP_WORDS
        ]
        if len(large) > 1:
            worst[field] = max(large)[1]
    return worst


def _system(identity: Identity, fields: dict[str, object]) -> SystemScores:
    removed = identity.plan.layers if identity.plan else []
    known = {
        "name": identity.name,
        "model_ref": identity.model_ref,
        "plan": identity.plan,
        "removed": removed,
    }
    return SystemScores.model_validate({**known, "outputs_file": identity.outputs_file, **fields})


def _examples(names: Sequence[str], counted: Sequence[_Counted]) -> list[Example]:
    """Clips from the whole range, from those the systems agree on to those they differ on most."""
    errors = np.stack([each.words.errors for each in counted])  # (systems, U)
    lengths = np.maximum(counted[0].words.lengths, 1)
    spread = (errors.max(axis=0) - errors.min(axis=0)) / lengths
    order = np.argsort(spread, kind="stable")
    places = np.unique(np.linspace(0, len(order) - 1, EXAMPLES).round().astype(int))
    return [_example(int(order[place]), names, counted) for place in places]


def _example(row: int, names: Sequence[str], counted: Sequence[_Counted]) -> Example:
    output = counted[0].outputs[row]
    said = {name: each.outputs[row].pred_text for name, each in zip(names, counted, strict=True)}
    return Example(id=output.id, reference=output.text, outputs=said)
