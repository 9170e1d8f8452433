"""Qwen2.5-Omni's talker: its loss and its speech are those of the class's own `generate`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import shoal
from shoal import tasks
from shoal.cli import run as command_line
from shoal.data import Clip, Row, read_manifests
from shoal.errors import ManifestError, ModelError
from shoal.evaluation import evaluate
from shoal.evaluation.generated_speech import with_recogniser
from shoal.evaluation.model_checks import check_can_answer
from shoal.measurement.ablation_by_decoding import decode_without
from shoal.measurement.importance import ImportanceSums
from shoal.measurement.metric_types import ImportanceRequest
from shoal.models.families import talker
from shoal.models.loading import LoadedModel, load_model
from shoal.models.weights import Resolved
from shoal.plan_search.run import search
from shoal.pruning.in_memory import pruned
from tiny_audio import qwen2_5_omni
from tiny_speech import loaded, plan, write_clips

WHOLE = "Qwen2_5OmniForConditionalGeneration"
INSTRUCTION = tasks.get("tts").instruction
ENDS = [36, 38]
SECONDS = 0.2
"""Ten speech tokens."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> LoadedModel:
    folder = qwen2_5_omni.BUILDS[WHOLE].write(tmp_path_factory.mktemp("omni"))
    model = load_model(str(folder), device="cpu", dtype="float32", trust_remote_code=False)
    sharpen(model.model)
    return model


def sharpen(whole) -> None:
    """Weights with which other words give other tokens, and other tokens another wave that is not all at its limits."""
    for part in (whole.thinker.model, whole.talker):
        for name, weight in part.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                weight.data *= 2.5
    whole.talker.model.embed_tokens.weight.data *= 4
    whole.token2wav.code2wav_bigvgan_model.conv_post.weight.data *= 1e-3


def without(model: LoadedModel, gone):
    return pruned(model.model, gone, family=model.family) if gone else nullcontext()


def prompt(model: LoadedModel, text: str) -> torch.Tensor:
    words = f"<|user|>{talker.SYSTEM}<|user|>{INSTRUCTION}\n{text}<|assistant|>"
    return torch.tensor([model.tokenizer(words, add_special_tokens=False)["input_ids"]])


def row(text: str, tokens: object, line: int = 1) -> Row:
    fields = {"speech_tokens": tokens} if tokens is not None else {}
    return Row(text, Path("x.wav"), 1.0, text=text, fields=fields, manifest="m.jsonl", line=line)


def clip(text: str, tokens: object) -> Clip:
    return Clip(row(text, tokens), np.zeros(16_000, dtype=np.float32))


