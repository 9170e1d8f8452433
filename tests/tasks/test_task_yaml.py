"""A user's own task: a YAML that names a kind and says what differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal import tasks
from shoal.data import Row
from shoal.errors import FileFormatError, ManifestError, UsageError


def written(folder: Path, text: str, name: str = "sentiment.yaml") -> tasks.Task:
    path = folder / name
    path.write_text(text)
    return tasks.get(str(path))


def row(text: str = "", **fields: object) -> Row:
    return Row("r", Path("a.wav"), 1.0, text=text, fields=dict(fields), manifest="m.jsonl", line=3)


MOOD = """
kind: ser
instruction: Is the speaker pleased?
fields: {label: sentiment}
labels: ["Yes", "No"]
scored_by: ["UAR, chosen", "accuracy, chosen per byte"]
answered_by: [choose]
"""


def test_what_it_says_takes_the_place_of_the_kind_s(tmp_path) -> None:
    task = written(tmp_path, MOOD)
    assert (task.name, task.title) == ("sentiment", "emotion recognition")
    assert task.instruction == "Is the speaker pleased?"
    assert task.target(row(sentiment="no")) == "no"
    assert task.choices(row(sentiment="no")) == ["Yes", "No"]
    assert task.scored_by == ("UAR, chosen", "accuracy, chosen per byte")
    assert task.on([row(sentiment="no")]) is task
    assert task.decides == {
        "name": "sentiment",
        "instruction": "Is the speaker pleased?",
        "answered_by": ["choose"],
        "labels": ["Yes", "No"],
    }


def test_a_label_that_it_does_not_name_is_refused(tmp_path) -> None:
    with pytest.raises(ManifestError, match=r"^m\.jsonl:3: sentiment is 'maybe', which is no label .* Yes, No"):
        written(tmp_path, MOOD).target(row(sentiment="maybe"))


def test_a_document_gives_it_again_without_the_file(tmp_path) -> None:
    task = written(tmp_path, MOOD)
    again = tasks.restored(task.name, tasks.settings_to_keep(task))
    assert type(again) is type(task)
    assert again.settings == task.settings


def test_shoal_s_own_tasks_are_kept_by_name_alone() -> None:
    for name in tasks.names():
        assert tasks.settings_to_keep(tasks.get(name)) == {}
        assert tasks.restored(name, {}) is tasks.get(name)
    assert tasks.get("asr").decides == {"name": "asr", "instruction": "Transcribe the speech."}


@pytest.mark.parametrize("settings", [{"kind": "ser"}, {**tasks.get("ser").settings.model_dump(), "kind": "x"}])
def test_a_document_whose_task_is_none_is_refused(settings) -> None:
    with pytest.raises(FileFormatError, match="its task"):
        tasks.restored("mine", settings)


def test_the_transcript_may_stand_elsewhere(tmp_path) -> None:
    task = written(tmp_path, "kind: asr\nfields: {text: sentence}\nname: dictation\n")
    assert task.name == "dictation"
    assert task.target(row(sentence=" she  ran ")) == task.transcript(row(sentence="she ran")) == "she ran"
    assert not task.needs_text
    with pytest.raises(ManifestError, match="no sentence; add the field sentence"):
        task.target(row(text="she ran"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("instruction: hm\n", "no kind; write kind: with one of asr"),
        ("kind: xyz\n", "unknown kind 'xyz'"),
        ("kind: ser\ninstructions: hm\n", "instructions: there is no such key; did you mean instruction?"),
        ("kind: ser\nfields: {emotion: mood}\n", "fields: ser reads no 'emotion'; name label"),
        ("kind: ser\nfields: mood\n", "fields: "),
        ("kind: ser\nlabels: [one]\n", "labels: "),
        ("kind: ser\nlabels: [yes, no]\n", "labels.0: True is no text; write it in quotes"),
        ("kind: ser\nlabels: [Happy, happy]\n", "labels: labels must differ"),
        ("kind: ser\nscored_by: [BLUE]\n", "no score 'BLUE'; there are WER"),
        ("kind: asr\nscored_by: ['UAR, chosen']\n", "the score 'UAR, chosen' needs 'choose' in answered_by"),
        ("kind: ser\ninstruction: ''\n", "instruction: "),
        ('kind: ser\ninstruction: "two\\nlines"\n', "instruction: it must be one line"),
        ("kind: ser\nnormaliser: lower\n", "normaliser: unknown value 'lower'; use whisper, none, label or squad"),
        ("kind: [ser\n", "not YAML that can be read (line 2: expected ',' or ']', but got '<stream end>'); indent"),
        ("kind: ser\n\tinstruction: Say.\n", "not YAML that can be read (line 2: "),
        ("kind: serr\n", "unknown kind 'serr'; did you mean ser? use asr"),
        ("just words\n", "not a task; write kind: ser"),
        ("kind: ser\nname: a/b\n", "name: "),
    ],
)
def test_bad_yaml_is_one_clear_line(text, said, tmp_path) -> None:
    with pytest.raises(FileFormatError) as found:
        written(tmp_path, text, "mine.yaml")
    assert str(found.value).startswith(f"{tmp_path / 'mine.yaml'}: ")
    assert said in str(found.value)
    assert "\n" not in str(found.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(FileFormatError, match=r"^nowhere\.yml: no such file"):
        tasks.get("nowhere.yml")


@pytest.mark.parametrize(
    ("target_lang", "asked", "unit", "tokenizer"),
    [
        ("de", "Translate the speech into German.", "word", None),
        ("de-CH", "Translate the speech into German.", "word", None),
        ("zh", "Translate the speech into Chinese.", "char", "zh"),
        ("th", "Translate the speech into Thai.", "char", "char"),
        ("ja", "Translate the speech into Japanese.", "char", "ja-mecab"),
        ("ko", "Translate the speech into Korean.", "word", "ko-mecab"),
    ],
)
def test_translations_go_into_other_languages(target_lang, asked, unit, tokenizer, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("shoal.tasks.ast.find_spec", lambda _: True)
    task = written(tmp_path, f"kind: ast\ntarget_lang: {target_lang}\n")
    assert task.instruction == asked
    assert task.unit("fr") == unit
    assert task.bleu_tokenizer == tokenizer
    assert task.target(row(translation="x", target_lang=target_lang)) == "x"
    with pytest.raises(ManifestError, match="keep rows into"):
        task.target(row(translation="x", target_lang="en"))


@pytest.mark.parametrize("target_lang", ["ja", "ko"])
def test_without_mecab_characters_are_counted(target_lang, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("shoal.tasks.ast.find_spec", lambda _: None)
    assert written(tmp_path, f"kind: ast\ntarget_lang: {target_lang}\n").bleu_tokenizer == "char"


def test_a_language_without_a_name_is_refused_only_where_it_is_asked_for(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"^target_lang: no name for the language 'tlh'"):
        written(tmp_path, "kind: ast\ntarget_lang: tlh\n")
    asked = written(tmp_path, "kind: ast\ntarget_lang: tlh\ninstruction: Translate into Klingon.\n")
    assert asked.instruction == "Translate into Klingon."
    assert asked.target(row(translation="x")) == "x"
