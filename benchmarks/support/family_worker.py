"""optipfair on one checkpoint; runs in optipfair's own environment and imports nothing of Shoal.

    python family_worker.py whole|inner CLASS SOURCE OUT      # prune and save
    python family_worker.py importance|importance-at CLASS SOURCE IDS.json LAYERS

`whole` hands over the model, as its documentation does; `inner` the language model inside; `importance-at`
names the layers with `layers_path`. Importance prints one JSON line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers

REMOVED = [2, 3]


def main() -> None:
    """Do what the command line says; an error ends the process as it would a user's script."""
    what, name, source, target, *rest = sys.argv[1:]
    model = getattr(transformers, name).from_pretrained(source, dtype=torch.float32).eval()
    if what.startswith("importance"):
        print(json.dumps(importance(model, Path(target), rest[0] if what == "importance-at" else None)))
        return
    prune(model if what == "whole" else model.get_decoder())
    model.save_pretrained(target)


def prune(model: torch.nn.Module) -> None:
    """Remove the layers in place."""
    import optipfair

    optipfair.prune_model(model, pruning_type="DEPTH", layer_indices=REMOVED, show_progress=False)


def importance(model: torch.nn.Module, ids_file: Path, layers: str | None) -> list[float]:
    """Of every layer it finds, in their order."""
    from optipfair import analyze_layer_importance

    ids = torch.tensor(json.loads(ids_file.read_text()))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    scores = analyze_layer_importance(model, [batch], layers_path=layers, show_progress=False)
    return [float(scores[layer]) for layer in sorted(scores)]


if __name__ == "__main__":
    main()
