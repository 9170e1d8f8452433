"""What it takes to prune an 8B checkpoint on disk, beside mergekit and beside copying.

    python benchmarks/disk_prune.py [--runs 3] [--remove 13] [--start 16] [--layers 32 --hidden 4096 …]

A random checkpoint of Llama-3.1-8B's shape (32 layers, bf16, 16 GB in shards of at most 5 GB) is written once under
`--cache`. Then layers 16 to 28 are removed from it, three ways, interleaved, each in a process of its own:

- shoal: `shoal.pruning.sharded.write_sharded`, which also hashes every tensor and writes all to the disk;
- mergekit: `mergekit-yaml`, passthrough of two slices, `--lazy-unpickle --copy-tokenizer --out-shard-size 5B`;
- cp: a copy, by `dd`, of as many bytes as stay, out of the same files: the floor.

Before each run the output of the last is deleted and the system told to forget the source files, so that all read
from the disk. Seconds count until the output is on the disk (fsync), and for the tools from starting Python. Peak
memory is `VmHWM`, which counts pages of mapped files, and `RssAnon`, which does not. In the end both outputs are
compared tensor by tensor, and Shoal's keys with its stock class. `peak_over_largest_shard_gib` is Shoal's peak less
the size of the largest shard: below zero, no shard was ever in memory. It needs three times the checkpoint's size
(itself and three outputs) and 10 GB of free disk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from support.big_checkpoint import Shape, bytes_of, write_checkpoint
from support.interleave import rounded
from support.same_tensors import differing, digests, wrong_keys
from support.watched import Usage, forget, to_disk, watch

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).parent / "support" / "disk_worker.py"
GIB = 2**30
SPARE = 10 * 10**9
KEEP_SOURCE = 25 * 10**9
NOTHING = {"peak_over_largest_shard_gib": None, "seconds_over_mergekit": None}


@dataclass
class Contender:
    """A way to prune, and what each run took: usage, and seconds until the files were on the disk."""

    command: list[str]
    out: Path
    source: Path
    usages: list[Usage] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Once, from a cold cache, into an empty place."""
        self.clear()
        forget(self.source.glob("*.safetensors"))
        start = time.perf_counter()
        self.usages.append(watch(self.command, self.out.with_suffix(".log")))
        to_disk(self.out)
        self.seconds.append(time.perf_counter() - start)

    def clear(self) -> None:
        """Delete the output, and what an interrupted run of Shoal left to go on from."""
        for folder in (self.out, self.out.with_name(f".{self.out.name}.shoal-part")):
            shutil.rmtree(folder, ignore_errors=True)

    def median(self, of: Callable[[Usage], float]) -> float:
        """Of a usage over the runs."""
        return statistics.median(of(usage) for usage in self.usages)


@dataclass(frozen=True)
class Removal:
    """A block of layers [start, stop) of a checkpoint."""

    source: Path
    shape: Shape
    start: int
    stop: int

    @property
    def kept_bytes(self) -> int:
        """Of the tensors that stay."""
        gone = tuple(f"model.layers.{layer}." for layer in range(self.start, self.stop))
        return sum(bytes_of(shape) for name, shape in self.shape.tensors() if not name.startswith(gone))


def main() -> None:
    """Measure, print the table, end with the figures."""
    options = parse()
    options.cache.mkdir(parents=True, exist_ok=True)
    shape = Shape(options.layers, options.hidden, options.intermediate, vocabulary=options.vocabulary)
    source = options.cache / options.name
    written = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    needed = 3 * shape.size + SPARE - written
    if (free := shutil.disk_usage(options.cache).free) < needed:
        print(f"skipped: {needed / 1e9:.0f} GB of free disk are needed, {free / 1e9:.0f} GB are free")
        print(json.dumps(NOTHING))
        return
    write_source(source, shape, options.shard)
    stop = shape.layers - 3 if options.start is None else options.start + options.remove
    removal = Removal(source, shape, stop - options.remove, stop)
    contenders = make_contenders(removal, options.cache, options.shard)
    try:
        measure(contenders, options.runs)
        problems = compare(contenders)
        print_table(contenders, removal)
        print(json.dumps(figures(contenders, removal) | problems))
    finally:
        clean_up(contenders, source)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, shape = parser.add_argument, Shape()
    add("--layers", type=int, default=shape.layers)
    add("--hidden", type=int, default=shape.hidden)
    add("--intermediate", type=int, default=shape.intermediate)
    add("--vocabulary", type=int, default=shape.vocabulary)
    add("--remove", type=int, default=13, help="how many layers")
    add("--start", type=int, help="the first of them (default: so that the last three layers stay)")
    add("--shard", type=int, default=5 * 10**9, help="largest file, bytes")
    add("--runs", type=int, default=3)
    add("--cache", type=Path, default=ROOT / ".cache" / "benchmarks", help="for checkpoint and environments")
    add("--name", default="llama-8b", help="the checkpoint's folder in the cache")
    return parser.parse_args()


def write_source(source: Path, shape: Shape, shard: int) -> None:
    """The checkpoint, and how fast it went if it had to be written."""
    start = time.perf_counter()
    write_checkpoint(source, shape, shard=shard)
    seconds = time.perf_counter() - start
    speed = f", written at {shape.size / 1e6 / seconds:.0f} MB/s" if seconds > 1 else ""
    print(f"{source}: {shape.layers} layers, {shape.size / GIB:.2f} GiB{speed}")


