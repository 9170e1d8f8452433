"""Make the training data of the reference model: `python recipes/data/make.py NAME --out DIR`.

Each data set is a folder with `manifest.jsonl` (NeMo JSONL), `audio/` (16 kHz mono FLAC) and `LICENCE.txt`. The same
command again makes only what is missing. The same seed gives the same data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import asterisk as asterisk_prompts
import digits as spoken_digits
import sentences as read_sentences
import speechocean as speechocean762
import tuxpaint as tuxpaint_stamps
import typer
from common import say

from shoal.errors import InputError

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Out = Annotated[Path, typer.Option(help="Folder of the data set.")]
Seed = Annotated[int, typer.Option(help="Decides every draw.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes.")]
Exclude = Annotated[
    list[Path] | None,
    typer.Option(help="Manifest: what its test rows say is in no training split. Can be given several times."),
]


@app.command()
def digits(
    out: Out,
    clips: Annotated[int, typer.Option(min=1, help="Clips of the training split.")] = 2400,
    test: Annotated[int, typer.Option(min=0, help="Unseen sequences, voices of training.")] = 150,
    test_voice: Annotated[int, typer.Option(min=0, help="Unseen sequences, a voice that training never hears.")] = 150,
    seed: Seed = 0,
    workers: Workers = 2,
) -> None:
    """Spoken digit sequences (flite, espeak-ng)."""
    spoken_digits.run(out, clips, test, test_voice, seed, workers)


@app.command()
def sentences(
    out: Out,
    clips: Annotated[int, typer.Option(min=1, help="All clips; a twentieth is for validation.")] = 30_000,
    seed: Seed = 0,
    exclude: Exclude = None,
    piper: Annotated[Path | None, typer.Option(help="A Piper voice (NAME.onnx) for three of ten clips.")] = None,
    workers: Workers = 2,
) -> None:
    """WordNet's example sentences and glosses (flite, espeak-ng, Piper if given)."""
    read_sentences.run(out, clips, seed, exclude or (), piper, workers)


@app.command()
def asterisk(out: Out, seed: Seed = 0, exclude: Exclude = None, workers: Workers = 2) -> None:
    """Asterisk's telephone prompts: English ASR; Spanish, French, Italian, Russian → English."""
    asterisk_prompts.run(out, seed, exclude or (), workers)


@app.command()
def tuxpaint(out: Out, seed: Seed = 0, exclude: Exclude = None, workers: Workers = 2) -> None:
    """Tux Paint's spoken stamp descriptions: a dozen languages → English."""
    tuxpaint_stamps.run(out, seed, exclude or (), workers)


@app.command()
def speechocean(
    out: Out,
    source: Annotated[Path | None, typer.Option(help="A copy of the repository; default is to clone it.")] = None,
    seed: Seed = 0,
    exclude: Exclude = None,
    workers: Workers = 2,
) -> None:
    """speechocean762: English read by Mandarin native speakers."""
    speechocean762.run(out, source, seed, exclude or (), workers)


def main() -> None:
    """Run; bad input is one line and exit code 2."""
    try:
        app()
    except InputError as error:
        say(f"error: {error}")
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
