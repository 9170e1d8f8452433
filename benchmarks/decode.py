"""Tokens a second of the decode engine against the model's own `generate` at the same batch size.

    python benchmarks/decode.py [--model pkg:reference] [--data MANIFEST…] [--clips 96] [--batch 16] [--runs 3]
    python benchmarks/decode.py --shape 8b --device cuda --dtype bfloat16 --batch 32

- Everything is given the same embedded prompts, so neither audio nor the encoder is timed. A row may get 16 tokens and
  20 for every second of its clip, as in `shoal evaluate`.
- `generate`: batches in the order of the manifest, padded on the left, until the last row of each is done; it has one
  limit for all rows of a batch, the largest, and what it says beyond a row's own limit is cut off and not counted.
- `greedy`: the same batches, rows leave the batch as they finish. `engine`: continuous batching over all of them.
- Mixed lengths: as many clips of up to 6 words as of up to 12, up to 24 and more, English, in the order of the
  manifests (telephone prompts, then read sentences). `--as-they-come`: evenly spaced clips instead, most of them
  shorter than 4 s; prefilling then takes most of the time, which no way of decoding saves.
- Without a model, `--shape` makes random weights of a known shape, prompts of 60 to 400 positions, and limits that most
  rows keep short; no row ends before its limit.
- Identical tokens: of the tokens that `generate` gives, the share that the engine gives at the same place of the same
  row. `prefill_share`: of the engine's seconds. Runs are interleaved; figures are medians of ratios within a run.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from shoal import tasks
from shoal.data import Row, read_manifests
from shoal.data.subset import evenly_spaced
from shoal.decoder.prepare import prepare
from shoal.demo import clips_manifest
from shoal.evaluation.engine import Engine, prompts_of
from shoal.evaluation.generate import clock, greedy
from shoal.evaluation.settings import TokenLimit
from shoal.models.batch import Kind, PreparedBatch
from shoal.models.loading import load
from support.interleave import Figures, Timings, interleaved, median_ratio, print_times, rounded

ROOT = Path(__file__).resolve().parents[1]
SPEECH = [ROOT.parent / "shared" / "speech" / name / "manifest.jsonl" for name in ("asterisk", "speechocean762")]
# Hidden size, MLP, layers, heads, key/value heads, vocabulary.
SHAPES = {
    "8b": (4096, 14336, 32, 32, 8, 128_256),
    "3b": (3072, 8192, 28, 24, 8, 128_256),
    "1b": (2048, 8192, 16, 32, 8, 128_256),
    "smollm2": (576, 1536, 30, 9, 3, 49_152),
    "tiny": (64, 128, 2, 4, 2, 512),
}
BANDS = (6, 12, 24, 10**9)
"""Most words of a clip in each band of lengths."""
LENGTHS, LIMITS = (60, 401), (8, 200)
"""Positions of random prompts, and the tokens that they may get: from, and to below."""
Rows = list[list[int]]


@dataclass(frozen=True)
class Work:
    """What is to be decoded."""

    lm: nn.Module
    batches: list[PreparedBatch]
    limits: list[list[int]]
    """For every row of every batch."""
    eos_ids: tuple[int, ...]
    size: int
    """Rows at once."""
    said: dict[str, Rows] = field(default_factory=dict)
    prefill: list[float] = field(default_factory=list)


def main() -> None:
    """Measure, print the table, end with the figures."""
    options = parse()
    work = synthetic(options) if options.shape else recorded(options)
    print(json.dumps(measured(work, options)))


def measured(work: Work, options: argparse.Namespace) -> Figures:
    """Time the three ways on the same work."""
    jobs = {"generate": plain, "greedy": leaving, "engine": continuous}
    wanted = {name: timed(work, name, job) for name, job in jobs.items() if name not in options.leave_out}
    return figures(work, interleaved(wanted, options.runs))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="pkg:reference")
    add(
        "--data",
        type=Path,
        nargs="+",
        default=SPEECH if all(path.is_file() for path in SPEECH) else [clips_manifest()],
    )
    add("--as-they-come", action="store_true", help="not mixed by length")
    add("--shape", choices=sorted(SHAPES), help="random weights instead of a model")
    add("--clips", type=int, default=96)
    add("--batch", type=int, default=16)
    add("--runs", type=int, default=3)
    add("--device", default="cpu")
    add("--dtype", default="float32")
    add("--leave-out", nargs="*", default=[], choices=["greedy"])
    return parser.parse_args()


def recorded(options: argparse.Namespace) -> Work:
    """Real clips through a model, in the order of the manifests; English ones, which the reference model knows."""
    model = load(options.model, device=options.device, dtype=options.dtype)
    data = read_manifests(options.data, where={"lang": "en"}, needs_text=True)
    rows = list(data.rows)
    rows = evenly_spaced(rows, options.clips, 0) if options.as_they_come else mixed(rows, options.clips)
    clips = list(data.clips(rows))
    task, limit = tasks.get("asr"), TokenLimit()
    groups = [clips[at : at + options.batch] for at in range(0, len(clips), options.batch)]
    batches = [prepare(model, group, task, input="speech", response=False) for group in groups]
    limits = [[limit.of(clip.row) for clip in group] for group in groups]
    announce(options, options.model, batches, limits)
    return Work(model.lm, batches, limits, model.eos_ids, options.batch)


def mixed(rows: Sequence[Row], count: int) -> list[Row]:
    """An equal number of rows of every band of lengths, in their order."""
    bands: list[list[int]] = [[] for _ in BANDS]
    for place, row in enumerate(rows):
        words = len(row.text.split())
        bands[next(band for band, most in enumerate(BANDS) if words <= most)].append(place)
    chosen = [place for band in bands for place in evenly_spaced(band, -(-count // len(BANDS)), 0)]
    return [rows[place] for place in sorted(chosen)]


def synthetic(options: argparse.Namespace) -> Work:
    """Random weights and embeddings."""
    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)
    hidden, mlp, layers, heads, shared, vocabulary = SHAPES[options.shape]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        max_position_embeddings=4096,
        initializer_range=hidden**-0.5,
    )
    with torch.device(options.device):
        torch.set_default_dtype(dtype)
        lm = LlamaForCausalLM(config).eval().requires_grad_(False)
        torch.set_default_dtype(torch.float32)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(*LENGTHS, (options.clips,), generator=generator).tolist()
    least, most = LIMITS
    # Squared, most are short: like what people say.
    limits = (least + (most - least) * torch.rand(options.clips, generator=generator) ** 2).long().tolist()
    groups = [slice(at, at + options.batch) for at in range(0, options.clips, options.batch)]
    batches = [random_prompts(lm, lengths[group], generator) for group in groups]
    announce(options, f"shape {options.shape}", batches, [limits[group] for group in groups])
    return Work(lm, batches, [limits[group] for group in groups], (), options.batch)


def random_prompts(lm: Any, lengths: Sequence[int], generator: torch.Generator) -> PreparedBatch:
    """Random tokens, embedded, padded on the left."""
    width = max(lengths)
    columns = torch.arange(width)
    real = columns >= width - torch.tensor(lengths)[:, None]
    ids = torch.randint(3, lm.config.vocab_size, real.shape, generator=generator)
    embeds = lm.get_input_embeddings()(ids.to(lm.device)) * real.to(lm.device)[..., None]
    kinds = (real * int(Kind.PROMPT)).to(torch.uint8)
    names = [str(row) for row in range(len(lengths))]
    return PreparedBatch(names, embeds, kinds.to(lm.device), ids.to(lm.device))


def announce(
    options: argparse.Namespace, name: str, batches: Sequence[PreparedBatch], limits: Sequence[Sequence[int]]
) -> None:
    """What is measured, where."""
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    positions = [int(length) for batch in batches for length in batch.attention_mask.sum(1)]
    every = [limit for group in limits for limit in group]
    print(
        f"{name}, {options.dtype}, {where}, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
        f"{len(every)} rows, batch {options.batch}, prompts of {min(positions)} to {max(positions)} positions, "
        f"limits of {min(every)} to {max(every)} tokens"
    )


def timed(work: Work, name: str, job: Callable[[Work], Rows]) -> Callable[[], float]:
    """Seconds of `job`; what it said is kept."""
    device = work.batches[0].embeds.device

    def run() -> float:
        start = clock(device)
        work.said[name] = job(work)
        return clock(device) - start

    return run


@torch.inference_mode()
def plain(work: Work) -> Rows:
    """The model's own `generate`."""
    lm: Any = work.lm
    said = []
    for batch, limits in zip(work.batches, work.limits, strict=True):
        sequences = lm.generate(
            inputs_embeds=batch.embeds,
            attention_mask=batch.attention_mask,
            do_sample=False,
            max_new_tokens=max(limits),
            eos_token_id=list(work.eos_ids) or None,
            pad_token_id=0,
        )
        said += [until_end(row, work.eos_ids)[:limit] for row, limit in zip(sequences.tolist(), limits, strict=True)]
    return said


