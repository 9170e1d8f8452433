"""Classes that no family file knows are taken by their structure, or refused by the name of what is not understood."""

from __future__ import annotations

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from families_record import note, parts_of
from shoal import tasks
from shoal.decoder.prepare import prepare
from shoal.errors import ModelError
from shoal.measurement.collector import collect
from shoal.models import families
from shoal.models.families.audio_llm import Question
from shoal.models.loading import load_model
from shoal.pruning.from_folder import prune_folder
from shoal.pruning.in_memory import prune_in_place
from shoal.pruning.on_disk import prune
from shoal.schema import SCOPES
from shoal.schema.verification import REPORT_FILE, VerificationReport
from shoal.selection import manual
from tiny_audio.parts import randomised, template, text_fields, tokenizer
from tiny_speech import dataset

OWN_CODE = "a class with code of its own, built like Ultravox"
DEPTH = 6
AUDIO = "<|AUDIO|>"
CODE = """
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel
from transformers.generation import GenerationMixin


class HearingConfig(PreTrainedConfig):
    model_type = "hearing"
    sub_configs = {"text_config": AutoConfig}

    def __init__(self, text_config=None, audio_token_id=5, bins=80, **kwargs):
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        self.text_config = text_config or LlamaConfig()
        self.audio_token_id, self.bins = audio_token_id, bins
        super().__init__(**kwargs)


class HearingModel(PreTrainedModel, GenerationMixin):
    config_class = HearingConfig

    def __init__(self, config):
        super().__init__(config)
        self.audio_tower = nn.Conv1d(config.bins, config.bins, 3, stride=2, padding=1)
        self.adapter = nn.Linear(config.bins, config.text_config.hidden_size)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self):
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self):
        return self.language_model.get_output_embeddings()

    def forward(self, input_ids=None, input_features=None, inputs_embeds=None, feature_attention_mask=None, **kwargs):
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if input_features is not None:
            frames = self.adapter(self.audio_tower(input_features).transpose(1, 2))
            for row, ids in enumerate(input_ids):
                places = ids == self.config.audio_token_id
                inputs_embeds[row, places] = frames[row, : int(places.sum())].to(inputs_embeds)
        return self.language_model(inputs_embeds=inputs_embeds, **kwargs)
"""
"""The structure of Ultravox: `audio_tower`, a projector under another name, a whole causal LM in `language_model`."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with code of its own, and a stock processor."""
    place = tmp_path_factory.mktemp("hearing")
    namespace: dict = {"__name__": "hearing"}
    exec(compile(CODE, "hearing.py", "exec"), namespace)
    config = namespace["HearingConfig"](text_config=LlamaConfig(**text_fields(DEPTH)))
    model = randomised(namespace["HearingModel"](config))
    model.save_pretrained(place)
    (place / "hearing.py").write_text(CODE)
    written = json.loads((place / "config.json").read_text())
    written["auto_map"] = {"AutoConfig": "hearing.HearingConfig", "AutoModel": "hearing.HearingModel"}
    (place / "config.json").write_text(json.dumps(written))
    Qwen2AudioProcessor(
        WhisperFeatureExtractor(feature_size=80, chunk_length=2),
        tokenizer(AUDIO, "<|audio_bos|>", "<|audio_eos|>"),
        chat_template=template(AUDIO),
    ).save_pretrained(place)
    return place


def load(folder):
    return load_model(str(folder), device="cpu", dtype="float32", trust_remote_code=True)


def test_custom_code_with_a_language_model_inside_is_found(folder):
    loaded = load(folder)
    family, model = loaded.family, loaded.model
    assert family.name == "structural"
    assert family.layers_path(model) == "language_model.model.layers"
    assert family.projector(model) is model.adapter
    assert family.encoder(model) is model.audio_tower
    assert loaded.inputs == ("speech", "text")


def test_its_audit_equals_the_states_of_its_own_forward(folder, tmp_path):
    loaded = load(folder)
    data = dataset(tmp_path / "clips", 2)
    clips = list(data.clips(data.rows))
    for side in ("left", "right"):
        batch = prepare(loaded, clips, tasks.get("asr"), input="speech", response=True, padding_side=side)
        for clip, sums in zip(clips, collect(loaded.decoder, loaded.layers, [batch]), strict=True):
            single = prepare(loaded, [clip], tasks.get("asr"), input="speech", response=True)
            with torch.no_grad():
                states = loaded.model(**single.inputs, output_hidden_states=True).hidden_states
            a, b = (state[0].double().numpy() for state in states[:2])
            cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
            kept = SCOPES.index("all")
            assert sums.sums[kept][0] / sums.counts[kept] == pytest.approx(
                float(np.mean(np.arccos(cosines)) / np.pi), abs=1e-5
            )
    note(OWN_CODE, audit=["speech"])


