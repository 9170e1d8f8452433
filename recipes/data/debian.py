"""Debian packages without installing them: fetched, checked, unpacked into the cache.

`apt-get download` where there is apt, else the pool of deb.debian.org. The versions of Debian 12 are pinned by
their SHA-256; from the pool nothing else is taken, and where apt gives another version it is said.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import say

from shoal.errors import InputError
from shoal.models.weights_cache import root

_POOL = "https://deb.debian.org/debian/pool/main"
_SOUNDS = "a/asterisk-core-sounds/asterisk-core-sounds"


@dataclass(frozen=True, slots=True)
class Package:
    """A pinned .deb of Debian 12 (amd64, or all)."""

    pool: str
    """Path below pool/main."""
    sha256: str

    @property
    def filename(self) -> str:
        """Of the .deb."""
        return self.pool.rsplit("/", 1)[1]


PACKAGES = {
    package.filename.split("_")[0]: package
    for package in (
        Package(
            "f/flite/flite_2.2-5_amd64.deb",
            "f4ce03470bf9974c2cb9cacd981e6be29339ef4c97cf994dd6fa3f90e6544db9",
        ),
        Package(
            "f/flite/libflite1_2.2-5_amd64.deb",
            "bfa8c591f1b47730b30b372ec38e02918a1c9795eada67684e1746390ad2f061",
        ),
        Package(
            "a/alsa-lib/libasound2_1.2.8-1+b1_amd64.deb",
            "44c77b076a7b11ae99712439022d822245b1994c435da564ebd320bb676faf4c",
        ),
        Package(
            "e/espeak-ng/espeak-ng_1.51+dfsg-10+deb12u2_amd64.deb",
            "a11396a690f85f55e6e6b2965505237ddf3dc95c51936aa61de936f1ccf8f4d0",
        ),
        Package(
            "e/espeak-ng/libespeak-ng1_1.51+dfsg-10+deb12u2_amd64.deb",
            "2b127a95b50d92cbd7a615968d2ac1566e1cbc87e27bcda0c2894afb2407c6d2",
        ),
        Package(
            "e/espeak-ng/espeak-ng-data_1.51+dfsg-10+deb12u2_amd64.deb",
            "573f5661c6a5adcf949018baad158c4c773bf5579390ee5235a890f1cd694106",
        ),
        Package(
            "p/pcaudiolib/libpcaudio0_1.2-2_amd64.deb",
            "5309759e4d129c7d9a601240cc6e62820ecfa86a1a98e207992ffa6a572dbcd2",
        ),
        Package(
            "s/sonic/libsonic0_0.2.0-12_amd64.deb",
            "9d60de6918ace0b10e3e4e95421befd08aaf03b5b2a3d71ceb799e0cf259916f",
        ),
        Package(
            "w/wordnet/wordnet-base_3.0-37_all.deb",
            "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
        ),
        Package(
            f"{_SOUNDS}-en-wav_1.6.1-1_all.deb",
            "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
        ),
        Package(
            f"{_SOUNDS}-en_1.6.1-1_all.deb",
            "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
        ),
        Package(
            f"{_SOUNDS}-es-wav_1.6.1-1_all.deb",
            "9283a09a6d56fccdcc2bcfe86c48f0f844289cfbd46a3184d8785a6f7f569903",
        ),
        Package(
            f"{_SOUNDS}-es_1.6.1-1_all.deb",
            "9afdab7f559f036649fb406e625899306ca1004df8ebe39c30bfbd5912d66f74",
        ),
        Package(
            f"{_SOUNDS}-fr-wav_1.6.1-1_all.deb",
            "8d4e1bc32ed5ba7fbda40841ca1825ed20cc6232724a473c90f8bb0e53e6073e",
        ),
        Package(
            f"{_SOUNDS}-fr_1.6.1-1_all.deb",
            "04c82c78c570c43a7136cbc5e2488d0c470b775468dff9fbce4a131b18cf1056",
        ),
        Package(
            f"{_SOUNDS}-it-wav_1.6.1-1_all.deb",
            "5a26638089e134b8ac39363fe249c5c93c50cd8bfdc9b2499ae61ec4a35e2fcb",
        ),
        Package(
            f"{_SOUNDS}-it_1.6.1-1_all.deb",
            "3884d9457e12f21caa018c18f0d587df5d53ebea14b673d8453a134c5941ab3b",
        ),
        Package(
            f"{_SOUNDS}-ru-wav_1.6.1-1_all.deb",
            "ccbfaebfa450b7a9ddf644ae0f3d1e9017d5df7c0aebe816e946345589d38201",
        ),
        Package(
            f"{_SOUNDS}-ru_1.6.1-1_all.deb",
            "28a61616bb0cd3345a7ea532dec4df9f071e5d0fa9f8c1a563ea9669002f39ab",
        ),
        Package(
            "t/tuxpaint-stamps/tuxpaint-stamps-default_2022.06.04-1_all.deb",
            "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        ),
    )
}
"""By name."""


def unpacked(name: str) -> Path:
    """The folder that holds the package's files; fetched the first time.

    Raises:
        InputError: it cannot be fetched or unpacked, or is not what was pinned.
    """
    folder = root() / "debian" / PACKAGES[name].filename.removesuffix(".deb")
    if folder.is_dir():
        return folder
    if shutil.which("dpkg-deb") is None:
        raise InputError("dpkg-deb is not there", where=name, fix="install dpkg (Debian, Fedora, Homebrew have it)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as scratch:
        deb = _fetch(name, Path(scratch))
        files = Path(scratch) / "files"
        _run(["dpkg-deb", "-x", str(deb), str(files)], name)
        if not folder.is_dir():
            files.rename(folder)
    return folder


def environment(folders: Sequence[Path]) -> dict[str, str]:
    """This process's environment, with the libraries and voices of these unpacked packages."""
    libraries = [str(path) for folder in folders for path in sorted(folder.glob("usr/lib/*-linux-*"))]
    found = {**os.environ, "LD_LIBRARY_PATH": ":".join([*libraries, os.environ.get("LD_LIBRARY_PATH", "")])}
    data = [str(path) for folder in folders for path in folder.glob("usr/lib/*/espeak-ng-data")]
    return found | {"ESPEAK_DATA_PATH": data[0]} if data else found


def _fetch(name: str, scratch: Path) -> Path:
    say(f"fetching {name}")
    if shutil.which("apt-get"):
        scratch.chmod(0o755)  # apt may drop its rights to read
        done = subprocess.run(["apt-get", "download", "-q", name], cwd=scratch, capture_output=True, text=True)
        found = list(scratch.glob("*.deb"))
        if done.returncode == 0 and found:
            if _sha256(found[0]) != PACKAGES[name].sha256:
                say(f"{name}: apt gives {found[0].name}, not the pinned {PACKAGES[name].filename}")
            return found[0]
    return _from_pool(name, scratch)


def _from_pool(name: str, scratch: Path) -> Path:
    package = PACKAGES[name]
    url = f"{_POOL}/{package.pool.replace('+', '%2B')}"
    deb = scratch / package.filename
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, deb.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except (urllib.error.URLError, OSError) as error:
        raise InputError(
            f"cannot be fetched ({getattr(error, 'reason', error)})",
            where=url,
            fix=f"apt-get update, or install {name}",
        ) from None
    if _sha256(deb) != package.sha256:
        raise InputError("is not the file that was pinned", where=url, fix="try again, or use apt")
    return deb


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(command: Sequence[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{command[0]} failed ({done.stderr.strip()})", where=name)
