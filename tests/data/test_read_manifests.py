"""What becomes of good rows: fields, ids, order, filters, subsets, the record."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.cli import options
from shoal.data import fingerprint, read_manifests
from shoal.data.settings import DataSettings
from shoal.data.subset import evenly_spaced, spread
from shoal.demo import clips_manifest
from shoal.errors import ManifestError, UsageError
from shoal.training.recipe import TrainingData
from shoal.training.run import read_source

GOOD = {"audio_filepath": "a.wav", "duration": 1.0, "text": "a tone"}


def test_fields_are_read_and_unknown_ones_kept_as_they_are(tone, manifest) -> None:
    tone("sub/a.wav")
    row = {
        "audio_filepath": "sub/a.wav",
        "duration": 0.5,
        "offset": 0.25,
        "text": " a tone ",
        "lang": "en-GB",
        "speaker": 7,
        "emotion": {"name": "calm"},
    }
    (read,) = read_manifests(manifest(row)).rows
    assert (read.text, read.lang, read.speaker) == ("a tone", "en-GB", "7")
    assert (read.offset, read.duration) == (0.25, 0.5)
    assert read.fields == row
    assert read.line == 1


def test_absolute_paths_are_allowed(tone, manifest) -> None:
    (row,) = read_manifests(manifest(GOOD | {"audio_filepath": str(tone("far/b.wav"))})).rows
    assert row.audio.name == "b.wav"


def test_a_missing_duration_is_read_from_the_file(tone, manifest) -> None:
    tone(seconds=1.25, rate=8000)
    rows = read_manifests(
        manifest({"audio_filepath": "a.wav", "text": "a"}, {"audio_filepath": "a.wav", "text": "a", "offset": 0.5})
    ).rows
    assert [row.duration for row in rows] == pytest.approx([1.25, 0.75])


@pytest.mark.parametrize("said", [0.91, 1.09])
def test_a_rounded_duration_is_corrected_by_the_file(said, tone, manifest) -> None:
    tone()
    (row,) = read_manifests(manifest(GOOD | {"duration": said})).rows
    assert row.duration == pytest.approx(min(said, 1.0))


def test_ids_do_not_depend_on_where_the_data_lies(tone, manifest, tmp_path) -> None:
    tone()
    path = manifest(GOOD | {"offset": 0.0, "duration": 0.5}, GOOD | {"offset": 0.5, "duration": 0.5}, GOOD)
    before = read_manifests(path)
    moved = tmp_path / "elsewhere" / "deep"
    moved.mkdir(parents=True)
    for name in ("a.wav", "corpus.jsonl"):
        shutil.copy(tmp_path / name, moved / name)
    after = read_manifests(moved / "corpus.jsonl")
    assert [row.id for row in before.rows] == ["corpus:a@0", "corpus:a@0.5", "corpus:a"]
    assert [row.id for row in after.rows] == [row.id for row in before.rows]
    assert after.info().fingerprint == before.info().fingerprint


def test_ids_are_unique_over_all_manifests(tone, manifest) -> None:
    tone()
    tone("b/a.wav")
    named = GOOD | {"id": "x"}
    first = manifest(GOOD, GOOD, GOOD | {"audio_filepath": "b/a.wav"}, named, name="one.jsonl")
    second = manifest(GOOD, named, name="two.jsonl")
    ids = [row.id for row in read_manifests([first, second]).rows]
    assert ids == ["one:a", "one:a#2", "one:a#3", "x", "two:a", "two:x"]


def test_a_manifest_called_manifest_gives_its_folder_s_name_to_ids(tone, manifest, tmp_path) -> None:
    tone()
    manifest(GOOD, name="manifest.jsonl")
    by_file = read_manifests(tmp_path / "manifest.jsonl")
    by_folder = read_manifests(tmp_path)
    assert by_file.rows[0].id == f"{tmp_path.name}:a"
    assert by_folder.rows[0].id == by_file.rows[0].id


def test_a_filter_does_not_change_ids(tone, manifest) -> None:
    tone()
    path = manifest(GOOD | {"split": "a"}, GOOD | {"split": "b"})
    (row,) = read_manifests(path, where={"split": "b"}).rows
    assert row.id == "corpus:a#2"


def test_rows_that_the_filter_removes_are_not_checked(tone, manifest) -> None:
    tone()
    dataset = read_manifests(manifest(GOOD | {"task": "asr"}, {"audio_filepath": "gone.wav"}), where={"task": "asr"})
    assert len(dataset.rows) == 1
    assert dataset.skipped == []


def test_a_filter_compares_values_as_text(tone, manifest) -> None:
    tone()
    path = manifest(GOOD | {"age": 1}, GOOD | {"age": 10}, GOOD | {"age": True}, GOOD | {"age": None}, GOOD)
    lines = {
        said: [row.line for row in read_manifests(path, where={"age": said}).rows] for said in ("10", "true", "null")
    }
    assert lines == {"10": [2], "true": [3], "null": [4]}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (
            {"split": "tset"},
            r"none of 2 rows has split=tset \(values of split: test \(1\), train \(1\)\); did you mean test\? change",
        ),
        (
            {"spilt": "test"},
            r"there is no field 'spilt', only audio_filepath, .*, text\); did you mean split\? change",
        ),
        ({"split": "test", "lang": "de"}, "split=test and lang=de"),
    ],
)
def test_a_filter_that_leaves_nothing_names_the_values_there_are(where, said, manifest) -> None:
    path = manifest(GOOD | {"split": "test", "lang": "en"}, GOOD | {"split": "train", "lang": "de"})
    with pytest.raises(UsageError, match=said):
        read_manifests(path, where=where)


def test_rows_that_name_no_language_take_the_given_one(tone, manifest) -> None:
    tone()
    rows = read_manifests(manifest(GOOD, GOOD | {"lang": "de"}), lang="en").rows
    assert [row.lang for row in rows] == ["en", "de"]


def test_text_may_be_missing_where_the_task_needs_none(tone, manifest) -> None:
    tone()
    (row,) = read_manifests(manifest({"audio_filepath": "a.wav"}), needs_text=False).rows
    assert row.text == ""


def test_longer_clips_can_be_allowed(tone, manifest) -> None:
    tone(seconds=3.0)
    path = manifest({"audio_filepath": "a.wav", "text": "a"})
    with pytest.raises(ManifestError, match="too long"):
        read_manifests(path, max_clip_seconds=2.0)
    assert len(read_manifests(path, max_clip_seconds=4.0).rows) == 1
    with pytest.raises(UsageError, match="--max-clip-seconds"):
        read_manifests(path, max_clip_seconds=0.0)


def test_a_limit_below_one_is_refused(tone, manifest) -> None:
    tone()
    with pytest.raises(UsageError, match="--limit"):
        read_manifests(manifest(GOOD), limit=0)


def test_a_limit_takes_every_kth_row() -> None:
    assert evenly_spaced(range(400), 80, seed=0) == list(range(0, 400, 5))


@given(count=st.integers(1, 300), limit=st.integers(1, 300), seed=st.integers(0, 5))
def test_a_subset_is_even_ordered_and_the_same_every_time(count, limit, seed) -> None:
    chosen = evenly_spaced(range(count), limit, seed)
    assert len(chosen) == min(count, limit)
    assert chosen == sorted(set(chosen))
    assert chosen == evenly_spaced(range(count), limit, seed)
    gaps = {later - earlier for earlier, later in pairwise(chosen)}
    assert not gaps or max(gaps) - min(gaps) <= 1


@given(
    sizes=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=5), min_size=1, max_size=4),
    limit=st.integers(1, 200),
    seed=st.integers(0, 2),
)
def test_a_limit_gives_each_data_set_and_each_label_its_share(sizes, limit, seed) -> None:
    rows = [
        (source, label) for source, labels in enumerate(sizes) for label, size in enumerate(labels) for _ in range(size)
    ]
    chosen = spread(range(len(rows)), limit, seed, [lambda at: rows[at][0], lambda at: rows[at][1]])
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(limit, len(rows))
    sources = Counter(rows[at][0] for at in chosen)
    assert len(sources) == min(limit, len(sizes), len(chosen))
    for source, count in sources.items():
        assert len({rows[at] for at in chosen if rows[at][0] == source}) == min(count, len(sizes[source]))
        if min(limit, len(rows)) >= len(sizes):
            # Off by less than one, and by what went to data sets that would have been left without a clip.
            assert abs(count - len(chosen) * sum(sizes[source]) / len(rows)) < len(sizes)


def test_few_clips_of_sorted_manifests_hold_every_data_set_and_label(tone, manifest, caplog, tmp_path) -> None:
    tone()
    moods = ["angry", "Calm", "happy", "sad"]
    paths = [
        manifest(*(GOOD | {"mood": mood, "id": f"{name}{mood}{n}"} for mood in moods for n in range(5)), name=name)
        for name in ("a.jsonl", "b.jsonl")
    ]
    rows = read_manifests(paths, limit=8, label_field="mood").rows
    assert Counter((row.data, row.fields["mood"]) for row in rows) == dict.fromkeys(product("ab", moods), 1)
    assert not caplog.text
    assert len({row.fields["mood"] for row in read_manifests(paths, limit=4, label_field="mood").rows}) == 4
    read_manifests(paths[0], limit=1, label_field="mood")
    assert "warning: --limit 1 leaves one value of mood (angry) of 4" in caplog.text
    task = tmp_path / "mood.yaml"
    task.write_text("kind: ser\ninstruction: Which mood?\nfields: {label: mood}\nlabels: [angry, calm, happy, sad]\n")
    options.read_other("--test", paths[:1], DataSettings(limit=4), 1, {}, str(task), 0)
    assert "warning: --test-limit 1 leaves one value of mood" in caplog.text


def test_commands_and_recipes_know_the_labels_of_a_task(tone, manifest, tmp_path) -> None:
    tone()
    moods = ["angry", "calm", "happy", "sad"]
    path = manifest(*(GOOD | {"emotion": mood, "id": f"{mood}{n}"} for mood in moods for n in range(1, 9)))
    of_command = options.read_data([str(path)], DataSettings(limit=6), "ser", seed=0)
    of_recipe = read_source(TrainingData(data=path.name, task="ser", limit=6), tmp_path, seed=0)
    for data in (of_command, of_recipe):
        counts = Counter(row.fields["emotion"] for row in data.rows)
        assert sorted(counts.values()) == [1, 1, 2, 2]


def test_the_record_says_what_was_used() -> None:
    info = read_manifests(clips_manifest()).info()
    assert (info.clips, info.languages, info.speakers) == (55, ["en"], 1)
    assert info.seconds == pytest.approx(121.7, abs=0.1)
    assert info.audio_decoder.startswith("libsndfile 1.")
    assert info.resampler.startswith("soxr ")
    assert "HQ" in info.resampler
    assert len(info.fingerprint) == 64


@pytest.mark.speech
def test_real_manifests_are_read_without_a_bad_row(speech) -> None:
    dataset = read_manifests([speech / name for name in ("asterisk", "speechocean762", "ravdess")], needs_text=False)
    assert dataset.skipped == []
    assert len({row.id for row in dataset.rows}) == len(dataset.rows) > 2500


def test_the_fingerprint_tells_rows_apart(tone, manifest) -> None:
    tone()
    base = read_manifests(manifest(GOOD)).info().fingerprint
    for change in ({"text": "another"}, {"offset": 0.1, "duration": 0.9}, {"audio_filepath": "./b.wav"}):
        tone("b.wav")
        assert read_manifests(manifest(GOOD | change)).info().fingerprint != base
    assert read_manifests(manifest(GOOD | {"speaker": "x"})).info().fingerprint == base
    assert fingerprint([]) != base
