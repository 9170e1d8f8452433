"""Memory and speed of a whole evaluation as the manifest grows: `shoal evaluate`, scoring with intervals included.

    python benchmarks/evaluate_scale.py [--rows 10000 100000] [--workers 2] [--clips …/speech/asterisk]

A manifest names segments of a few real recordings again and again, each row with its own id, text and speaker. A tiny
random SpeechLLM (4 layers, 32 wide) transcribes it, so that what is measured is Shoal and not the model. Every size is
a command of its own, from reading the manifest to `scores.json` with 1000 bootstrap replicates; peak memory is its
`VmHWM`. `memory_growth` is the peak at the largest size over that at the smallest, `scoring_memory_growth` the same for
the command run again, which only reads and scores. `resume_over_decode` is the time of that second command over the
first. With `--workers` the largest size is evaluated again by so many processes, and the scores are compared; each
process loads Python, torch and the model first, which is most of the work where there are few rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from support.interleave import rounded
from support.watched import Usage, watch

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
SECONDS = 0.4
"""Length of a segment."""
SPEAKERS = 500
FILES = 50
TIMES = ("encode_seconds", "prefill_seconds", "decode_seconds")


@dataclass(frozen=True)
class Measured:
    """One size: the whole command, and the same again."""

    rows: int
    first: Usage
    again: Usage


def main() -> None:
    """Measure, print the table, end with the figures."""
    options = parse()
    folder = options.cache / "evaluate-scale"
    folder.mkdir(parents=True, exist_ok=True)
    model = write_model(folder / "model")
    clips = write_clips(folder / "clips", options.clips)
    measured = [measure(model, folder, clips, rows, options) for rows in sorted(options.rows)]
    print_table(measured)
    found = figures(measured)
    if options.workers:
        found |= sharded(model, folder, measured[-1], options)
    print(json.dumps(found))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", type=int, nargs="+", default=[10_000, 100_000])
    add("--batch-size", type=int, default=64)
    add("--max-new-tokens", type=int, default=8)
    add("--workers", type=int, default=0)
    add(
        "--clips",
        type=Path,
        default=ROOT.parent / "shared" / "speech" / "asterisk",
        help="folder of recordings",
    )
    add("--cache", type=Path, default=ROOT / ".cache" / "benchmarks")
    return parser.parse_args()


def write_model(folder: Path) -> Path:
    """The tiny SpeechLLM of the tests, saved."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "models")]
    import tiny_speech

    loaded = tiny_speech.loaded()
    loaded.model.save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    return folder


def write_manifest(path: Path, clips: Path, rows: int) -> None:
    """`rows` segments of the recordings in `clips`, cut one after the other, over and over."""
    cuts = list(segments(clips))
    with path.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            cut = cuts[number % len(cuts)] | {"id": f"utterance-{number:07d}", "duration": SECONDS}
            said = {"text": text(number), "speaker": f"s{number % SPEAKERS}", "lang": "en"}
            stream.write(json.dumps(cut | said) + "\n")


def segments(clips: Path) -> list[dict[str, object]]:
    """Every whole `SECONDS` of the recordings in a folder."""
    import soundfile

    return [
        {"audio_filepath": str(path), "offset": round(start * SECONDS, 1)}
        for path in sorted(clips.glob("*.wav"))
        for start in range(int(soundfile.info(path).duration / SECONDS))
    ]


def write_clips(folder: Path, recordings: Path) -> Path:
    """The first recordings as WAV, in which segments are found without decoding what lies before."""
    import soundfile

    files = sorted(path for path in recordings.rglob("*") if path.suffix in (".wav", ".flac", ".opus"))[:FILES]
    if not files:
        raise SystemExit(f"no recordings in {recordings}; name a folder of WAV, FLAC or Opus files with --clips")
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        soundfile.write(folder / f"{path.stem}.wav", *soundfile.read(path))
    return folder


def text(number: int) -> str:
    """A few words that differ from row to row."""
    words = (
        "put",
        "the",
        "lid",
        "on",
        "a",
        "green",
        "box",
        "where",
        "is",
        "it",
        "call",
        "me",
        "back",
        "soon",
    )
    return " ".join(words[(number * step) % len(words)] for step in (1, 3, 5, 7, 11))


def measure(model: Path, folder: Path, clips: Path, rows: int, options: argparse.Namespace) -> Measured:
    """Evaluate `rows` rows into an empty folder, then once more into the same."""
    manifest, out = folder / f"{rows}.jsonl", folder / f"out-{rows}"
    write_manifest(manifest, clips, rows)
    shutil.rmtree(out, ignore_errors=True)
    run = [*command(model, manifest, options), "--out", str(out)]
    usages = [watch(run, folder / f"{rows}-{name}.log") for name in ("first", "again")]
    print(f"{rows} rows: {usages[0]}, again {usages[1]}", file=sys.stderr)
    return Measured(rows, *usages)


def command(model: Path, manifest: Path, options: argparse.Namespace) -> list[str]:
    """`shoal evaluate` without its `--out`."""
    how = ["--batch-size", str(options.batch_size), "--max-new-tokens", str(options.max_new_tokens)]
    return [sys.executable, "-m", "shoal", "evaluate", str(model), "--data", str(manifest), *how]


def print_table(measured: list[Measured]) -> None:
    """A line a size."""
    print(
        "| rows | seconds | rows/s | peak, MiB | again: seconds | rows/s | peak, MiB |\n|---|---|---|---|---|---|---|"
    )
    for each in measured:
        cells = [
            f"{usage.seconds:.0f} | {each.rows / usage.seconds:.0f} | {usage.resident / MIB:.0f}"
            for usage in (each.first, each.again)
        ]
        print(f"| {each.rows} | {' | '.join(cells)} |")


def figures(measured: list[Measured]) -> dict[str, float]:
    """Of the largest size over the smallest."""
    small, large = measured[0], measured[-1]
    return {
        "memory_growth": rounded(large.first.resident / small.first.resident),
        "scoring_memory_growth": rounded(large.again.resident / small.again.resident),
        "bytes_per_row": rounded((large.first.resident - small.first.resident) / max(1, large.rows - small.rows)),
        "speed_ratio": rounded(large.rows / large.first.seconds / (small.rows / small.first.seconds)),
        "resume_over_decode": rounded(large.again.seconds / large.first.seconds),
        "rows": large.rows,
        "rows_per_second": rounded(large.rows / large.first.seconds),
    }


def sharded(model: Path, folder: Path, whole: Measured, options: argparse.Namespace) -> dict[str, float | bool]:
    """The same by several processes: how much faster, and whether the scores are the same."""
    out = folder / f"out-{whole.rows}-by-{options.workers}"
    shutil.rmtree(out, ignore_errors=True)
    run = [*command(model, folder / f"{whole.rows}.jsonl", options), "--workers", str(options.workers)]
    usage = watch([*run, "--out", str(out)], folder / "workers.log")
    same = told(out) == told(folder / f"out-{whole.rows}")
    print(f"\n{whole.rows} rows by {options.workers} processes: {usage.seconds:.0f} s, same scores: {same}")
    return {"worker_speedup": rounded(whole.first.seconds / usage.seconds), "same_scores": same}


def told(out: Path) -> dict[str, object]:
    """What `scores.json` says, besides when and how fast."""
    scores = json.loads((out / "scores.json").read_text())
    del scores["provenance"]
    for system in scores["systems"]:
        for name in TIMES:
            del system[name]
    return scores


if __name__ == "__main__":
    main()