def until_end(tokens: list[int], eos_ids: Sequence[int]) -> list[int]:
    """What comes before an end token."""
    ends = [place for place, token in enumerate(tokens) if token in eos_ids]
    return tokens[: ends[0]] if ends else tokens


def leaving(work: Work) -> Rows:
    """Batches that rows leave as they finish."""
    return [
        tokens
        for batch, limits in zip(work.batches, work.limits, strict=True)
        for tokens in greedy(work.lm, batch, eos_ids=work.eos_ids, max_new_tokens=limits).tokens
    ]


def continuous(work: Work) -> Rows:
    """The engine, over the rows of all batches, longest first as in `shoal evaluate`."""
    prompts = [
        prompt for batch, limits in zip(work.batches, work.limits, strict=True) for prompt in prompts_of(batch, limits)
    ]
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row].embeds))
    said: Rows = [[] for _ in prompts]
    engine = ENGINES.setdefault(id(work), Engine(work.lm, eos_ids=work.eos_ids, slots=work.size))
    seconds = [0.0, 0.0]
    for done in engine.run([prompts[row] for row in order]):
        said[order[done.row]] = done.tokens
        seconds = [seconds[0] + done.prefill_seconds, seconds[1] + done.decode_seconds]
    work.prefill.append(seconds[0] / sum(seconds))
    return said


