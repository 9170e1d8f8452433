"""Generated speech, heard by a recogniser and scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soxr
import torch

import shoal
import tiny_speech
from shoal import tasks
from shoal.cli import run as command_line
from shoal.data import Clip, Row
from shoal.errors import UsageError
from shoal.evaluation import evaluate, rescore
from shoal.evaluation.generated_speech import Recogniser, recognised, with_recogniser
from shoal.evaluation.model_checks import check_can_answer
from shoal.models.loading import LoadedModel, load_model
from shoal.models.weights import Resolved
from shoal.pruning.in_memory import pruned
from tiny_audio import csm, vibevoice
from tiny_speech import dataset, loaded, plan

CSM = "CsmForConditionalGeneration"


def speaking(folder: Path, build=csm.BUILDS[CSM]) -> LoadedModel:
    return load_model(str(build.write(folder)), device="cpu", dtype="float32", trust_remote_code=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> LoadedModel:
    return speaking(tmp_path_factory.mktemp("csm"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Clip]:
    data = dataset(tmp_path_factory.mktemp("clips"), 3)
    return list(data.clips(data.rows))


@torch.no_grad()
def said_by_the_class(model: LoadedModel, text: str, frames: int) -> np.ndarray:
    """One text through the class's own generate and codec, which cuts at the end itself."""
    turn = [{"role": "0", "content": [{"type": "text", "text": text}]}]
    inputs = model.processor.apply_chat_template(turn, tokenize=True, return_dict=True, return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    options = {"do_sample": False, "depth_decoder_do_sample": False, "max_new_tokens": frames}
    return model.model.generate(**inputs, **options, output_audio=True)[0].numpy()


def within_the_codec(model: LoadedModel) -> None:
    """A random head also gives codes that the codec does not have; a trained one has learnt not to."""
    size = model.model.config.codec_config.codebook_size
    model.model.lm_head.weight.data[size:] = 0
    model.model.lm_head.weight.data[0] = 0
    model.model.depth_decoder.codebooks_head.weight.data[..., size:] = 0


def test_texts_are_said_as_the_class_says_them_alone(tmp_path) -> None:
    model = speaking(tmp_path)
    within_the_codec(model)
    texts = ["she ran", "nine green bottles on a wall"]
    for gone in ((), (1,)):
        context = pruned(model.model, gone, family=model.family) if gone else torch.no_grad()
        with context:
            together = model.family.speak(model.model, model.processor, texts, 0.4)
            for text, samples in zip(texts, together, strict=True):
                wanted = said_by_the_class(model, text, 5)
                assert len(samples) == len(wanted) > 0
                assert samples == pytest.approx(wanted, abs=1e-4)


def test_codes_that_the_codec_does_not_have_are_taken_for_its_last(model) -> None:
    from shoal.models.families.csm import _samples

    codec, strange = model.model.codec_model, torch.full((3, csm.CODEBOOKS), 39)
    last = torch.full((3, csm.CODEBOOKS), 31)
    with torch.no_grad():
        assert np.array_equal(_samples(codec, strange, 0), _samples(codec, last, 0))
        assert len(_samples(codec, torch.zeros(2, csm.CODEBOOKS, dtype=torch.long), 0)) == 0


class Fixed(Recogniser):
    """Writes down how long each clip is."""

    def hear(self, clips):
        self.clips = list(clips)
        return [f"{clip.row.duration:.2f}" for clip in clips]


def test_speech_is_cut_where_it_gets_much_longer_than_the_clip(model, clips, monkeypatch) -> None:
    listener, rate = Fixed(loaded()), 24_000
    tone = np.sin(np.arange(10 * rate) / 20).astype(np.float32)
    speech = [tone, tone[: rate // 2], tone[:0]]
    monkeypatch.setattr(type(model.family), "speak", lambda *_: speech)
    found = list(recognised(model, clips, tasks.get("tts"), listener))
    most = 2 * clips[0].row.duration + 1
    assert [each.truncated for each in found] == [True, False, False]
    assert [each.seconds for each in found] == pytest.approx([most, 0.5, 0.0], abs=0.01)
    assert listener.clips[1].samples == pytest.approx(soxr.resample(speech[1], rate, 16_000), abs=1e-6)
    assert [each.clip.id for each in found] == [clip.id for clip in clips]


def test_what_is_too_short_says_nothing(clips) -> None:
    short = Clip(Row("short", Path("generated"), 0.01), clips[0].samples[:160])
    listener = Recogniser(loaded())
    assert listener.hear([short]) == [""]
    alone = listener.hear([clips[1]])
    assert listener.hear([short, clips[1]]) == ["", *alone]
    assert alone[0]


def test_a_recogniser_s_words_are_scored_beside_the_loss_and_again(model, tmp_path) -> None:
    task, data = with_recogniser(tasks.get("tts"), loaded()), dataset(tmp_path / "clips", 3)
    options = {"plans": [plan(1, depth=6)], "out": tmp_path / "out", "replicates": 20}
    found = evaluate(model, data, task, **options)
    assert list(found.systems[0].measures) == ["WER", "CER", "loss", "perplexity"]
    without = evaluate(model, data, "tts", plans=[plan(1, depth=6)], replicates=20)
    for mine, theirs in zip(found.systems, without.systems, strict=True):
        assert mine.measures["loss"] == theirs.measures["loss"]
    assert found.systems[0].measures["WER"].value.value > 0
    assert evaluate(model, data, task, **options).systems == found.systems
    assert rescore(tmp_path / "out", replicates=20).systems == found.systems


def test_the_command_says_and_hears(model, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(shoal, "load", lambda ref, *_: model if ref == "CSM" else loaded())
    monkeypatch.setattr("shoal.models.weights.resolve", lambda ref: Resolved(ref, Path(ref), "folder"))
    clips = tiny_speech.write_clips(tmp_path / "clips", 3)
    run = ["evaluate", "CSM", "--task", "tts", "--data", str(clips), "--replicates", "20"]
    assert command_line([*run, "--asr", "ASR", "--out", str(tmp_path / "out")]) == 0
    assert "WER" in capsys.readouterr().out
    with pytest.raises(UsageError, match="is not answered in speech"):
        command_line([*run[:3], "asr", *run[4:], "--asr", "ASR", "--out", str(tmp_path / "no")])
    assert not (tmp_path / "no").exists()


def test_another_recogniser_is_another_header() -> None:
    one, other = (with_recogniser(tasks.get("tts"), loaded(seed=seed)).decides["asr"] for seed in (0, 1))
    assert one["fingerprint"] != other["fingerprint"]
    assert "asr" not in tasks.get("tts").decides


def test_what_cannot_be_heard_is_refused_in_one_line(model, tmp_path) -> None:
    with pytest.raises(UsageError, match=r"^--asr: the task asr is not answered in speech"):
        with_recogniser(tasks.get("asr"), loaded())
    with pytest.raises(UsageError, match="speech only"):
        with_recogniser(tasks.get("tts"), model)
    with pytest.raises(UsageError, match="scored by what a recogniser hears, and there is none"):
        check_can_answer(model, tasks.get("tts").heard_by(None))
    name = "VibeVoiceForConditionalGeneration"
    with pytest.raises(UsageError, match="loss of speech tokens is not known"):
        check_can_answer(speaking(tmp_path, vibevoice.BUILDS[name]), tasks.get("tts"))
