"""Likelihoods of given answers, against a loop over clips and answers with the stock forward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import processors
from torch import Tensor

from shoal import tasks
from shoal.data import Clip, Row
from shoal.decoder.prepare import prepare
from shoal.decoder.stock_inputs import first_ids
from shoal.errors import MeasureError, ModelError, UsageError
from shoal.evaluation import likelihood, shared_prompt
from shoal.evaluation.likelihood import likelihoods
from shoal.evaluation.model_checks import check_can_answer
from shoal.evaluation.shared_prompt import continues
from shoal.evaluation.window import Batch
from shoal.models import families
from shoal.models.batch import Kind
from shoal.models.loading import LoadedModel, load_model
from shoal.pruning.in_memory import pruned
from tiny_audio import BUILDS, csm
from tiny_audio.parts import tokenizer
from tiny_models import tiny
from tiny_speech import dataset, loaded, write_clips

LABELS = ("sad", "happy", "very angry and loud")
SER = tasks.restored("ser", {**tasks.get("ser").settings.model_dump(), "labels": LABELS})
CSM = "CsmForConditionalGeneration"


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Clip]:
    data = dataset(tmp_path_factory.mktemp("clips"), 3)
    return list(data.clips(data.rows))


def batch_of(model: LoadedModel, clips: Sequence[Clip], task: tasks.Task) -> Batch:
    kind = task.inputs[0]
    return Batch(list(clips), prepare(model, clips, task, input=kind, response=False, padding_side="left"), 0.0)


def answering(clip: Clip, **fields: str) -> Clip:
    return Clip(replace(clip.row, fields={**clip.row.fields, **fields}), clip.samples)


@torch.no_grad()
def plain(model: LoadedModel, clip: Clip, label: str) -> float:
    """One clip, one label: the whole prompt with it through the class's own forward pass, token by token."""
    batch = prepare(model, [answering(clip, emotion=label)], SER, response=True, padding_side="right")
    logits = stock_logits(model, batch)
    value, last = 0.0, 0
    for place in range(logits.shape[0]):
        if batch.kinds[0, place] == Kind.TEXT:
            value += log_share(logits[place - 1], [int(batch.token_ids[0, place])])
            last = place
    return value + log_share(logits[last], model.eos_ids)


def stock_logits(model: LoadedModel, batch) -> Tensor:
    if batch.inputs:
        inputs = model.family.forward_inputs(model.model, dict(batch.inputs))
        return model.family.answering(model.model)(**inputs, use_cache=False).logits[0].double()
    lm = model.model.decoder
    return lm(inputs_embeds=batch.embeds, attention_mask=batch.attention_mask).logits[0].double()


def log_share(logits: Tensor, tokens: Sequence[int]) -> float:
    shares = torch.softmax(logits, -1)
    return math.log(sum(float(shares[token]) for token in tokens))


@pytest.mark.parametrize("gone", [(), (1, 2)])
@pytest.mark.parametrize("at_once", [64, 3])
def test_every_label_has_the_likelihood_of_a_plain_loop(clips, gone, at_once, monkeypatch) -> None:
    monkeypatch.setattr(shared_prompt, "MOST_ROWS", at_once)
    model = loaded()
    assert continues(model, SER)
    batch = batch_of(model, clips, SER)
    with pruned(model.model, gone, family=model.family) if gone else nullcontext():
        found = likelihoods(model, batch, SER)
        wanted = [{label: plain(model, clip, label) for label in LABELS} for clip in clips]
    for mine, theirs in zip(found, wanted, strict=True):
        assert list(mine.choices) == list(LABELS)
        assert mine.choices == pytest.approx(theirs, abs=1e-3, rel=1e-5)
        assert mine.loss is None