ENGINES: dict[int, Engine] = {}
"""Kept from run to run, as from window to window in `shoal evaluate`: recorded graphs are part of the warm-up."""


def figures(work: Work, timings: Timings) -> Figures:
    """Print the table; returns the figures."""
    reference = work.said["generate"]
    tokens = sum(map(len, reference))
    print(f"{tokens} tokens, {min(map(len, reference))} to {max(map(len, reference))} a row")
    print_times(timings, "engine")
    for name, seconds in timings.items():
        print(f"{name:<36} {tokens / statistics.median(seconds):>9.1f} tokens/s")
    found = {
        "decode_speedup": rounded(median_ratio(timings, "generate", "engine")),
        "identical_tokens": rounded(same_tokens(reference, work.said["engine"])),
        "identical_rows": rounded(
            sum(a == b for a, b in zip(reference, work.said["engine"], strict=True)) / len(reference)
        ),
        "prefill_share": rounded(statistics.median(work.prefill)),
        "tokens_per_second": rounded(tokens / statistics.median(timings["engine"])),
    }
    if "greedy" in timings:
        found["speedup_over_greedy"] = rounded(median_ratio(timings, "greedy", "engine"))
    return found


def same_tokens(reference: Rows, said: Rows) -> float:
    """Share of the tokens of `reference` that stand at their place in `said`; what is said beyond them counts too."""
    pairs = list(zip(reference, said, strict=True))
    same = sum(a == b for one, other in pairs for a, b in zip(one, other, strict=False))
    return same / sum(max(len(one), len(other)) for one, other in pairs)


if __name__ == "__main__":
    main()
