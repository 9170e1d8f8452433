"""GGUF → Hugging Face: real weights that answer, and an independent reading of their tokenizers."""

from __future__ import annotations

import heapq
import json
from pathlib import Path

import pytest

from shoal.errors import WeightsError
from shoal.models import convert_gguf, weights

TEXTS = (
    "Hello  world, it's 2026!\n\n\nYes\tno  <div> ok",
    "In   1987  there were 12,345 of them (about 50%).",
    "Ünïcode naïve café 你好 мир 🎉",
    "  leading, trailing and      many spaces  ",
    "def f(x):\n    return x**2  # 100\n",
)


@pytest.mark.weights
def test_smollm2_knows_the_capital_of_france():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = weights.get("smollm2-135m-instruct")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=20)[0, inputs.input_ids.shape[1] :]

    assert "Paris" in tokenizer.decode(ids)
    assert ids[-1] == model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.weights
def test_smollm2_is_a_plain_llama():
    folder = weights.get("smollm2-135m-instruct")
    config = json.loads((folder / "config.json").read_text("utf-8"))

    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config
    assert config["tie_word_embeddings"] is True
    assert (config["num_hidden_layers"], config["hidden_size"], config["head_dim"]) == (30, 576, 64)
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (9, 3)
    assert config["rope_parameters"] == {"rope_theta": 100000.0, "rope_type": "default"}
    assert config["rms_norm_eps"] == 1e-05


@pytest.mark.weights
def test_smollm2_splits_every_digit_and_keeps_runs_of_spaces_before_it():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights.get("smollm2-135m-instruct"))
    assert tokenizer.tokenize("a  1987") == ["a", "ĠĠ", "1", "9", "8", "7"]
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def best_pairs_first(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece BPE, from its definition: again and again the adjacent pair that scores best."""
    pieces: list[str | None] = list(text)
    queue: list[tuple[float, int, str, str]] = []

    def offer(left: int, right: int) -> None:
        joined = f"{pieces[left]}{pieces[right]}"
        if joined in scores:
            heapq.heappush(queue, (-scores[joined], left, pieces[left] or "", pieces[right] or ""))

    def after(place: int) -> int:
        return next((i for i in range(place + 1, len(pieces)) if pieces[i] is not None), -1)

    def before(place: int) -> int:
        return next((i for i in range(place - 1, -1, -1) if pieces[i] is not None), -1)

    for place in range(len(pieces) - 1):
        offer(place, place + 1)
    while queue:
        _, left, first, second = heapq.heappop(queue)
        right = after(left)
        if pieces[left] != first or right < 0 or pieces[right] != second:
            continue
        pieces[left], pieces[right] = first + second, None
        if (previous := before(left)) >= 0:
            offer(previous, left)
        if (following := after(left)) >= 0:
            offer(left, following)
    return [piece for piece in pieces if piece is not None]


@pytest.mark.weights
@pytest.mark.full
def test_gemma_tokenizes_as_sentencepiece_would():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights.get("gemma-3-270m"))
    # Gemma's scores are minus the rank of the piece, so that the rank can be had from the ids.
    scores = {token: -float(number) for token, number in tokenizer.get_vocab().items()}
    for text in ("Hello world, it is me.", "A naïve café in Paris has twelve tables"):
        assert tokenizer.tokenize(text) == best_pairs_first(text.replace(" ", "▁"), scores)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


@pytest.mark.weights
@pytest.mark.full
def test_gemma_is_a_plain_gemma3_with_its_windows():
    folder = weights.get("gemma-3-270m")
    config = json.loads((folder / "config.json").read_text("utf-8"))

    assert config["architectures"] == ["Gemma3ForCausalLM"]
    assert config["layer_types"] == (["sliding_attention"] * 5 + ["full_attention"]) * 3
    assert config["sliding_window"] == 512
    assert config["query_pre_attn_scalar"] == config["head_dim"] == 256
    assert config["rope_parameters"]["full_attention"]["rope_theta"] == 1_000_000
    assert config["rope_parameters"]["sliding_attention"]["rope_theta"] == 10_000
    assert {path.name for path in folder.iterdir()} >= {"GEMMA_TERMS.html", "NOTICE.md"}


@pytest.mark.weights
@pytest.mark.full
def test_gemma_goes_on_with_a_sentence_it_must_know():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = weights.get("gemma-3-270m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    inputs = tokenizer("One, two, three, four, five, six,", return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=8)[0, inputs.input_ids.shape[1] :]
    assert tokenizer.decode(ids).startswith(" seven, eight, nine")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 10])
def test_a_file_that_is_not_gguf_is_refused_in_one_line(tmp_path: Path, content: bytes):
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(WeightsError, match="not a whole GGUF file") as error:
        convert_gguf.convert(tmp_path, tmp_path)
    assert "\n" not in str(error.value)


def test_a_config_unlike_the_header_is_refused():
    from transformers import LlamaConfig

    fields = {"general.architecture": "llama", "llama.block_count": 4, "llama.rope.freq_base": 10000.0}
    convert_gguf.check_config(fields, LlamaConfig(num_hidden_layers=4))
    with pytest.raises(WeightsError, match="block_count = 4, the config made from it says 5"):
        convert_gguf.check_config(fields, LlamaConfig(num_hidden_layers=5))
    other = LlamaConfig(num_hidden_layers=4, rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    with pytest.raises(WeightsError, match=r"rope\.freq_base"):
        convert_gguf.check_config(fields, other)
