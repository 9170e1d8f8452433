"""What it saves, and costs, that the encoder hears the clip instead of its whole window.

    python benchmarks/encoder_window.py [--model pkg:reference] [--data MANIFEST…] [--clips 200] [--timed 24] [--runs 3]

- The same weights twice: `full` (Whisper: 30 s for every clip) and `clip` (the clip and 0.2 s of silence).
- Scores: the WER of both on the same clips, and the difference in points, clip minus full, with its paired interval.
- Speed: seconds of a whole evaluation (encoding, decoding, scoring) of fewer clips; both in each run, in turn; the
  figure is the median of the ratios.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shoal
from shoal.data import Dataset
from shoal.demo import clips_manifest
from shoal.models.loading import LoadedModel
from shoal.models.speech_llm import EncoderWindow, SpeechLLMProcessor
from support.interleave import interleaved, median_ratio, print_times, rounded, seconds_of

ROOT = Path(__file__).resolve().parents[1]
SPEECH = ROOT.parent / "shared" / "speech" / "speechocean762" / "manifest.jsonl"
INTERVALS = 1000
"""Bootstrap replicates, but of a timed evaluation."""


def main() -> None:
    """Measure, print the tables, end with the figures."""
    options = parse()
    full, clip = (hearing(options.model, window) for window in ("full", "clip"))
    data = read(options, options.clips)
    wer = shoal.evaluate(clip, data, against=full, replicates=INTERVALS)
    for system in wer.systems:
        value = system.measures["WER"].value
        print(f"{system.name:<12} WER {100 * value.value:.1f} % [{100 * value.low:.1f}, {100 * value.high:.1f}]")
    delta = wer.systems[1].measures["WER"].delta
    difference = [rounded(100 * value) for value in (delta.absolute.value, delta.absolute.low, delta.absolute.high)]
    print(f"{wer.data.clips} clips; difference {difference[0]} points [{difference[1]}, {difference[2]}]")

    few = read(options, options.timed)
    timings = interleaved({"full": evaluation(full, few), "clip": evaluation(clip, few)}, options.runs)
    print_times(timings, "clip")
    figures: dict[str, Any] = {
        "evaluation_speedup": rounded(median_ratio(timings, "full", "clip")),
        "wer_difference": difference[0],
        "wer_difference_interval": difference[1:],
    }
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="pkg:reference")
    add("--data", type=Path, nargs="+", default=[SPEECH] if SPEECH.is_file() else [clips_manifest()])
    add("--split", default="test", help="rows of this split; with an empty one, all")
    add("--clips", type=int, default=200)
    add("--timed", type=int, default=24)
    add("--runs", type=int, default=3)
    return parser.parse_args()


def read(options: argparse.Namespace, clips: int) -> Dataset:
    """So many clips of the data."""
    where = {"split": options.split} if options.split and options.data != [clips_manifest()] else {}
    return shoal.read_manifests(options.data, where=where, limit=clips)


def hearing(ref: str, window: EncoderWindow) -> LoadedModel:
    """The model of `ref`, whose encoder hears `window`."""
    loaded = shoal.load(ref)
    loaded.model.config.encoder_window = window
    processor: Any = loaded.processor
    loaded.processor = SpeechLLMProcessor.of(loaded.model.config, processor.feature_extractor, processor.tokenizer)
    loaded.forget_info()
    return loaded


def evaluation(model: LoadedModel, data: Dataset) -> Callable[[], float]:
    """Seconds of one evaluation, whose encoder starts with nothing kept from before."""

    def run() -> float:
        model.audio_cache.clear()
        return seconds_of(lambda: shoal.evaluate(model, data, replicates=100))

    return run


if __name__ == "__main__":
    main()
