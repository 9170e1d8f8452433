"""Whatever a manifest or an audio file holds, it is read or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from full_run import examples
from shoal.data import Dataset, Row, load_audio, read_manifests
from shoal.data.audio import read_header
from shoal.errors import AudioError, InputError

SHARED_FOLDER = settings(
    max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "audio_filepath": st.sampled_from(["a.wav", "gone.wav", ".", "/"]) | VALUES,
        "duration": st.sampled_from([1.0, 0.5]) | VALUES,
        "offset": VALUES,
        "text": VALUES,
        "lang": VALUES,
        "speaker": VALUES,
        "id": VALUES,
    },
)


def read_or_refuse(path: Path, max_bad: float) -> None:
    try:
        dataset = read_manifests(path, max_bad=max_bad)
    except InputError as error:
        refusal = str(error)
    else:
        check(dataset)
        return
    assert "\n" not in refusal
    assert "corpus.jsonl" in refusal


def check(dataset: Dataset) -> None:
    assert len({row.id for row in dataset.rows}) == len(dataset.rows)
    assert all(clip.samples.size for clip in dataset.clips())
    json.loads(dataset.info().model_dump_json())


@SHARED_FOLDER
@given(rows=st.lists(FIELDS, min_size=1, max_size=4), max_bad=st.sampled_from([0, 0.5, 9]))
def test_any_values_in_the_fields(rows: list[dict[str, Any]], max_bad: float, tone, tmp_path) -> None:
    tone()
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    read_or_refuse(path, max_bad)


@SHARED_FOLDER
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="replace")))
def test_any_bytes_as_a_manifest(content: bytes, tmp_path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(content)
    read_or_refuse(path, 9)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
@SHARED_FOLDER
@given(data=st.data())
def test_any_damage_to_an_audio_file(suffix: str, data: st.DataObject, tmp_path) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.sin(np.arange(4000) / 10) / 2, 8000)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, min(len(content), 400) - 1), max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    row = Row(id="r", audio=path, duration=0.5, manifest="m.jsonl", line=1)
    samples, refusal = np.zeros(0, dtype=np.float32), "m.jsonl:1: "
    try:
        read_header(row)
        samples = load_audio(row).samples
    except AudioError as error:
        refusal = str(error)
    assert refusal.startswith("m.jsonl:1: ")
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()