def test_its_pruned_checkpoint_is_verified_with_its_own_code(folder, tmp_path):
    loaded = load(folder)
    plan = manual(loaded.ref, DEPTH, [1, 3])
    ways = {"memory": prune(loaded, plan, tmp_path / "memory")}
    ways["disk"] = prune_folder(loaded.ref, plan, tmp_path / "disk", trust_remote_code=True)
    for out in ways.values():
        assert len(load(out).layers) == DEPTH - 2
        checks = [check.name for check in VerificationReport.load(out / REPORT_FILE).checks]
    note(OWN_CODE, **parts_of(loaded.model), prune=list(ways), checks=checks)


class MadeUpConfig(PreTrainedConfig):
    model_type = "made_up"
    sub_configs: ClassVar = {"text_config": LlamaConfig}

    def __init__(self, text_config=None, **kwargs):
        self.text_config = text_config or LlamaConfig(**text_fields(DEPTH))
        super().__init__(**kwargs)


class MadeUp(PreTrainedModel):
    config_class = MadeUpConfig

    def __init__(self, config):
        super().__init__(config)
        self.encoder = nn.Linear(4, 4)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()

    def get_output_embeddings(self):
        return self.language_model.get_output_embeddings()


def made_up(**fields):
    return MadeUp(MadeUpConfig(**fields))


def test_a_made_up_class_is_taken_and_pruned():
    model = made_up()
    assert families.find(model).name == "structural"
    prune_in_place(model, [1])
    assert model.config.text_config.num_hidden_layers == DEPTH - 1
    assert len(model.language_model.model.layers) == DEPTH - 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gates", [1.0] * DEPTH),
        ("accept_hidden_layer", 3),
        ("layers_to_tap", [1, 2]),
        ("deepstack_indexes", [0, 1]),
    ],
)
def test_a_field_beside_the_decoder_that_may_name_layers_is_refused(field, value):
    with pytest.raises(ModelError, match=field):
        families.find(made_up(**{field: value}))


@pytest.mark.parametrize("field", ["vision_feature_layer", "audio_layers", "layer_norm_eps"])
def test_fields_of_other_parts_are_no_reason(field):
    assert families.find(made_up(**{field: 3})).name == "structural"


@pytest.mark.parametrize(
    ("field", "value"), [("scales", [1.0] * DEPTH), ("num_kv_shared_layers", 2), ("attn_layer_period", 2)]
)
def test_a_per_layer_field_of_the_decoder_is_refused(field, value):
    text = LlamaConfig(**text_fields(DEPTH), **{field: value})
    with pytest.raises(ModelError, match=field):
        families.find(made_up(text_config=text))


def test_a_model_with_several_decoders_is_refused():
    small = transformers.MusicgenDecoderConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=16
    )
    text = transformers.T5Config(vocab_size=20, d_model=16, d_kv=8, num_layers=1, num_heads=2, d_ff=16)
    codec = transformers.EncodecConfig()
    config = transformers.MusicgenConfig(text_encoder=text, decoder=small, audio_encoder=codec)
    with torch.device("meta"):
        model = transformers.MusicgenForConditionalGeneration(config)
    with pytest.raises(ModelError, match="several of its configs"):
        families.find(model)


def pointing(processor, start):
    """`processor`, with one more input, which says where the audio is, as Ultravox's does."""

    class Pointing:
        def __getattr__(self, name):
            return getattr(processor, name)

        def __call__(self, **options):
            return dict(processor(**options)) | start

    return Pointing()


@pytest.mark.parametrize("name", ["audio_token_start_idx", "audio_positions"])
def test_an_input_that_points_at_positions_is_refused(folder, name):
    loaded = load(folder)
    loaded.processor = pointing(loaded.processor, {name: torch.tensor([3])})
    with pytest.raises(ModelError, match=name):
        loaded.family.request(loaded.model, loaded.processor, [np.zeros(8000, dtype=np.float32)], Question("Hear."))


def test_a_prompt_without_the_audio_token_is_refused(folder):
    loaded = load(folder)
    loaded.model.config.audio_token_id = 299
    with pytest.raises(ModelError, match="no audio token"):
        loaded.family.request(loaded.model, loaded.processor, [np.zeros(8000, dtype=np.float32)], Question("Hear."))


def test_a_depth_that_is_not_stated_is_refused():
    model = made_up()
    model.config.text_config.num_hidden_layers = 4
    with pytest.raises(ModelError, match="num_hidden_layers=4 but the decoder has 6"):
        families.find(model)


def test_a_decoder_without_a_list_of_layers_is_refused():
    model = made_up()
    model.language_model = nn.Linear(2, 2)
    with pytest.raises(ModelError, match="no list of layers"):
        families.find(model)


def test_a_decoder_without_a_head_is_refused():
    model = made_up()
    model.language_model = model.language_model.model
    model.get_output_embeddings = lambda: None
    with pytest.raises(ModelError, match="no head"):
        families.find(model)
