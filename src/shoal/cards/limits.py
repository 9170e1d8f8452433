"""What was not validated: everything that could have been, minus what the documents show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from shoal.cards.facts import CardFacts
from shoal.cards.markdown import bullets, code, section
from shoal.cards.measured import Measured
from shoal.cards.spoken_answers import GENERATION
from shoal.data_names import DATA, data_name
from shoal.schema import MeasuredScore
from shoal.score_tables import loop_words
from shoal.tables import plain
from shoal.wording import FEW_CLIPS, listing, plain_score

TASK_NAMES = {
    "asr": "speech recognition",
    "ast": "speech translation",
    "ser": "emotion recognition",
    "sqa": "spoken questions and instructions",
    "tts": "speech generation",
    "lm": "modelling of text",
}
TEXT = "lm"
"""The task that tests what became of the LLM itself."""
GROUP_FIELDS = {
    "speaker": ("speaker", "speaker_id"),
    "sex": ("sex", "gender"),
    "age": ("age",),
    "accent": ("accent", "accents", "dialect", "locale"),
}
"""What people differ by, and what manifests call it."""
LANGUAGE_FIELD = "lang"
"""The group that holds a clip's data set, see `SystemScores.groups`."""
WIDE = 0.25
"""An interval that reaches this far from its value, relative to it, says little."""
SPEAKS = (
    "**What it says aloud.** This model answers in speech, and nothing was tested of what the changes to its decoder "
    "do to that: listen before you use it."
)
UNLOADED = (
    "That the checkpoint loads and gives the logits of the pruned model: the unpruned one did not fit in memory "
    "where it was pruned."
)
NOTHING = (
    "Accuracy on any task, language, speaker group or recording condition. Measure it: "
    "`shoal evaluate` with your own data, against the unpruned model."
)
ONLY_LOSSES = (
    "Word error rate or any other score of its answers: what is given is the loss on held-out clips. "
    "Measure it with `shoal evaluate` on your own data."
)
RUNTIMES = "Quantised, compiled or other ways of running the checkpoint than PyTorch with transformers."


def not_validated(facts: CardFacts) -> str:
    """The section on what nobody has checked."""
    return section("Not validated", bullets(limits(facts)))


def limits(facts: CardFacts) -> list[str]:
    """One sentence or two for each thing; never empty, since nothing is ever tested on everything."""
    rules: Sequence[Callable[[CardFacts], Iterator[str]]] = (
        _healed_on,
        _speech,
        _loading,
        _nothing,
        _tasks,
        _text,
        _languages,
        _groups,
        _domains,
        _trained_on,
        _baselines,
        _few,
        _uncertain,
        _listening,
        _loops,
        _speed,
    )
    return [*(line for rule in rules for line in rule(facts)), RUNTIMES]


def _healed_on(facts: CardFacts) -> Iterator[str]:
    if not facts.healed_last:
        return
    task = facts.healings[-1].task
    if {result.task for result in facts.measured} - {task}:
        yield f"Tasks that it was not healed on and that are not among the scores; it was healed on {task}."
    else:
        yield (
            f"Anything but {task} on clips like those it was healed on: what healing did to other tasks, languages "
            "and voices was not measured."
        )


def _speech(facts: CardFacts) -> Iterator[str]:
    if facts.unheard:
        yield SPEAKS
    elif GENERATION not in _done(facts):
        yield "Generation of speech. Nothing here assumes that it survives."


def _loading(facts: CardFacts) -> Iterator[str]:
    if facts.report is not None and not facts.report.complete:
        yield UNLOADED


def _nothing(facts: CardFacts) -> Iterator[str]:
    if not facts.measured:
        yield ONLY_LOSSES if facts.training is not None and not facts.changed else NOTHING


def _tasks(facts: CardFacts) -> Iterator[str]:
    from shoal import tasks

    known = dict.fromkeys([*TASK_NAMES, *tasks.names()])
    left = [name for name in known if name not in {*_done(facts), GENERATION, TEXT}]
    if facts.measured and left:
        names = [f"{TASK_NAMES.get(name, name)} (`{name}`)" for name in left]
        yield f"Other tasks: {listing(names)}. They may need other layers."


def _text(facts: CardFacts) -> Iterator[str]:
    if facts.changed and TEXT not in _done(facts):
        yield "What the language model itself lost on text: `lm` was not tested."


def _languages(facts: CardFacts) -> Iterator[str]:
    for task, measured in _by_task(facts).items():
        languages = sorted({language for result in measured for language in result.data.languages})
        if languages:
            yield f"{_named(task)} in any language but {listing(languages)}."
        else:
            yield f"{_named(task)} in any language that is named: the clips do not say theirs."
        for result in measured:
            if len(result.data.languages) > 1 and LANGUAGE_FIELD not in result.system.groups:
                yield (
                    f"Each language by itself: clips of {listing(result.data.languages)} in "
                    f"{code(data_name(result.data))} are scored together (`--group-by {LANGUAGE_FIELD}` parts them)."
                )


