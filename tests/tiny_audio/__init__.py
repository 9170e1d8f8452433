"""Tiny random builds of every audio LLM class: `BUILDS[class name]`, one file a family."""

from __future__ import annotations

from importlib import import_module

from tiny_audio.parts import TinyAudio

FILES = (
    "qwen2_audio",
    "whisper",
    "qwen3_asr",
    "fun_asr_nano",
    "moss_transcribe_diarize",
    "vibevoice_asr",
    "moonshine",
    "canary",
    "audio_flamingo",
    "glm_asr",
    "qwen2_5_omni",
    "granite_speech",
    "csm",
    "qwen3_omni_moe",
    "voxtral",
    "voxtral_realtime",
    "phi4_multimodal",
    "kyutai_speech_to_text",
    "moshi",
    "vibevoice",
    "nemotron",
    "gemma4",
    "gemma4_unified",
    "higgs_audio",
    "gemma3n",
)

BUILDS: dict[str, TinyAudio] = {
    name: build for file in FILES for name, build in import_module(f"tiny_audio.{file}").BUILDS.items()
}
