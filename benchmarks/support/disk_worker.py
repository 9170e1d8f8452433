"""Prune a checkpoint folder with Shoal, in a process of its own.

python disk_worker.py SOURCE DEPTH START STOP OUT       # removes layers START … STOP-1 of DEPTH
"""

from __future__ import annotations

import sys
from pathlib import Path

from shoal.provenance import provenance
from shoal.pruning.sharded import write_sharded
from shoal.schema import Plan


def main() -> None:
    """Do what the command line says."""
    source, depth, start, stop, out = sys.argv[1:]
    layers = list(range(int(start), int(stop)))
    plan = Plan(provenance=provenance(), model_ref=source, depth=int(depth), layers=layers)
    write_sharded(Path(source), plan, Path(out), ref=source, force=True)


if __name__ == "__main__":
    main()