def _groups(facts: CardFacts) -> Iterator[str]:
    for task, measured in _by_task(facts).items():
        if measured[0].kind == TEXT:
            continue
        fields = {field for result in measured for field in result.system.groups}
        left = [name for name, called in GROUP_FIELDS.items() if not fields & set(called)]
        if left:
            yield f"{_named(task)} by {listing(left)}: such groups of people were not scored apart."


def _domains(facts: CardFacts) -> Iterator[str]:
    for task, measured in _by_task(facts).items():
        sets = dict.fromkeys(
            name for result in measured for name in result.system.groups.get(DATA) or [data_name(result.data)]
        )
        names = listing([code(name) for name in sets])
        if len(sets) == 1:
            yield (
                f"{_named(task)} outside the domain of {names}: rooms, microphones, topics and styles other than its."
            )
        else:
            yield f"{_named(task)} on data unlike {names}."


def _trained_on(facts: CardFacts) -> Iterator[str]:
    if facts.training is not None and not facts.measured:
        yield "Any task, language, speaker group or recording condition that is not in the data above."


def _baselines(facts: CardFacts) -> Iterator[str]:
    alone = [result for result in facts.measured if result.baseline is None]
    if facts.changed and alone:
        where = listing(list(dict.fromkeys(result.task for result in alone)))
        yield f"What the changes cost in {where}: no baseline was scored beside it (`shoal evaluate --against MODEL`)."


def _few(facts: CardFacts) -> Iterator[str]:
    for result in facts.measured:
        if result.data.clips < FEW_CLIPS:
            yield (
                f"Clips beyond the {result.data.clips:,} of {code(data_name(result.data))} in {result.task}: so few "
                "say little, and the intervals cover the choice of clips and of named speakers, not of rooms or topics."
            )


def _uncertain(facts: CardFacts) -> Iterator[str]:
    """Where an interval leaves open what a reader would ask first."""
    for result in facts.measured:
        if (score := result.scores.headline_of(result.system)) is None:
            continue
        subject = f"{result.scores.headline} of {result.task} on {code(data_name(result.data))}"
        if score.value.low is None or score.value.high is None:
            yield f"How sure {subject} is: there is no interval."
        elif _wide(score):
            yield f"{subject} to any precision: {plain_score(score.value, fraction=score.fraction)} is a wide interval."
        if _open(score):
            assert score.delta is not None
            change = plain_score(score.delta.absolute, "+.1f", fraction=score.fraction)
            yield f"Whether {subject} differs from the baseline's: the interval of the change, {change}, has 0 in it."


def _listening(facts: CardFacts) -> Iterator[str]:
    for result in facts.measured:
        if result.kind not in (GENERATION, TEXT) and not result.system.controls:
            yield (
                f"Whether its answers in {result.task} on {code(data_name(result.data))} come from hearing or from "
                "fluent guessing: it was not given the wrong audio (`shoal evaluate --controls`)."
            )


def _loops(facts: CardFacts) -> Iterator[str]:
    for result in facts.measured:
        if words := loop_words(result.scores, result.system, code):
            yield f"Loops on other clips, in {result.task} on {code(data_name(result.data))}: {plain(words)}."


def _wide(score: MeasuredScore) -> bool:
    estimate = score.value
    assert estimate.low is not None
    assert estimate.high is not None
    return max(estimate.high - estimate.value, estimate.value - estimate.low) > WIDE * abs(estimate.value)


def _open(score: MeasuredScore) -> bool:
    """Whether the difference may be on either side of 0; one that is exactly 0 everywhere is not open."""
    if score.delta is None or score.delta.absolute.low is None or score.delta.absolute.high is None:
        return False
    low, high = score.delta.absolute.low, score.delta.absolute.high
    return low <= 0 <= high and low < high


def _speed(facts: CardFacts) -> Iterator[str]:
    if not facts.benches:
        yield "Speed and memory: `shoal bench` was not run, or its result is not attached."


def _done(facts: CardFacts) -> set[str]:
    return {result.kind for result in facts.measured}


def _by_task(facts: CardFacts) -> dict[str, list[Measured]]:
    by_task: dict[str, list[Measured]] = {}
    for result in facts.measured:
        by_task.setdefault(result.task, []).append(result)
    return by_task


def _named(task: str) -> str:
    """A task's name, as a sentence starts."""
    name = TASK_NAMES.get(task, task)
    return name[:1].upper() + name[1:]
