"""The scripts of recipes/data: what they choose and write, without voices and without a network."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from shoal import read_manifests
from shoal.training.recipe import Recipe

RECIPES = Path(__file__).parents[2] / "recipes"
_NAMES = ("common", "debian", "voices", "digits", "sentences", "asterisk", "tuxpaint", "speechocean")

WORDNET = """\
  1 This software and database is being provided to you | the LICENSEE
00003553 03 n 02 whole 0 unit 0 001 @ 00002684 n 0000 | an assemblage of parts (as one); "how big is that part?"
00001740 29 v 01 breathe 0 001 * 00005041 v 0000 02 + 02 00 | draw air in; "I can breathe better"; "The patient is up"
00005787 03 n 01 benthos 0 001 @ 00004475 n 0000 | found in 1990; "NATO is an ally"; "it is over. really"; "short"
00005930 03 n 01 dwarf 0 001 @ 00004475 n 0000 | a plant or animal that is atypically small
""".splitlines()

PROMPTS = """\
\ufeff; Core Asterisk Sounds in English

activated: Activated.
vm-advopts: press 3 for  advanced options
letters/at: at [@]
beep: [this is a simple beep tone]
silence/1: one second
spy-iax2: IAX (note: does not say "2")
spy-h323: H.323
agent-pass: agent-pass: Your "password"
""".splitlines()


@pytest.fixture(scope="module")
def scripts():
    """The scripts as modules, by name; nothing of them stays importable."""
    before = {name: sys.modules.pop(name, None) for name in _NAMES}
    sys.path.insert(0, str(RECIPES / "data"))
    try:
        yield {name: importlib.import_module(name) for name in _NAMES}
    finally:
        sys.path.remove(str(RECIPES / "data"))
        for name, module in before.items():
            sys.modules.pop(name, None)
            if isinstance(module, ModuleType):
                sys.modules[name] = module


@pytest.fixture(scope="module")
def plan(scripts):
    return scripts["digits"].plan(400, 40, 30, seed=3)


def said(plan, scripts, split):
    return [scripts["digits"].figures(text) for part, text, _ in plan if part == split]


def test_digit_splits_share_no_sequence(scripts, plan):
    train, test, voice = (said(plan, scripts, split) for split in ("train", "test", "test-voice"))
    assert (len(train), len(test), len(voice)) == (400, 40, 30)
    assert len(set(test) | set(voice)) == 70
    assert not set(train) & (set(test) | set(voice))
    assert {len(text) for text in train} == set(range(1, 7))


def test_zero_is_said_in_both_ways(plan):
    words = {word for _, text, _ in plan for word in text.split()}
    assert len(words) == 11
    assert {"oh", "zero"} <= words


def test_the_voice_held_out_is_heard_in_test_voice_alone(scripts, plan):
    held_out = scripts["voices"].HELD_OUT
    assert {voice.name for split, _, voice in plan if split == "test-voice"} == {held_out}
    assert held_out not in {voice.name for split, _, voice in plan if split != "test-voice"}


def test_digits_depend_on_the_seed_and_grow(scripts, plan):
    digits = scripts["digits"]
    assert digits.plan(400, 40, 30, seed=3) == plan
    assert digits.plan(400, 40, 30, seed=4) != plan
    assert digits.plan(500, 40, 30, seed=3)[:400] == plan[:400]


def test_wordnet_gives_examples_and_glosses_that_can_be_said(scripts):
    assert list(scripts["sentences"].parse(WORDNET)) == [
        "how big is that part?",
        "I can breathe better",
        "The patient is up",
        "draw air in",
        "a plant or animal that is atypically small",
    ]


def test_sentences_are_chosen_once_and_none_that_is_forbidden(scripts):
    sentences, key = scripts["sentences"], scripts["common"].key
    texts = [f"this is {word} sentence" for word in "abcdefghijklmnopqrstuvwxyz"] * 2
    chosen = sentences.choose(texts, 20, seed=0, forbidden={key("This is B sentence!")})
    assert len({text for _, text in chosen}) == 20
    assert "this is b sentence" not in {text for _, text in chosen}
    assert sentences.choose(texts, 25, seed=0, forbidden={key("this is b sentence")})[:20] == chosen
    with pytest.raises(Exception, match="there are 26 sentences"):
        sentences.choose(texts, 27, seed=0)


def test_asterisk_prompts_that_are_speech(scripts):
    asterisk = scripts["asterisk"]
    found = asterisk.parse(PROMPTS)
    assert found == {
        "activated": "Activated.",
        "vm-advopts": "press 3 for advanced options",
        "letters/at": "at",
        "spy-h323": "H.323",
        "agent-pass": "Your password",
    }
    assert asterisk.english(found)["vm-advopts"] == "press three for advanced options"
    assert "spy-h323" not in asterisk.english(found)


@pytest.fixture
def asterisk_rows(scripts):
    en = {"yes": "Yes.", "six": "six", "six-again": "Six!", "bye": "good bye"}
    prompts = {"en": en, "es": {"yes": "sí", "six": "seis", "bye": "adiós"}, "fr": {}, "it": {}, "ru": {}}
    return scripts["asterisk"].fields(prompts, {lang: list(texts) for lang, texts in prompts.items()})


def test_asterisk_rows_are_parallel_by_name(asterisk_rows):
    assert asterisk_rows["audio/en/six.flac"]["task"] == "asr"
    row = asterisk_rows["audio/es/six.flac"]
    assert (row["task"], row["text"], row["translation"], row["target_lang"]) == ("ast", "seis", "six", "en")


def test_asterisk_keeps_the_test_split_of_a_manifest_and_what_it_says_from_training(scripts, asterisk_rows, tmp_path):
    asterisk, common = scripts["asterisk"], scripts["common"]
    manifest = tmp_path / "manifest.jsonl"
    tests = [
        {"lang": "en", "text": "6", "split": "test"},
        {"lang": "es", "text": "Adiós.", "translation": "Good bye", "split": "test"},
        {"lang": "en", "text": "yes", "split": "train"},
    ]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in tests), encoding="utf-8")
    splits = asterisk.split_like(asterisk_rows, [manifest])
    rows = asterisk.with_splits(asterisk_rows, splits, common.test_texts([manifest]), seed=0)
    found = {row["path"]: row["split"] for row in rows}
    assert {path for path, split in found.items() if split == "test"} == {
        "audio/en/six.flac",
        "audio/en/six-again.flac",
        "audio/es/bye.flac",
    }
    assert set(found) - set(splits) == set()
    # `six` in Spanish and `good bye` in English would give the answer away
    assert not {"audio/es/six.flac", "audio/en/bye.flac"} & set(found)
    assert {"audio/en/yes.flac", "audio/es/yes.flac"} <= set(found)


def test_leaks_are_left_out_of_training_alone(scripts):
    common = scripts["common"]
    rows = [("a", "train", "Press 1, now"), ("b", "test", "press one now"), ("c", "train", "press two")]
    clips = [common.Clip(path, None, {"split": split, "text": text}) for path, split, text in rows]
    kept = common.without_leaks(clips, {common.key("press one now")})
    assert [clip.path for clip in kept] == ["b", "c"]


def test_tuxpaint_takes_only_what_has_its_text_and_the_english_text(scripts):
    tuxpaint = scripts["tuxpaint"]
    texts = tuxpaint.parse(["A cow.", "es.utf8=Una vaca.", "fr.utf8=", "pt_BR.utf8=Uma vaca."])
    assert tuxpaint.fields("es", texts)["translation"] == "A cow."
    assert tuxpaint.fields("pt_BR", texts)["lang"] == "pt"
    assert tuxpaint.fields(None, texts) == {"lang": "en", "speaker": "tuxen", "task": "asr", "text": "A cow."}
    assert tuxpaint.fields("fr", texts) is None
    assert tuxpaint.fields("es", tuxpaint.parse(["A bill of $20.", "es.utf8=Un billete."])) is None


def test_speechocean_keeps_its_own_test_split(scripts, tmp_path):
    for part, name in (("train", "01"), ("test", "02")):
        (tmp_path / part).mkdir()
        (tmp_path / part / "text").write_text(f"{name}\tWE CALL IT BEAR\n")
        (tmp_path / part / "wav.scp").write_text(f"{name}\tWAVE/{name}.WAV\n")
        (tmp_path / part / "utt2spk").write_text(f"{name} 0001\n")
    clips = scripts["speechocean"].clips(tmp_path, seed=0)
    assert [clip.fields["split"] == "test" for clip in clips] == [False, True]
    assert clips[1].fields["text"] == "we call it bear"
    with pytest.raises(Exception, match="must be a copy of"):
        scripts["speechocean"].clips(tmp_path / "nothing", seed=0)


def test_digits_alone_are_spelled(scripts):
    assert scripts["common"].spell_digits("press 1, 22, H.323, 3D or 9.") == "press one, 22, H.323, 3D or nine."


def tone(scripts, hertz):
    samples = np.sin(np.arange(8_000) * hertz * 2 * np.pi / 16_000).astype(np.float32)
    return scripts["common"].as_clip((samples, 16_000)), 16_000


def test_clips_are_made_once_and_the_manifest_can_be_read(scripts, tmp_path):
    common = scripts["common"]
    fields = {"lang": "en", "speaker": "s", "split": "train", "task": "asr", "text": "la"}
    clips = [common.Clip(f"audio/{hertz}.flac", hertz, fields) for hertz in (200, 300)]
    asked = []

    def produce(hertz):
        asked.append(hertz)
        return tone(scripts, hertz)

    rows = common.make(tmp_path, clips[:1], produce, workers=1, notice="free")
    assert rows[0] == {"audio_filepath": "audio/200.flac", "duration": 0.5, **fields}
    common.make(tmp_path, clips, produce, workers=1)
    assert asked == [200, 300]
    assert soundfile.info(tmp_path / "audio/300.flac").samplerate == 16_000
    assert len(read_manifests(tmp_path / "manifest.jsonl").rows) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LICENCE.txt", "audio", "manifest.jsonl"]


def test_a_clip_that_cannot_be_made_is_left_out(scripts, tmp_path):
    common = scripts["common"]
    fields = {"split": "train", "text": "la"}
    clips = [common.Clip(f"{hertz}.flac", hertz, fields) for hertz in (0, 200)]
    rows = common.make(tmp_path, clips, lambda hertz: tone(scripts, hertz), workers=1)  # 0 Hz is silence
    assert [row["audio_filepath"] for row in rows] == ["200.flac"]


def test_a_manifest_that_fails_leaves_the_old_one(scripts, tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    scripts["common"].write_manifest(manifest, [{"text": "old"}])

    def rows():
        yield {"text": "new"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scripts["common"].write_manifest(manifest, rows())
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.jsonl"]
    assert json.loads(manifest.read_text()) == {"text": "old"}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_load_and_never_use_ravdess(path):
    recipe = Recipe.load(path)
    sources = [*recipe.train, *recipe.validation]
    assert all(str(source.data).startswith("data/") for source in sources)
    assert "ravdess" not in " ".join(str(source.data) for source in sources).lower()
    assert all(source.where["split"] == "train" for source in recipe.train)
