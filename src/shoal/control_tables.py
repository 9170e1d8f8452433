"""What controls say, as a table and in sentences: does a system listen, or does it guess?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from shoal import wording
from shoal.score_tables import change_text, p_note, plain_value, system_name, value_text
from shoal.tables import NONE, Table

if TYPE_CHECKING:
    from shoal.schema import MeasuredScore, Scores, SystemScores
    from shoal.terms import Control

Verdict = Literal["listens", "follows", "cannot be told", "backwards"]
SHUFFLED: Control = "shuffled"
CHANCE = "half is chance"


def listens(scores: Scores, system: SystemScores) -> Verdict | None:
    """Whether the wrong audio costs a system more than chance would; None where that was not measured.

    The test is two-sided, by sign flips, after Holm's correction over the systems. A few clips with very many errors
    can hide a difference from it; then a system `follows` that still writes what the wrong audio says.
    """
    score = under(scores, system, SHUFFLED)
    if score is None or score.delta is None:
        return None
    if score.delta.p_holm is None or score.delta.p_holm > 1 - scores.level:
        return "follows" if _follows(system) else "cannot be told"
    return "listens" if score.sign * score.delta.absolute.value > 0 else "backwards"


def _follows(system: SystemScores) -> bool:
    """Whether more answers are nearer to the wrong clip than chance explains."""
    share = system.controls[SHUFFLED].follows
    return share is not None and share.low is not None and share.low > 0.5 and share.caution != "few clusters"


def under(scores: Scores, system: SystemScores, control: Control) -> MeasuredScore | None:
    """The headline score of a system under a control."""
    measured = system.controls.get(control)
    return None if measured is None else measured.measures.get(scores.headline)


def control_sentence(scores: Scores, system: SystemScores) -> str:
    """The verdict on a system, and what it rests on; empty where it was not measured."""
    verdict, score = listens(scores, system), under(scores, system, SHUFFLED)
    if verdict is None or score is None:
        return ""
    right, wrong, name = _right(score), plain_value(score), scores.headline
    p = f"p {wording.p_value(score.delta.p_holm if score.delta else None)}"
    follows = system.controls[SHUFFLED].follows
    share = f"{wording.percent_estimate(follows)} of its answers are nearer to what that audio says ({CHANCE})"
    if verdict in ("cannot be told", "follows"):
        known = f"{name} is {right} with the right audio and {wrong} with the wrong one ({p})"
        if verdict == "follows":
            return f"follows the audio, though its {name} does not show it: {known}; {share}"
        return f"cannot be told from one that does not listen: {known}"
    verb = "falls" if score.delta and score.delta.absolute.value < 0 else "rises"
    start = "listens" if verdict == "listens" else "does better with the wrong audio"
    silent = under(scores, system, "silent")
    silence = f"; with silence it is {plain_value(silent)}" if silent else ""
    nearer = f"; {share}" if follows else ""
    return f"{start}: with the wrong audio {name} {verb} from {right} to {wrong} ({p}){silence}{nearer}"


def control_sentences(scores: Scores) -> list[str]:
    """One for each system, and a note where no test could have told."""
    said = {system_name(system): control_sentence(scores, system) for system in scores.systems}
    lines = [f"{name} {sentence}" for name, sentence in said.items() if sentence]
    differences = [score.delta for system in scores.systems if (score := under(scores, system, SHUFFLED))]
    note = p_note(scores, differences) if lines else ""
    return [*lines, *([note] if note else [])]


def control_table(scores: Scores) -> Table | None:
    """A row for each system with the headline under each audio; None where there are no controls."""
    systems = [system for system in scores.systems if under(scores, system, SHUFFLED)]
    if not systems:
        return None
    name = scores.headline
    columns: dict[str, Callable[[SystemScores], str]] = {
        "system": system_name,
        f"{name}, right audio": lambda system: _cell(scores, system, SHUFFLED, _right),
        "wrong audio": lambda system: _cell(scores, system, SHUFFLED, value_text),
        "change": lambda system: _cell(scores, system, SHUFFLED, change_text),
        "p": lambda system: _cell(scores, system, SHUFFLED, _p),
        "silence": lambda system: _cell(scores, system, "silent", value_text),
        "p (silence)": lambda system: _cell(scores, system, "silent", _p),
        "follows wrong audio": lambda system: wording.percent_estimate(system.controls[SHUFFLED].follows),
    }
    clips = wording.plural(systems[0].controls[SHUFFLED].clips, "clip")
    audio = "with the audio of another clip, and with silence"
    caption = f"{name} {audio}, on {clips}; p is after Holm over the systems; of what follows, a {CHANCE}"
    return Table.of(caption, columns, systems)


def _cell(scores: Scores, system: SystemScores, control: Control, written: Callable[[MeasuredScore], str]) -> str:
    score = under(scores, system, control)
    return NONE if score is None else written(score)


def _right(score: MeasuredScore) -> str:
    """The score with the right audio, on the same clips."""
    change = score.delta.absolute.value if score.delta else 0.0
    right = score.value.model_copy(update={"value": score.value.value - change})
    return plain_value(score.model_copy(update={"value": right}))


def _p(score: MeasuredScore) -> str:
    return wording.p_value(score.delta.p_holm if score.delta else None)