@torch.no_grad()
def slow_losses(model: LoadedModel, text: str, tokens: list[int]) -> list[float]:
    """As `generate` goes: the talker's own first step over the prompt, then token by token from its cache."""
    thinker, speaks = model.model.thinker, model.model.talker
    asked = prompt(model, text)
    reply = torch.tensor([model.tokenizer(text, add_special_tokens=False)["input_ids"]])
    parts = []
    for count in range(reply.shape[1] + 1):
        ids = torch.cat([asked, reply[:, :count]], dim=1)
        states = thinker(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
        both = states.hidden_states[0] + states.hidden_states[-1]
        parts.append(both[:, -1:] if count else both)
    words = thinker.get_input_embeddings()
    begin, end, pad = (words(torch.tensor([[token]])) for token in (3, 13, 14))
    first = torch.cat([parts[0], begin, parts[1]], dim=1)
    ids = torch.cat([asked, torch.tensor([[3]]), reply[:, :1]], dim=1)
    out = speaks(inputs_embeds=first.clone(), input_text_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
    found, left = [], torch.cat([*parts[2:], end, pad], dim=1)
    for place in range(len(tokens) + 1):
        chances = out.logits[0, -1].log_softmax(-1)
        if place == len(tokens):
            found.append(-float(chances[ENDS].logsumexp(0)))
            break
        found.append(-float(chances[tokens[place]]))
        mask = torch.ones(1, ids.shape[1] + place + 1, dtype=torch.long)
        out = speaks(
            input_ids=torch.tensor([[tokens[place]]]),
            thinker_reply_part=left,
            attention_mask=mask,
            past_key_values=out.past_key_values,
            use_cache=True,
        )
        left = out.thinker_reply_part
    return found


@pytest.mark.parametrize("gone", [(), (1, 3)])
def test_the_loss_is_that_of_the_steps_of_generate(model, gone):
    said = [("she ran", [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 35]), ("nine green bottles", [7, 7]), ("a", [30])]
    with without(model, gone), torch.no_grad():
        batch = model.family.spoken_batch(
            model.model, model.processor, [clip(*each) for each in said], tasks.get("tts")
        )
        losses, clips = model.family.spoken_losses(model.model, batch)
        for place, each in enumerate(said):
            assert losses[clips == place].tolist() == pytest.approx(slow_losses(model, *each), abs=1e-4)


@dataclass
class Generated:
    """What the class's own `generate` makes of one text."""

    reply: list[int]
    """Without its last token."""
    tokens: list[int]
    samples: np.ndarray
    steps: list[torch.Tensor]
    """Logits of the talker."""


@torch.no_grad()
def generated(model: LoadedModel, text: str) -> Generated:
    """With a padded prompt: without a mask the class leaves out the talker's first tokens."""
    torch.manual_seed(0)
    asked = torch.nn.functional.pad(prompt(model, text), (1, 0))
    mask = torch.ones_like(asked)
    mask[:, 0] = 0
    steps, codes = [], []
    hooks = [
        model.model.talker.register_forward_hook(lambda *call: steps.append(call[-1].logits[0, -1])),
        model.model.token2wav.register_forward_pre_hook(lambda _, args: codes.append(args[0][0])),
    ]
    reply, wave = model.model.generate(
        input_ids=asked,
        attention_mask=mask,
        thinker_do_sample=False,
        talker_do_sample=False,
        talker_eos_token_id=ENDS,
        talker_max_new_tokens=10,
        thinker_max_new_tokens=20,
    )
    for hook in hooks:
        hook.remove()
    return Generated(reply[0, asked.shape[1] : -1].tolist(), codes[0].tolist(), wave.numpy(), steps)


def check_same(speech: talker.Speech, wanted: Generated) -> None:
    assert speech.tokens == wanted.tokens
    assert len(speech.samples) == len(wanted.samples) > 0
    assert speech.samples == pytest.approx(wanted.samples, abs=1e-4)


def speeches(model: LoadedModel, texts: list[str]) -> list[talker.Speech]:
    return model.family.speeches(model.model, model.processor, texts, SECONDS, INSTRUCTION)


TEXTS = ["she ran", "nine green bottles on a wall"]


@pytest.mark.parametrize("gone", [(), (1, 3)])
def test_texts_are_said_as_the_class_says_them_alone(model, gone):
    with without(model, gone):
        found = speeches(model, TEXTS)
        for text, speech in zip(TEXTS, found, strict=True):
            check_same(speech, generated(model, text))
        waves = model.family.speak(model.model, model.processor, TEXTS, SECONDS, INSTRUCTION)
    assert found[0].tokens != found[1].tokens
    assert all(np.array_equal(wave, each.samples) for wave, each in zip(waves, found, strict=True))


def test_the_loss_of_what_was_said_is_that_of_the_steps_that_said_it(model):
    for text in TEXTS:
        said = generated(model, text)
        batch = talker.forced_batch(["a"], prompt(model, text).tolist(), [said.reply], [said.tokens])
        chances = [step.log_softmax(-1) for step in said.steps]
        wanted = [-float(step[token]) for step, token in zip(chances, said.tokens, strict=False)]
        # The step that wrote the end, where one did before the speech was cut.
        wanted += [-float(step[ENDS].logsumexp(0)) for step in chances[len(said.tokens) :]]
        with torch.no_grad():
            losses, clips = talker.losses(model.model, batch)
        assert losses[: len(wanted)].tolist() == pytest.approx(wanted, abs=1e-4)
        assert clips.tolist() == [0] * (len(said.tokens) + 1)


def test_a_reply_may_end_early_or_at_once(model, monkeypatch):
    reply, thinker = generated(model, TEXTS[0]).reply, model.model.thinker.generation_config
    for end in (reply[1], [reply[4], reply[3]]):
        monkeypatch.setattr(thinker, "eos_token_id", end)
        for text, speech in zip(TEXTS, speeches(model, TEXTS), strict=True):
            check_same(speech, generated(model, text))
    assert generated(model, TEXTS[0]).reply == reply[:3]
    monkeypatch.setattr(thinker, "eos_token_id", reply[0])
    first, second = speeches(model, TEXTS)
    assert (first.tokens, len(first.samples)) == ([], 0)
    check_same(second, generated(model, TEXTS[1]))
    assert speeches(model, TEXTS[:1])[0].tokens == []


def test_a_talker_that_ends_at_once_says_nothing(model, monkeypatch):
    first = speeches(model, TEXTS[:1])[0].tokens[0]
    monkeypatch.setattr(model.model.talker, "codec_eos_token", first)
    assert speeches(model, TEXTS[:1])[0].tokens == []


def test_speech_tokens_that_the_vocoder_does_not_have_are_taken_for_its_last(model):
    vocoder, found = model.model.token2wav, []
    voice = next(iter(model.model.speaker_map.values()))
    options = {"conditioning": voice["cond"], "reference_mel": voice["ref_mel"]}
    with torch.no_grad(), talker._heard(vocoder, found):
        vocoder(torch.tensor([[4, 99, 7]]), **options)
        vocoder(torch.tensor([[4, 39, 7]]), **options)
    assert found[0].tokens == [4, 99, 7]
    assert np.array_equal(found[0].samples, found[1].samples)
    assert "forward" not in vars(vocoder)


def data(folder, tokens):
    return read_manifests([str(write_clips(folder, 3, **({"speech_tokens": tokens} if tokens else {})))])


def test_the_loss_is_scored_where_the_rows_hold_the_tokens(model, tmp_path):
    tokens = speeches(model, TEXTS[:1])[0].tokens
    clips = data(tmp_path / "clips", tokens)
    found = evaluate(model, clips, "tts", plans=[plan(1, depth=6)], replicates=20)
    for system, gone in zip(found.systems, [(), (1,)], strict=True):
        with without(model, gone):
            slow = [slow_losses(model, row.text, tokens) for row in clips.rows]
        mean = float(np.mean(np.concatenate(slow)))
        assert system.measures["loss"].value.value == pytest.approx(mean, abs=1e-4)


def test_without_tokens_only_what_is_heard_is_scored(model, tmp_path):
    clips, out = data(tmp_path / "clips", None), tmp_path / "out"
    found = evaluate(model, clips, with_recogniser(tasks.get("tts"), loaded()), out=out, replicates=20)
    assert list(found.systems[0].measures) == ["WER", "CER"]
    both = with_recogniser(tasks.get("tts"), loaded())
    with_tokens = evaluate(model, data(tmp_path / "more", [3, 1, 4]), both, replicates=20)
    assert list(with_tokens.systems[0].measures) == ["WER", "CER", "loss", "perplexity"]
    assert with_tokens.systems[0].measures["WER"] == found.systems[0].measures["WER"]


def test_a_row_without_tokens_is_named_in_one_line(model, tmp_path, monkeypatch):
    monkeypatch.setattr(shoal, "load", lambda ref, *_: model)
    monkeypatch.setattr("shoal.models.weights.resolve", lambda ref: Resolved(ref, Path(ref), "folder"))
    manifest, out = write_clips(tmp_path / "clips", 3), tmp_path / "out"
    run = ["evaluate", str(model.path), "--task", "tts", "--data", str(manifest), "--out", str(out)]
    with pytest.raises(ManifestError) as caught:
        command_line(run)
    assert str(caught.value).startswith(f"{manifest}:1: no speech_tokens; ")
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows = [json.dumps(lines[0] | {"speech_tokens": [1]}), *map(json.dumps, lines[1:])]
    manifest.write_text("\n".join(rows) + "\n")
    with pytest.raises(ManifestError, match=r":2: no speech_tokens"):
        evaluate(model, read_manifests([str(manifest)]), with_recogniser(tasks.get("tts"), loaded()), out=out)
    assert not out.exists()


def test_a_search_and_an_ablation_name_it_before_anything_is_run(model, tmp_path):
    clips, out = data(tmp_path / "clips", None), tmp_path / "out"
    with pytest.raises(ManifestError, match=r":\d: no speech_tokens"):
        search(model, clips, "tts", max_increase=1.0, out=out)
    with pytest.raises(ManifestError, match=r":1: no speech_tokens"):
        decode_without(
            ImportanceRequest(model, clips, tasks.get("tts"), "speech", out=out),
            ImportanceSums("ablation", "loss", "text", "layer", ((1,),), (), np.zeros((0, 1)), np.zeros(0, np.int64)),
        )
    assert not out.exists()


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "is not a list"),
        ("1 2", "is not a list"),
        ([1, 2.5], "is not a list"),
        ([1, True], "is not a list"),
        ([1, 40], "holds 40, which"),
        ([-1], "holds -1, which"),
        ([1, ENDS[1]], "holds 38, which"),
    ],
)
def test_what_are_no_speech_tokens_is_refused(model, tokens, message):
    with pytest.raises(ManifestError, match=f"^m.jsonl:1: speech_tokens {message}"):
        talker.speech_tokens_of(row("a", tokens), model.model.talker)


def test_what_does_not_talk_is_refused(model, monkeypatch):
    task = with_recogniser(tasks.get("tts"), loaded())
    check_can_answer(model, task)
    monkeypatch.setattr(model.model, "speaker_map", {})
    with pytest.raises(ModelError, match=f"^{WHOLE}: it has no talker with a voice"):
        check_can_answer(model, task)
    thinker = qwen2_5_omni.build_thinker(2)
    with pytest.raises(ModelError, match="it has no talker"):
        model.family.check_talks(thinker)
