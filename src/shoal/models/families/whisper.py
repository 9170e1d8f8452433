"""Whisper: an encoder, and a decoder that hears it by cross-attention in every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shoal.models.families.audio_llm import AudioLLM, Samples

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GenerationConfig, PreTrainedModel


class Whisper(AudioLLM):
    """`WhisperForConditionalGeneration`, and what was distilled from it."""

    name = "whisper"
    classes = ("WhisperForConditionalGeneration",)
    entry = "cross"
    inputs = ("speech",)
    engine = False
    tokens = ("decoder_input_ids", "decoder_attention_mask")
    projector_names = ()
    one_window = True
    limits = "instructed by task tokens only, in the checkpoint's language or the one it detects"

    def request(
        self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples], instruction: str
    ) -> dict[str, Tensor]:
        """Spectrograms of 30 s, what the encoder makes of them, and the tokens that `generate` would begin with."""
        import torch

        rate = self.sampling_rate(processor)
        features = processor(audio=list(clips), sampling_rate=rate, return_tensors="pt").input_features
        with torch.no_grad():
            encoded = self.encoder(model)(features.to(model.device, model.dtype))  # type: ignore[misc]
        prompt = _prompt(model, encoded, instruction)
        return {
            "input_features": features,
            "encoder_outputs": encoded,
            "decoder_input_ids": prompt,
            "decoder_attention_mask": torch.ones_like(prompt),
        }

    def response(self, text: str) -> str:
        """Whisper's answers begin with a space."""
        return f" {text}"

    def with_tokens(self, inputs: dict[str, Any], ids: Tensor, mask: Tensor) -> dict[str, Any]:
        """Positions are learned one by one, so rows that begin with padding have to say where they begin."""
        laid = super().with_tokens(inputs, ids, mask)
        if "encoder_outputs" in laid:
            # `generate` takes one of the two when it asks the decoder for the language.
            laid.pop("input_features", None)
        if not bool(mask[:, 0].all()):
            laid["decoder_position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        return laid

    def silent_inputs(self, model: PreTrainedModel) -> dict[str, Tensor] | None:
        """Random tokens over random spectrograms: there is no decoding without anything to attend to."""
        from shoal.models.random_tokens import noise, token_batch

        config = model.config
        tokens = token_batch(config.vocab_size, pad=config.pad_token_id or 0)
        inputs = self.with_tokens({}, tokens["input_ids"], tokens["attention_mask"])
        shape = (len(tokens["input_ids"]), config.num_mel_bins, 2 * config.max_source_positions)
        return inputs | {"input_features": noise(shape, model.dtype)}

    def generation_fields(self, config: GenerationConfig, depth: int, keep: Sequence[int]) -> Mapping[str, Any]:
        """Pairs (layer, head) whose attention aligns words with time; without any left, there are no word times."""
        heads = getattr(config, "alignment_heads", None)
        if not heads:
            return {}
        new_index = {old: new for new, old in enumerate(keep)}
        return {"alignment_heads": [[new_index[layer], head] for layer, head in heads if layer in new_index] or None}


def _prompt(model: PreTrainedModel, heard: Any, instruction: str) -> Tensor:
    """(B, n) tokens: start, language and task where the model knows several, and no timestamps."""
    import torch

    settings: Any = model.generation_config
    start = getattr(settings, "decoder_start_token_id", None) or model.config.decoder_start_token_id
    columns = [torch.full((len(heard.last_hidden_state),), start)]
    if getattr(settings, "lang_to_id", None):
        columns.append(_languages(model, heard))
        task = "translate" if "translate" in instruction.lower() else "transcribe"
        columns.append(torch.full_like(columns[0], settings.task_to_id[task]))
    if (plain := getattr(settings, "no_timestamps_token_id", None)) is not None:
        columns.append(torch.full_like(columns[0], plain))
    return torch.stack(columns, dim=1)


def _languages(model: Any, heard: Any) -> Tensor:
    """(B,) the language token that the checkpoint fixes, or that the model finds in each clip."""
    import torch

    settings = model.generation_config
    forced = getattr(settings, "forced_decoder_ids", None) or [[1, None]]
    name = getattr(settings, "language", None)
    fixed = _language_id(settings.lang_to_id, name) if name else forced[0][1]
    if fixed is not None:
        return torch.full((len(heard.last_hidden_state),), fixed)
    languages: Tensor = model.detect_language(encoder_outputs=heard, generation_config=settings)
    return languages.cpu()


def _language_id(known: Mapping[str, int], name: str) -> int:
    """The token of a language that is given by name (`english`), code (`en`) or token (`<|en|>`)."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    code = TO_LANGUAGE_CODE.get(name.lower(), name)
    return known[code if code.startswith("<|") else f"<|{code}|>"]


FAMILY = Whisper()
