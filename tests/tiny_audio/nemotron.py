from __future__ import annotations

from typing import Any

from transformers import (
    Nemotron3_5TranscribeConfig,
    Nemotron3_5TranscribeForConditionalGeneration,
    Nemotron3_5TranscribeProcessor,
    NemotronAsrStreamingFeatureExtractor,
    NemotronH_Omni_Reasoning_V3,
    NemotronH_Omni_Reasoning_V3_Config,
    ParakeetFeatureExtractor,
    PreTrainedModel,
)

from tiny_audio.parts import (
    VOCABULARY,
    ProcessorFiles,
    TinyAudio,
    randomised,
    template,
    text_fields,
    tokenizer,
)

AUDIO, SOUND, IMAGE, VIDEO = "<|audio|>", "<so_embedding>", "<image>", "<video>"
BLOCKS = ("linear_attention", "moe", "full_attention", "moe", "linear_attention", "mlp")
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def decoder(depth: int) -> dict[str, Any]:
    fields = text_fields(
        depth,
        model_type="nemotron_h",
        layers_block_type=[BLOCKS[index % len(BLOCKS)] for index in range(depth)],
        head_dim=8,
        mamba_num_heads=4,
        mamba_head_dim=8,
        ssm_state_size=8,
        n_groups=2,
        chunk_size=16,
        n_routed_experts=4,
        moe_intermediate_size=16,
        moe_shared_expert_intermediate_size=16,
    )
    del fields["num_hidden_layers"]
    return fields


def build_transcribe(depth: int) -> PreTrainedModel:
    config = Nemotron3_5TranscribeConfig(
        audio_config={
            "asr_config": {**SMALL, "num_mel_bins": 20},
            "diarization_config": {
                "model_type": "nemotron3_diarization",
                "audio_config": {**SMALL, "num_mel_bins": 20},
                "head_config": {"hidden_size": 8, "audio_hidden_size": 16},
            },
        },
        text_config=decoder(depth),
        word_timestamp_config={**SMALL, "vocab_size": 30, "blank_token_id": 29},
        # As in the checkpoint, past the decoder's vocabulary.
        audio_token_id=VOCABULARY,
    )
    return randomised(Nemotron3_5TranscribeForConditionalGeneration(config))


def transcribe_processor() -> Any:
    words = tokenizer()
    words.add_special_tokens({"extra_special_tokens": [f"<unused_{n}>" for n in range(VOCABULARY - len(words))]})
    words.add_special_tokens({"extra_special_tokens": [AUDIO]}, replace_extra_special_tokens=False)
    return Nemotron3_5TranscribeProcessor(
        NemotronAsrStreamingFeatureExtractor(feature_size=20),
        words,
        tokenizer(),
        chat_template=template(AUDIO),
    )


def build_omni(depth: int) -> PreTrainedModel:
    config = NemotronH_Omni_Reasoning_V3_Config(
        audio_config={
            **SMALL,
            "num_mel_bins": 16,
            "subsampling_conv_channels": 4,
            "projection_hidden_size": 24,
            "projection_bias": False,
        },
        vision_config={
            "model_type": "radio",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "max_img_size": 32,
            "video_temporal_patch_size": 2,
        },
        text_config=decoder(depth),
        vision_hidden_size=16,
        projector_hidden_size=24,
        audio_token_id=5,
        image_token_id=6,
        video_token_id=7,
    )
    return randomised(NemotronH_Omni_Reasoning_V3(config))


def omni_processor() -> Any:
    named = {"audio_token": SOUND, "image_token": IMAGE, "video_token": VIDEO}
    return ProcessorFiles(
        "NemotronH_Omni_Reasoning_V3Processor",
        (
            tokenizer(SOUND, IMAGE, VIDEO, "<so_start>", "<so_end>", **named),
            ParakeetFeatureExtractor(feature_size=16),
        ),
        template(SOUND),
        seeing={"image_processor_type": "NemotronH_Omni_Reasoning_V3ImageProcessor"},
    )


BUILDS = {
    "Nemotron3_5TranscribeForConditionalGeneration": TinyAudio(build_transcribe, transcribe_processor),
    "NemotronH_Omni_Reasoning_V3": TinyAudio(build_omni, omni_processor),
}
