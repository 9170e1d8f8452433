"""speechocean762: English sentences read by Mandarin native speakers; its own test split stays one."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from common import RATE, Clip, as_clip, held_out, make, read_audio, say, test_texts, texts_of, without_leaks

from shoal.errors import InputError
from shoal.models.weights_cache import root

URL = "https://github.com/jimbozhang/speechocean762"
_SHARE = 0.05
NOTICE = """
speechocean762 (https://www.openslr.org/101, https://github.com/jimbozhang/speechocean762), Junbo Zhang et al., 2021,
CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/). Changes: peak set to 0.7, text in lower case.
"""


def table(lines: Iterable[str]) -> dict[str, str]:
    """A Kaldi file: first word → the rest."""
    parts = (line.strip().split(maxsplit=1) for line in lines)
    return {first: rest[0] for first, *rest in (part for part in parts if part) if rest}


def split_of(part: str, speaker: str, seed: int) -> str:
    """`test` for the test part; of the others, a twentieth of the speakers is for validation."""
    if part == "test":
        return "test"
    return "validation" if held_out(speaker, _SHARE, seed) else "train"


def clips(source: Path, seed: int) -> list[Clip]:
    """Every utterance of both parts.

    Raises:
        InputError: `source` is not a copy of the repository.
    """
    found = []
    for part in ("train", "test"):
        texts, sounds, speakers = (_read(source / part / name) for name in ("text", "wav.scp", "utt2spk"))
        for name in sorted(texts.keys() & sounds.keys() & speakers.keys()):
            row = {"lang": "en", "speaker": f"so{speakers[name]}", "task": "asr", "text": texts[name].lower()}
            row["split"] = split_of(part, speakers[name], seed)
            found.append(Clip(f"audio/{name}.flac", source / sounds[name], row))
    return found


def resampled(path: Path) -> Any:
    """A sound file as a clip."""
    return as_clip(read_audio(path)), RATE


def run(out: Path, source: Path | None, seed: int, exclude: Sequence[Path], workers: int) -> None:
    """Make the data set, from a copy of the repository or from a fresh one in the cache."""
    wanted = clips(source or _cloned(), seed)
    own = {text for clip in wanted if clip.fields["split"] == "test" for text in texts_of(clip.fields)}
    forbidden = own | test_texts(exclude)
    make(out, without_leaks(wanted, forbidden), resampled, workers=workers, notice=NOTICE)


def _read(path: Path) -> dict[str, str]:
    try:
        return table(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        raise InputError("no such file", where=str(path), fix=f"--source must be a copy of {URL}") from None


def _cloned() -> Path:
    folder = root() / "data" / "speechocean762"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    say(f"cloning {URL} (700 MB)")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as scratch:
        target = Path(scratch) / "repository"
        command = ["git", "clone", "--quiet", "--depth", "1", URL, str(target)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=os.environ | {"GIT_TERMINAL_PROMPT": "0"}
            )
            reason = done.stderr if done.returncode else ""
        except OSError as error:
            reason = str(error)
        if reason:
            raise InputError(
                f"cannot be cloned ({reason.strip()})",
                where=URL,
                fix="clone it elsewhere and give --source FOLDER",
            )
        target.rename(folder)
    return folder
