"""A response that stands alone: the same plain text for every kind of model, read as the stock forward reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from shoal import tasks
from shoal.data.clip import Clip, Row
from shoal.decoder.prepare import prepare
from shoal.errors import ManifestError, UsageError
from shoal.models import families
from shoal.models.batch import Kind
from shoal.models.loading import LoadedModel, load_model
from tiny_audio import BUILDS
from tiny_audio.parts import tokenizer as byte_tokenizer
from tiny_models import tiny
from tiny_speech import loaded

LM = tasks.get("lm")
SILENCE = np.zeros(0, dtype=np.float32)
TEXTS = ("She ran.", "yes", "where is it now")
END = 2
"""Texts are read after it, for the tokeniser does not put its begin token before them."""
READS = [name for name, build in BUILDS.items() if build.processor is not None]


def clips(*texts: str) -> list[Clip]:
    rows = (Row(text, Path("a.wav"), 1.0, text=text, manifest="m.jsonl", line=3) for text in texts)
    return [Clip(row, SILENCE) for row in rows]


def text_llm(**special: str) -> LoadedModel:
    words = byte_tokenizer(**special)
    model = tiny("llama")
    model.resize_token_embeddings(len(words))
    return LoadedModel("tiny", Path(), model, words, None, families.find(model), "causal_lm")


def kinds_of(model: LoadedModel, text: str, before: int) -> list[int]:
    length = len(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    return [int(Kind.BEFORE)] * before + [int(Kind.TEXT)] * length


def test_a_speech_llm_reads_its_text_without_template_and_audio() -> None:
    model = loaded()
    batch = prepare(model, clips("She ran."), LM, input="text", response=True)
    # It writes answers in lower case without punctuation, but this is no answer.
    assert batch.token_ids.tolist() == [[model.tokenizer.eos_token_id, *model.tokenizer("She ran.")["input_ids"]]]
    assert batch.kinds.tolist() == [kinds_of(model, "She ran.", 1)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_text_llm_reads_its_first_token_and_the_text(side) -> None:
    model = text_llm()
    batch = prepare(model, clips(*TEXTS), LM, input="text", response=True, padding_side=side)
    for text, kinds, tokens in zip(TEXTS, batch.kinds, batch.token_ids, strict=True):
        assert kinds[kinds > 0].tolist() == kinds_of(model, text, 1)
        assert tokens[kinds > 0].tolist() == [
            END,
            *model.tokenizer(text, add_special_tokens=False)["input_ids"],
        ]
    assert not batch.scope("audio").any()


def test_without_a_response_only_the_first_token_is_there() -> None:
    batch = prepare(text_llm(), clips("yes"), LM, input="text", response=False)
    assert batch.token_ids.tolist() == [[END]]


@pytest.mark.parametrize("name", READS)
def test_an_audio_llm_reads_the_text_as_its_stock_forward_does(name, tmp_path) -> None:
    folder = BUILDS[name].write(tmp_path)
    model = load_model(str(folder), device="cpu", dtype="float32", trust_remote_code=False)
    if "text" not in model.inputs:
        return
    batch = prepare(model, clips(*TEXTS), LM, input="text", response=True, padding_side="right")
    with torch.inference_mode():
        together = model.decoder(**batch.call)[0]
    for row, text in enumerate(TEXTS):
        ids = [END, *model.tokenizer(text, add_special_tokens=False)["input_ids"]]
        assert batch.token_ids[row, : len(ids)].tolist() == ids
        assert batch.kinds[row, : len(ids)].tolist() == kinds_of(model, text, 1)
        assert torch.allclose(together[row, : len(ids)], stock_states(model, ids), atol=1e-4)


def stock_states(model: LoadedModel, ids: list[int]) -> torch.Tensor:
    """(T, d): what the decoder gives in a plain forward pass over the tokens alone."""
    seen = []
    handle = model.decoder.register_forward_hook(lambda _, __, output: seen.append(output[0][0]))
    with torch.inference_mode():
        model.family.answering(model.model)(input_ids=torch.tensor([ids]), use_cache=False)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize(("task", "input"), [("lm", "speech"), ("ser", "text")])
def test_an_input_that_the_task_does_not_take_is_refused(task, input) -> None:
    with pytest.raises(UsageError, match=rf"^--input: the task {task} does not take the input '{input}'"):
        prepare(loaded(), clips("yes"), tasks.get(task), input=input, response=True)


def test_a_row_without_text_is_refused_by_its_place() -> None:
    with pytest.raises(ManifestError, match=r"^m\.jsonl:3: no text"):
        prepare(loaded(), clips(""), LM, input="text", response=True)
