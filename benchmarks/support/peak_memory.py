"""Peak memory of an audit, in a process of its own.

    python peak_memory.py MODEL MANIFEST BATCH_SIZE

Prints one JSON line: the peak of the whole process, and the peak after the model was loaded less what was in
use then, which a model larger than everything else cannot hide (Linux only; null elsewhere).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from shoal import audit, load, read_manifests
from shoal.schema import InputKind

TEXT: tuple[InputKind, ...] = ("text",)


def peak_of(model: str, manifest: Path, batch_size: int) -> dict[str, Any]:
    """Run this file and read its line.

    Raises:
        subprocess.CalledProcessError: the audit failed.
    """
    command = [sys.executable, __file__, model, str(manifest), str(batch_size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Audit the text input, intervals included, and say what it took (KiB)."""
    model, manifest, batch_size = sys.argv[1:4]
    data = read_manifests([manifest])
    loaded = load(model, dtype="float32")
    loading, before = peak(), _reset_peak()
    with tempfile.TemporaryDirectory() as out:
        audit(loaded, data, "asr", inputs=TEXT, out=out, batch_size=int(batch_size))
    above = None if before is None else peak() - before
    print(json.dumps({"peak": max(loading, peak()), "above_model": above}))


def peak() -> int:
    """Peak resident memory of this process since it started, or since `_reset_peak`, in KiB.

    On Linux `ru_maxrss` will not do: it begins with what the parent held when it started this process.
    """
    found = _status("VmHWM")
    if found is not None:
        return found
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def _reset_peak() -> int | None:
    """Start the peak afresh; what is in use now, or None where that can't be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


if __name__ == "__main__":
    main()
