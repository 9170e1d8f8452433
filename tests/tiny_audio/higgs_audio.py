from __future__ import annotations

from transformers import HiggsAudioV2Config, HiggsAudioV2ForConditionalGeneration, PreTrainedModel

from tiny_audio.parts import TinyAudio, randomised, text_fields

CODEBOOKS = 3


def build(depth: int) -> PreTrainedModel:
    config = HiggsAudioV2Config(
        **text_fields(depth, max_position_embeddings=512),
        head_dim=8,
        num_codebooks=CODEBOOKS,
        codebook_size=34,
        audio_token_id=5,
        audio_bos_token_id=6,
        audio_delay_token_id=8,
        audio_stream_bos_id=32,
        audio_stream_eos_id=33,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )
    return randomised(HiggsAudioV2ForConditionalGeneration(config))


BUILDS = {
    "HiggsAudioV2ForConditionalGeneration": TinyAudio(
        build, no_processor="its codec needs torchaudio, which Shoal does not depend on"
    )
}
