"""Whisper: an encoder, and a decoder that hears it by cross-attention in every layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shoal.models.families.audio_llm import AudioLLM, Inputs, Question, Samples

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
    limits = (
        "instructed by task tokens only; in the language of the row (lang, or --lang), else in the checkpoint's or the "
        "one it detects"
    )

    def languages(self, model: PreTrainedModel, *, transcribe: bool) -> Collection[str]:
        """Those that have a token; a checkpoint for English alone takes none."""
        return [token.strip("<|>") for token in getattr(model.generation_config, "lang_to_id", None) or {}]

    def request(self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples], question: Question) -> Inputs:
        """Spectrograms of 30 s, what the encoder makes of them, and the tokens that `generate` would begin with."""
        import torch

        rate = self.sampling_rate(processor)
        features = processor(audio=list(clips), sampling_rate=rate, return_tensors="pt").input_features
        with torch.no_grad():
            encoded = self.encoder(model)(features.to(model.device, model.dtype))  # type: ignore[misc]
        prompt = _prompt(model, encoded, question)
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
        """With positions, which are learned one by one."""
        with_ids = super().with_tokens(inputs, ids, mask)
        if "encoder_outputs" in with_ids:
            # `generate` takes one of the two when it asks the decoder for the language.
            with_ids.pop("input_features", None)
        return with_ids | absolute_positions(mask)

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


def absolute_positions(mask: Tensor) -> dict[str, Tensor]:
    """For a decoder with absolute positions: rows that begin with padding have to say where they begin."""
    return {} if bool(mask[:, 0].all()) else {"decoder_position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


def _prompt(model: PreTrainedModel, encoded: Any, question: Question) -> Tensor:
    """(B, n) tokens: start, language and task where the model knows several, and no timestamps."""
    import torch

    settings: Any = model.generation_config
    start = getattr(settings, "decoder_start_token_id", None) or model.config.decoder_start_token_id
    columns = [torch.full((len(encoded.last_hidden_state),), start)]
    if getattr(settings, "lang_to_id", None):
        columns.append(_languages(model, encoded, question))
        task = "translate" if "translate" in question.instruction.lower() else "transcribe"
        columns.append(torch.full_like(columns[0], settings.task_to_id[task]))
    if (plain := getattr(settings, "no_timestamps_token_id", None)) is not None:
        columns.append(torch.full_like(columns[0], plain))
    return torch.stack(columns, dim=1)


def _languages(model: Any, encoded: Any, question: Question) -> Tensor:
    """(B,) language tokens: of the clips' own languages; for clips that name none, see `_guessed`."""
    import torch

    known, spoken = model.generation_config.lang_to_id, question.spoken(len(encoded.last_hidden_state))
    tokens = [None if code is None else known[f"<|{code}|>"] for code in spoken]
    guessed = _guessed(model, encoded).tolist() if None in tokens else tokens
    return torch.tensor([guess if token is None else token for token, guess in zip(tokens, guessed, strict=True)])


def _guessed(model: Any, encoded: Any) -> Tensor:
    """(B,) the language token that the checkpoint fixes, or that the model finds in each clip."""
    import torch

    settings = model.generation_config
    forced = getattr(settings, "forced_decoder_ids", None) or [[1, None]]
    name = getattr(settings, "language", None)
    fixed = _language_id(settings.lang_to_id, name) if name else forced[0][1]
    if fixed is not None:
        return torch.full((len(encoded.last_hidden_state),), fixed)
    languages: Tensor = model.detect_language(encoder_outputs=encoded, generation_config=settings)
    return languages.cpu()


def _language_id(known: Mapping[str, int], name: str) -> int:
    """The token of a language that is given by name (`english`), code (`en`) or token (`<|en|>`)."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    code = TO_LANGUAGE_CODE.get(name.lower(), name)
    return known[code if code.startswith("<|") else f"<|{code}|>"]


FAMILY = Whisper()