def make_contenders(removal: Removal, cache: Path, shard: int) -> dict[str, Contender]:
    """The three ways."""
    from support.family_tools import MERGEKIT

    program = MERGEKIT.python(cache).with_name("mergekit-yaml")
    out = {name: cache / f"disk-prune-{name}" for name in ("shoal", "mergekit", "cp")}
    block = [str(removal.shape.layers), str(removal.start), str(removal.stop)]
    shoal = [sys.executable, str(WORKER), str(removal.source), *block, str(out["shoal"])]
    options = ["--lazy-unpickle", "--copy-tokenizer", "--out-shard-size", str(shard)]
    mergekit = [str(program), str(_recipe(removal, cache)), str(out["mergekit"]), *options]
    commands = {"shoal": shoal, "mergekit": mergekit, "cp": _copy(removal, out["cp"])}
    return {name: Contender(command, out[name], removal.source) for name, command in commands.items()}


def measure(contenders: dict[str, Contender], runs: int) -> None:
    """Interleaved, every second run in reverse."""
    for run in range(runs):
        for name in list(contenders)[:: -1 if run % 2 else 1]:
            contenders[name].run()
            last = contenders[name]
            print(f"run {run + 1}, {name}: {last.seconds[-1]:.1f} s, {last.usages[-1]}", file=sys.stderr)


def compare(contenders: dict[str, Contender]) -> dict[str, int]:
    """How many tensors are not the same in both outputs, and how many of Shoal's its class does not expect."""
    ours, theirs = (digests(contenders[name].out) for name in ("shoal", "mergekit"))
    unlike, wrong = differing(ours, theirs), wrong_keys(contenders["shoal"].out)
    print(f"{len(ours)} tensors from Shoal, {len(theirs)} from mergekit, {len(unlike)} differ {unlike[:3]}")
    print(f"{len(wrong)} keys are not as the stock class expects them {wrong[:3]}\n")
    return {"differing_tensors": len(unlike), "wrong_keys": len(wrong)}


def print_table(contenders: dict[str, Contender], removal: Removal) -> None:
    """Medians, with the smallest and largest seconds."""
    print(f"layers {removal.start} to {removal.stop - 1} removed, {removal.kept_bytes / GIB:.2f} GiB stay")
    print("| | seconds (min to max) | MB/s written | peak VmHWM, GiB | peak RssAnon, GiB |\n|---|---|---|---|---|")
    for name, contender in contenders.items():
        seconds = statistics.median(contender.seconds)
        spread = f"({min(contender.seconds):.1f} to {max(contender.seconds):.1f})"
        peaks = [contender.median(lambda u: u.resident) / GIB, contender.median(lambda u: u.anonymous) / GIB]
        speed = removal.kept_bytes / 1e6 / seconds
        print(f"| {name} | {seconds:.1f} {spread} | {speed:.0f} | {peaks[0]:.2f} | {peaks[1]:.2f} |")


def figures(contenders: dict[str, Contender], removal: Removal) -> dict[str, float | int | None]:
    """Medians of the ratios run by run, and peaks."""
    largest = max(file.stat().st_size for file in removal.source.glob("*.safetensors"))
    shoal, mergekit = contenders["shoal"], contenders["mergekit"]
    return {
        "peak_over_largest_shard_gib": rounded((shoal.median(lambda u: u.resident) - largest) / GIB),
        "seconds_over_mergekit": ratio(shoal.seconds, mergekit.seconds),
        "seconds_over_cp": ratio(shoal.seconds, contenders["cp"].seconds),
        "peak_gib": rounded(shoal.median(lambda u: u.resident) / GIB),
        "peak_anonymous_gib": rounded(shoal.median(lambda u: u.anonymous) / GIB),
        "mergekit_peak_gib": rounded(mergekit.median(lambda u: u.resident) / GIB),
        "mergekit_peak_anonymous_gib": rounded(mergekit.median(lambda u: u.anonymous) / GIB),
    }


def ratio(a: list[float], b: list[float]) -> float:
    """Median over the runs."""
    return rounded(statistics.median(x / y for x, y in zip(a, b, strict=True)))


def clean_up(contenders: dict[str, Contender], source: Path) -> None:
    """Delete the outputs, and the checkpoint too if the disk is nearly full."""
    for contender in contenders.values():
        contender.clear()
    if shutil.disk_usage(source).free < KEEP_SOURCE:
        print(f"{source} is deleted: the disk is nearly full", file=sys.stderr)
        shutil.rmtree(source)


def _recipe(removal: Removal, cache: Path) -> Path:
    """The configuration file for mergekit."""
    import yaml

    ranges = ([0, removal.start], [removal.stop, removal.shape.layers])
    slices = [{"sources": [{"model": str(removal.source), "layer_range": part}]} for part in ranges]
    path = cache / "disk-prune-mergekit.yml"
    path.write_text(yaml.safe_dump({"merge_method": "passthrough", "dtype": "bfloat16", "slices": slices}))
    return path


def _copy(removal: Removal, out: Path) -> list[str]:
    """Copy as many bytes as stay, file by file, with `dd`."""
    lines, left = [f"mkdir -p {out}"], removal.kept_bytes
    for file in sorted(removal.source.glob("*.safetensors")):
        count = min(left, file.stat().st_size)
        left -= count
        if count:
            where = f"if={file} of={out / file.name}"
            lines.append(f"dd {where} bs=16M count={count} iflag=count_bytes status=none")
    return ["sh", "-ec", "\n".join(lines)]


if __name__ == "__main__":
    main()
