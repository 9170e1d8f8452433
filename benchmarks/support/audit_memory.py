"""Does an audit of many clips need more memory than one of few?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from shoal.data import Row
from shoal.data.batches import batches
from shoal.models.loading import LoadedModel
from support.interleave import Figures, rounded
from support.peak_memory import peak_of

FEW = 10


def measure_memory(model: LoadedModel, rows: Sequence[Row], batch_size: int) -> Figures:
    """Peak of an audit of all `rows` over that of `FEW` of them, each in a fresh process."""
    few = largest_batch_and_a_few(model, rows, batch_size)
    with tempfile.TemporaryDirectory() as folder:
        small, large = (
            peak_of(model.ref, write_manifest(Path(folder) / name, part), batch_size)
            for name, part in (("few.jsonl", few), ("many.jsonl", rows))
        )
    print(f"\n{'peak memory, MiB':<36} {len(few):>3} clips  {len(rows):>3} clips   ratio")
    figures = {"memory_growth": _print_peaks("whole process", small["peak"], large["peak"])}
    if small["above_model"]:
        figures["memory_growth_above_model"] = _print_peaks(
            "above the loaded model", small["above_model"], large["above_model"]
        )
    return figures


def _print_peaks(name: str, small: int, large: int) -> float:
    growth = rounded(large / small)
    print(f"{name:<36} {small / 1024:>9.0f}  {large / 1024:>9.0f}   {growth:.3f}")
    return growth


def largest_batch_and_a_few(model: LoadedModel, rows: Sequence[Row], batch_size: int) -> list[Row]:
    """`FEW` rows: the batch with the most padded positions, and the shortest clips."""
    groups = batches(rows, max_clips=batch_size, max_seconds=float("inf"))

    def padded(group: Sequence[Row]) -> int:
        return len(group) * max(len(model.tokenizer(row.text)["input_ids"]) for row in group)

    largest = max(groups[:-1] or groups, key=padded)
    rest = [row for group in groups for row in group if row not in largest]
    return [*largest, *rest[::-1]][:FEW]


def write_manifest(path: Path, rows: Sequence[Row]) -> Path:
    """The rows as a manifest of their own."""
    lines = [json.dumps({**row.fields, "audio_filepath": str(row.audio.absolute())}) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path
