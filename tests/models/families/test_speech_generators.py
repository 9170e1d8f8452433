"""A speech generator is measured on the words of a clip and then the clip: what it does when it says just that."""

from __future__ import annotations

import pytest

from shoal import tasks
from shoal.decoder.prepare import prepare
from shoal.models import families
from shoal.models.batch import Kind
from shoal.models.loading import LoadedModel
from shoal.pruning.from_folder import prune_folder
from shoal.selection import manual
from tiny_audio import csm, moshi, qwen2_audio, vibevoice
from tiny_speech import dataset

BUILDS = {**csm.BUILDS, **vibevoice.BUILDS, **moshi.BUILDS}
SILENT = qwen2_audio.BUILDS


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    data = dataset(tmp_path_factory.mktemp("clips"), 2)
    return list(data.clips(data.rows))


def loaded(name, folder):
    build = BUILDS[name]
    model = build.build(build.depth)
    processor = build.processor()
    tokenizer = getattr(processor, "tokenizer", None) or moshi.tokenizer()
    return LoadedModel(name, folder, model, tokenizer, processor, families.find(model), "audio_llm")


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("CsmForConditionalGeneration", "<|bos|>[0]", "<|eos|>"),
        (
            "VibeVoiceForConditionalGeneration",
            " Transform the text into speech.\n Text input:\n Speaker 0:",
            "\n Speech output:\n<|vision_start|>",
        ),
    ],
)
def test_the_words_stand_where_the_template_has_them(name, before, after, clips, tmp_path):
    model, task = loaded(name, tmp_path), tasks.get("asr")
    batch = prepare(model, clips, task, response=True, padding_side="left")
    for row, clip in enumerate(clips):
        first = int((batch.kinds[row] == Kind.AUDIO).nonzero()[0])
        ids = batch.token_ids[row][:first]
        words = task.target(clip.row)
        assert model.tokenizer.decode(ids[ids >= 0]) == f"{before}{words}{after}"
        text = batch.token_ids[row][batch.kinds[row] == Kind.TEXT]
        assert model.tokenizer.decode(text) == words


def test_moshi_listens_and_says_nothing(clips, tmp_path):
    model = loaded("MoshiForConditionalGeneration", tmp_path)
    batch = prepare(model, clips, tasks.get("asr"), response=True, padding_side="left")
    assert set(batch.kinds.unique().tolist()) <= {int(Kind.PAD), int(Kind.AUDIO)}
    for clip, frames in zip(clips, batch.attention_mask.sum(1).tolist(), strict=True):
        assert abs(frames - 12.5 * len(clip.samples) / 16_000) <= 1


@pytest.mark.parametrize(
    ("name", "speaks"), [("CsmForConditionalGeneration", True), ("Qwen2AudioForConditionalGeneration", False)]
)
def test_the_card_of_a_model_that_speaks_says_that_nobody_listened(name, speaks, tmp_path):
    build = (BUILDS | SILENT)[name]
    folder = build.write(tmp_path / "model")
    plan = manual(str(folder), build.depth, [1])
    card = (prune_folder(str(folder), plan, tmp_path / "out", verify=False) / "README.md").read_text()
    assert ("answers in speech" in card.partition("## Not validated")[2]) == speaks