@pytest.mark.parametrize(
    ("name", "cached"),
    [
        ("Qwen2AudioForConditionalGeneration", True),
        ("GraniteSpeechForConditionalGeneration", True),
        ("WhisperForConditionalGeneration", False),
        ("Gemma4ForConditionalGeneration", False),
    ],
)
def test_native_classes_too_pruned_and_whole(name, cached, clips, tmp_path) -> None:
    model = load_model(str(BUILDS[name].write(tmp_path)), device="cpu", dtype="float32", trust_remote_code=False)
    assert continues(model, SER) == cached
    batch = batch_of(model, clips[:2], SER)
    for gone in ((), (0,)):
        with pruned(model.model, gone, family=model.family) if gone else nullcontext():
            found = likelihoods(model, batch, SER)
            wanted = [{label: plain(model, clip, label) for label in LABELS} for clip in clips[:2]]
        for mine, theirs in zip(found, wanted, strict=True):
            assert mine.choices == pytest.approx(theirs, abs=1e-3, rel=1e-5)


@pytest.mark.parametrize("engine", [True, False])
def test_rows_may_have_choices_of_their_own_or_none(clips, engine, monkeypatch) -> None:
    choices = [["one", "another one", "a third"], None, ["yes", "no"]]
    rows = [
        Clip(replace(clip.row, fields={"answer": (each or ["x"])[0], "choices": each}), clip.samples)
        for clip, each in zip(clips, choices, strict=True)
    ]
    sqa, model = tasks.get("sqa"), loaded()
    monkeypatch.setattr(likelihood, "continues", lambda *_: engine)
    found = [each.choices for each in likelihoods(model, batch_of(model, rows, sqa), sqa)]
    assert found[1] is None
    asked = SER.settings.model_copy(update={"instruction": sqa.instruction})
    for place in (0, 2):
        task = tasks.restored("ser", asked.model_dump() | {"labels": choices[place]})
        assert found[place] == pytest.approx(
            likelihoods(model, batch_of(model, [clips[place]], task), task)[0].choices, abs=1e-3
        )
    assert likelihoods(model, batch_of(model, rows[1:2], sqa), sqa)[0].choices is None


def text_llm(**special: str) -> LoadedModel:
    words, model = tokenizer(**special), tiny("llama")
    model.resize_token_embeddings(len(words))
    return LoadedModel("tiny", Path(), model, words, None, families.find(model), "causal_lm")


def silent(*texts: str) -> list[Clip]:
    import numpy as np

    rows = [Row(text, Path("a.wav"), 1.0, text=text, manifest="m.jsonl", line=1) for text in texts]
    return [Clip(row, np.zeros(0, dtype=np.float32)) for row in rows]


@torch.no_grad()
def test_the_loss_of_a_text_is_the_stock_loss_of_its_tokens() -> None:
    model, lm = text_llm(), tasks.get("lm")
    texts = silent("She ran.", "yes", "where is it now")
    found = [each.loss for each in likelihoods(model, batch_of(model, texts, lm), lm)]
    for clip, (nats, tokens) in zip(texts, found, strict=True):
        # The tokeniser has a begin token but does not put it there.
        ids = torch.tensor([[model.tokenizer.eos_token_id, *model.tokenizer(clip.row.text)["input_ids"]]])
        stock = model.model(input_ids=ids, labels=ids)
        assert tokens == ids.shape[1] - 1
        assert nats == pytest.approx(float(stock.loss) * tokens, rel=1e-5)


def test_a_text_of_one_token_has_its_loss_too() -> None:
    model, lm = loaded(), tasks.get("lm")
    assert len(model.tokenizer("a")["input_ids"]) == 1
    ((nats, tokens),) = [each.loss for each in likelihoods(model, batch_of(model, silent("a"), lm), lm)]
    assert (tokens, nats > 0) == (1, True)


def test_a_text_is_read_after_the_begin_token_only_where_the_tokeniser_puts_it() -> None:
    begins = tokenizer()
    begins.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begins.bos_token} $A", special_tokens=[(begins.bos_token, begins.bos_token_id)]
    )
    separated = tokenizer("<|endoftext|>")
    assert first_ids(begins) == [begins.bos_token_id]
    assert first_ids(separated) == [separated.convert_tokens_to_ids("<|endoftext|>")]
    assert first_ids(tokenizer()) == [tokenizer().eos_token_id]
    neither = tokenizer()
    neither.eos_token = None
    with pytest.raises(ModelError, match="nothing predicts the first token of a text"):
        first_ids(neither)


