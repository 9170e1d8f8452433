"""Batches by index arithmetic against batches that are put together clip by clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_training import adapted, batches_of

import tiny_speech
from shoal import tasks
from shoal.decoder.loss_targets import targets_of
from shoal.decoder.prepare import prepare
from shoal.decoder.states import decoder_arguments
from shoal.training.batches import examples_of, make_batches, response_losses
from shoal.training.examples import ragged
from shoal.training.processor_batches import ProcessorBatches
from shoal.training.step import run_decoder


def test_ragged_ranges_are_one_after_the_other():
    assert ragged(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert ragged(np.array([], np.int64), np.array([], np.int64)).tolist() == []


@pytest.mark.parametrize("projector", ["mlp", "linear", "conv"])
def test_a_batch_is_what_the_model_prepares_clip_by_clip(tmp_path, projector):
    loaded = tiny_speech.loaded(projector=projector)
    batches = batches_of(loaded, tmp_path)
    chosen = np.array([3, 0, 5])
    batch = batches.collate(chosen, np.zeros_like(chosen))
    inputs = batches.inputs(loaded, batch)
    clips = [clip for at in chosen for clip in batches.examples[at].data.clips([batches.examples[at].row])]
    prepared = prepare(loaded, clips, tasks.get("asr"), response=True, padding_side="right")
    assert torch.equal(inputs.real, prepared.kinds != 0)
    real = inputs.real[..., None]
    # The store keeps states in half precision.
    torch.testing.assert_close(
        inputs.call["inputs_embeds"] * real, prepared.embeds.clone() * real, rtol=2e-2, atol=5e-3
    )
    targets = targets_of(prepared, "response", loaded.eos_ids)
    assert torch.equal(inputs.index, targets.rows * real.shape[1] + targets.positions)
    assert torch.equal(inputs.rows, targets.rows)
    ends = targets.tokens < 0
    assert torch.equal(inputs.tokens[~ends], targets.tokens[~ends])
    assert set(inputs.tokens[ends].tolist()) <= set(loaded.eos_ids)
    assert batches.targets[chosen].tolist() == targets.counts(3).tolist()
    assert batches.lengths[chosen].tolist() == inputs.real.sum(1).tolist()


def test_padding_on_the_right_needs_no_mask(tmp_path):
    loaded = tiny_speech.loaded()
    batches = batches_of(loaded, tmp_path)
    every = np.arange(6)
    inputs = batches.inputs(loaded, batches.collate(every, np.zeros_like(every)))
    with torch.no_grad():
        _, together = run_decoder(loaded, inputs, (), whole=True)
        for clip in range(6):
            alone = batches.inputs(loaded, batches.collate(np.array([clip]), np.array([0])))
            _, states = run_decoder(loaded, alone, (), whole=True)
            length = states.shape[1]
            torch.testing.assert_close(together[clip, :length], states[0], rtol=1e-4, atol=1e-5)


def test_the_loss_of_a_clip_is_that_of_the_stock_forward_pass(tmp_path):
    loaded = tiny_speech.loaded()
    batches = batches_of(loaded, tmp_path)
    found = response_losses(loaded, batches, positions=60)
    for at, example in enumerate(batches.examples):
        (clip,) = example.data.clips([example.row])
        processor = loaded.processor
        prompt = processor.format_prompt(example.task.instruction)
        response = processor.format_response(example.row.text)
        inputs = processor([prompt], [clip.samples])
        end = loaded.tokenizer.convert_tokens_to_ids(loaded.model.config.end_token)
        answer = torch.tensor([*loaded.tokenizer(response, add_special_tokens=False)["input_ids"], end])
        ids = torch.cat([inputs["input_ids"][0], answer])[None]
        audio = {name: inputs[name] for name in ("input_features", "audio_samples")}
        with torch.no_grad():
            logits = loaded.model(input_ids=ids, attention_mask=torch.ones_like(ids), **audio).logits[0]
        expected = torch.nn.functional.cross_entropy(logits[-len(answer) - 1 : -1], answer, reduction="sum")
        assert found.sums[at] == pytest.approx(float(expected), rel=2e-3)
        assert found.counts[at] == len(answer)


def test_both_feeds_give_the_same_loss_and_gradients(tmp_path):
    """The model's own processor against stored states."""
    grads, losses = [], []
    for native in (False, True):
        loaded = adapted()
        loaded.model.projector.requires_grad_(False)
        examples = examples_of(tiny_speech.dataset(tmp_path / f"clips{native}"), tasks.get("asr"))
        batches = (
            ProcessorBatches(loaded, examples)
            if native
            else make_batches(loaded, examples, features=tmp_path / "features")
        )
        every = np.arange(6)
        inputs = batches.inputs(loaded, batches.collate(every, np.zeros_like(every)))
        _, last = run_decoder(loaded, inputs, (), whole=True)
        last.flatten(0, 1)[inputs.index].square().mean().backward()
        losses.append(float(last.detach().flatten(0, 1)[inputs.index].square().mean()))
        grads.append({name: each.grad for name, each in loaded.model.named_parameters() if ".lora_" in name})
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    for name, each in grads[0].items():
        torch.testing.assert_close(each, grads[1][name], rtol=5e-2, atol=1e-4)


def test_what_is_said_is_offered_to_ctc_and_translations_are_not(tmp_path):
    loaded = tiny_speech.loaded()
    asr = tiny_speech.dataset(tmp_path / "asr")
    manifest = tiny_speech.write_clips(tmp_path / "ast", translation="put it down", target_lang="en")
    from shoal.data import read_manifests

    ast = read_manifests([str(manifest)])
    examples = examples_of(asr, tasks.get("asr")) + examples_of(ast, tasks.get("ast"), 1)
    batches = make_batches(loaded, examples, features=tmp_path / "features", ctc_tokens=True)
    assert (batches.ctc_tokens[:6] == batches.targets[:6] - 1).all()
    assert (batches.ctc_tokens[6:] == 0).all()
    batch = batches.collate(np.array([1, 7, 2]), np.zeros(3, np.int64))
    ints = batches.ints(batch)
    assert ints["ctc_lengths"].tolist() == [batches.ctc_tokens[1], 0, batches.ctc_tokens[2]]
    said = batches.spoken_tokens()
    assert ints["ctc_tokens"].tolist() == said[1] + said[2]


def test_text_input_feeds_a_text_model_too(tmp_path):
    loaded = tiny_speech.loaded()
    examples = examples_of(tiny_speech.dataset(tmp_path), tasks.get("asr"))
    batches = make_batches(loaded, examples, input="text")
    found = response_losses(loaded, batches)
    assert np.isfinite(found.sums).all()
    assert found.ids == [each.row.id for each in examples]


def test_decoder_arguments_of_a_prepared_batch_carry_no_graph(tmp_path):
    loaded = tiny_speech.loaded()
    (clip, *_) = tiny_speech.dataset(tmp_path).clips()
    prepared = prepare(loaded, [clip], tasks.get("asr"), response=True, padding_side="right")
    with torch.inference_mode(False):
        call = decoder_arguments(loaded.decoder, prepared)
    assert not call["inputs_embeds"].is_inference()
