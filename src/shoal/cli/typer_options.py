"""Options that several commands share, so that they are spelled and explained once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from shoal.errors import UsageError
from shoal.progress import Progress

if TYPE_CHECKING:
    from shoal.data import Dataset

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a Hugging Face Hub id or pkg:NAME.")]
Data = Annotated[
    list[str],
    typer.Option(
        "--data", metavar="MANIFEST", help="NeMo JSONL, folder of audio + .txt, or hf:NAME. Repeatable."
    ),
]
TaskName = Annotated[
    str,
    typer.Option(
        "--task", help="What is asked: asr, ast, ser, sqa, lm, tts, or a YAML file (docs/tasks.md)."
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Use this many clips, evenly spaced.")]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="FIELD=VALUE", help="Keep rows whose field has this value. Repeatable."),
]
Lang = Annotated[
    str | None,
    typer.Option("--lang", help="Language of rows that name none (en, de …): it picks the normaliser."),
]
MaxBad = Annotated[
    float, typer.Option("--max-bad", min=0, help="Bad rows tolerated: a share below 1, or a number of rows.")
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda:0 …")]
Dtype = Annotated[
    str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16; auto is float32 on the CPU.")
]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON on stdout.")]
Seed = Annotated[int, typer.Option("--seed", help="Of every random draw.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that the model brings along.")
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Clips a forward pass.")]


def parse_batch_size(text: str | int) -> int | Literal["auto"]:
    """`"16"` → 16; `"auto"` as it is.

    Raises:
        UsageError: neither.
    """
    if text == "auto":
        return "auto"
    if not str(text).isdecimal() or int(text) < 1:
        raise UsageError(
            f"{text!r} is not a batch size", where="--batch-size", fix="give a number above 0, or auto"
        )
    return int(text)


DecodeBatchSize = Annotated[
    Any,
    typer.Option(
        "--batch-size",
        metavar="N|auto",
        parser=parse_batch_size,
        help="Clips decoded at once; auto: as many as memory allows.",
    ),
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option("--max-new-tokens", min=1, help="Most tokens a clip; default follows its length."),
]
Replicates = Annotated[int, typer.Option("--replicates", min=10, help="Bootstrap replicates.")]
Cluster = Annotated[str, typer.Option("--cluster", help="Resample by utterance or by speaker.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="PATH", help="Where to write.")]


def read_data(
    sources: Sequence[str] | None,
    *,
    task: str,
    limit: int | None,
    where: Sequence[str] | None,
    lang: str | None,
    max_bad: float,
    seed: int,
    progress: Progress | None = None,
) -> Dataset:
    """The data set that a command's options name; see `shoal.read_manifests`."""
    import shoal
    from shoal import tasks

    return shoal.read_manifests(
        list(sources or ()),
        limit=limit,
        where=parse_where(where),
        needs_text=tasks.get(task).needs_text,
        lang=lang,
        max_bad=max_bad,
        seed=seed,
        progress=progress,
    )


def parse_where(pairs: Sequence[str] | None) -> Mapping[str, str]:
    """`["split=test"]` → `{"split": "test"}`.

    Raises:
        UsageError: a pair without `=`, or a field twice.
    """
    found: dict[str, str] = {}
    for pair in pairs or ():
        field, equals, value = pair.partition("=")
        if not equals or not field or field in found:
            raise UsageError(
                f"{pair!r} is not FIELD=VALUE, or the field stands twice",
                where="--where",
                fix="write --where split=test",
            )
        found[field] = value
    return found


def parse_cluster(name: str) -> Literal["utterance", "speaker"]:
    """What the bootstrap resamples.

    Raises:
        UsageError: neither of the two.
    """
    if name not in ("utterance", "speaker"):
        raise UsageError(f"unknown cluster {name!r}", where="--cluster", fix="use utterance or speaker")
    return cast("Literal['utterance', 'speaker']", name)


def parse_share(text: str, flag: str) -> float:
    """`"25%"` or `"0.25"` → 0.25.

    Raises:
        UsageError: not a non-negative number or percentage.
    """
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"{text!r} is not a share", where=flag, fix="write 25% or 0.25")
    return value