@pytest.mark.weights
def test_smollm2_reads_a_text_after_the_end_of_another_not_after_its_chat_token() -> None:
    words = load_model("pkg:smollm2-135m-instruct", device="cpu", dtype="float32", trust_remote_code=False).tokenizer
    assert (words.bos_token, words.convert_ids_to_tokens(first_ids(words))) == ("<|im_start|>", ["<|endoftext|>"])


def test_a_loss_that_is_no_number_is_refused_by_the_clip() -> None:
    model, lm = text_llm(), tasks.get("lm")
    texts = batch_of(model, silent("yes it is"), lm)
    likelihoods(model, texts, lm)
    model.model.get_output_embeddings().weight.data[3] = math.nan
    with pytest.raises(MeasureError, match=r"^clip yes it is: the likelihood of an answer is not finite"):
        likelihoods(model, texts, lm)


def speaking(folder: Path) -> LoadedModel:
    path = str(csm.BUILDS[CSM].write(folder))
    return load_model(path, device="cpu", dtype="float32", trust_remote_code=False)


@pytest.mark.parametrize("gone", [(), (2,)])
def test_the_loss_of_speech_tokens_is_the_stock_loss_of_all_codebooks(clips, gone, tmp_path) -> None:
    model, tts = speaking(tmp_path), tasks.get("tts")
    batch = batch_of(model, clips, tts)
    with pruned(model.model, gone, family=model.family) if gone else nullcontext():
        found = [each.loss for each in likelihoods(model, batch, tts)]
        wanted = [stock_speech_loss(model, clip) for clip in clips]
    assert [tokens for _, tokens in found] == [tokens for _, tokens in wanted]
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in wanted], rel=1e-5)


@torch.no_grad()
def stock_speech_loss(model: LoadedModel, clip: Clip) -> tuple[float, int]:
    """The class's own means over frames, for one clip."""
    inputs = prepare(model, [clip], tasks.get("tts"), response=True).inputs
    config = model.model.config
    labels = torch.where(inputs["input_ids"] == config.audio_token_id, config.audio_token_id, -100)
    output = model.model(**inputs, labels=labels)
    ids = inputs["input_ids"]
    frames = int(((ids == config.audio_token_id) | (ids == config.audio_eos_token_id)).sum())
    later = frames * (config.num_codebooks - 1)
    nats = float(output.backbone_loss) * frames + float(output.depth_decoder_loss) * later
    return nats, frames + later


@pytest.mark.parametrize(("task", "said"), [("tts", "the loss of speech tokens is not known"), ("asr", "speech only")])
def test_a_model_that_cannot_do_a_task_is_refused_in_one_line(task, said, tmp_path) -> None:
    model = loaded() if task == "tts" else speaking(tmp_path)
    with pytest.raises(UsageError, match=said):
        check_can_answer(model, tasks.get(task))


def test_a_text_llm_models_text_and_does_nothing_else(tmp_path) -> None:
    check_can_answer(text_llm(), tasks.get("lm"))
    with pytest.raises(UsageError, match="takes no speech"):
        check_can_answer(text_llm(), tasks.get("ser"))


def test_a_model_that_writes_as_it_hears_has_no_likelihood_of_an_answer(tmp_path) -> None:
    folder = BUILDS["KyutaiSpeechToTextForConditionalGeneration"].write(tmp_path)
    model = load_model(str(folder), device="cpu", dtype="float32", trust_remote_code=False)
    check_can_answer(model, tasks.get("asr"))
    with pytest.raises(UsageError, match="share positions; leave it out: in a YAML of kind ser"):
        check_can_answer(model, tasks.get("ser"))


def test_clips_of_a_manifest_are_judged_in_any_batch(tmp_path) -> None:
    from shoal.data import read_manifests

    data = read_manifests([str(write_clips(tmp_path, 4))])
    rows = list(data.clips(data.rows))
    model = loaded()
    together = likelihoods(model, batch_of(model, rows, SER), SER)
    for clip, mine in zip(rows, together, strict=True):
        alone = likelihoods(model, batch_of(model, [clip], SER), SER)[0]
        assert mine.choices == pytest.approx(alone.choices, abs=1e-3)
