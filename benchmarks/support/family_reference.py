"""What a pruned checkpoint has to be, made by hand, and whether a folder is it. Uses nothing of Shoal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel

from support.family_models import REMOVED, VOCABULARY, Case

TOLERANCE = 1e-5
"""Of the logits, float32: the same kernels on the same weights differ by nothing."""


@dataclass(frozen=True)
class Reference:
    """The pruned model in memory.

    Args:
        ids: token ids (B, T), no padding.
        logits: of the pruned model, (B, T, V).
        influence: of the layers of the full model, 1 - mean cosine of a layer's input and output.
        config: of the pruned model.
        depth: its number of decoder layers.
    """

    ids: Tensor
    logits: Tensor
    influence: list[float]
    config: PreTrainedConfig
    depth: int


@dataclass(frozen=True)
class Check:
    """What the stock class makes of a folder. `keys` names the kinds of key problems that it reports."""

    weights: bool = False
    loads: bool = False
    error: str = ""
    keys: dict[str, int] = field(default_factory=dict)
    depth: int | None = None
    difference: float | None = None

    @property
    def equal(self) -> bool:
        """Whether the folder is the reference: no key problem, and the same logits."""
        return self.loads and not self.keys and self.difference is not None and self.difference <= TOLERANCE

    def __str__(self) -> str:
        if not self.weights:
            return "no weights"
        if not self.loads:
            return f"does not load ({self.error})"
        keys = ", ".join(f"{count} keys {kind}" for kind, count in self.keys.items()) or "all keys"
        return f"loads, {keys}, depth {self.depth}, logits differ by {self.difference:.1e}"


def reference(case: Case, source: Path) -> Reference:
    """Delete the layers from the list by hand: list, `layer_idx`, depth and `layer_types`."""
    model = load(case, source)
    layers = model.get_submodule(case.layers)
    ids = torch.randint(10, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(1))
    influence = layer_influence(model, layers, ids)
    kept = [layer for number, layer in enumerate(layers) if number not in REMOVED]
    owner, _, name = case.layers.rpartition(".")
    setattr(model.get_submodule(owner), name, nn.ModuleList(kept))
    for number, layer in enumerate(kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    config = model.config.get_text_config()
    if getattr(config, "layer_types", None):
        config.layer_types = [kind for n, kind in enumerate(config.layer_types) if n not in REMOVED]
    config.num_hidden_layers = len(kept)
    return Reference(ids, logits(model, ids), influence, model.config, len(kept))


def layer_influence(model: PreTrainedModel, layers: nn.Module, ids: Tensor) -> list[float]:
    """1 - mean cosine of what goes in and comes out, for each of `layers`."""
    seen: list[tuple[Tensor, Tensor]] = []

    def note(_: nn.Module, taken: tuple[Any, ...], given: Any) -> None:
        seen.append((taken[0], given if isinstance(given, Tensor) else given[0]))

    handles = [layer.register_forward_hook(note) for layer in layers.children()]
    logits(model, ids)
    for handle in handles:
        handle.remove()
    return [1 - float(functional.cosine_similarity(a.double(), b.double(), dim=-1).mean()) for a, b in seen]


def check(case: Case, folder: Path, expected: Reference) -> Check:
    """Load `folder` with the stock class and compare."""
    if not has_weights(folder):
        return Check()
    if not (folder / "config.json").is_file():
        # from_pretrained of a class would take its default config, at full size.
        return Check(weights=True, error="no config.json")
    try:
        model, info = stock_class(case).from_pretrained(
            folder, output_loading_info=True, dtype=torch.float32, local_files_only=True
        )
    except Exception as error:
        return Check(weights=True, error=last_line(str(error)) or type(error).__name__)
    kinds = {
        "missing_keys": "newly initialised",
        "unexpected_keys": "ignored",
        "mismatched_keys": "misshapen",
    }
    keys = {word: len(info[kind]) for kind, word in kinds.items() if info.get(kind)}
    depth = len(list(model.get_submodule(case.layers).children()))
    difference = float((logits(model.eval(), expected.ids) - expected.logits).abs().max())
    return Check(weights=True, loads=True, keys=keys, depth=depth, difference=difference)


def check_repaired(case: Case, folder: Path, expected: Reference) -> Check:
    """The same after a user has put the right config in by hand, which lies beside the folder afterwards."""
    repaired = folder.with_name(f"{folder.name}-repaired")
    shutil.rmtree(repaired, ignore_errors=True)
    if not has_weights(folder):
        return Check()
    shutil.copytree(folder, repaired)
    expected.config.save_pretrained(repaired)
    return check(case, repaired, expected)


def load(case: Case, folder: Path) -> PreTrainedModel:
    """The checkpoint with its stock class, float32."""
    model: PreTrainedModel = stock_class(case).from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def stock_class(case: Case) -> Any:
    """The class in transformers."""
    return getattr(transformers, case.class_name)


@torch.no_grad()
def logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """(B, T, V) without a cache."""
    return model(input_ids=ids, use_cache=False).logits


def has_weights(folder: Path) -> bool:
    """Whether there is at least one tensor in the folder."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return any(_tensors(file) for file in files)


def last_line(text: str | Sequence[str]) -> str:
    """What a program said last."""
    lines = text.strip().splitlines() if isinstance(text, str) else list(text)
    return lines[-1].strip() if lines else ""


def _tensors(file: Path) -> int:
    with safe_open(file, "pt") as tensors:
        return len(list(tensors.keys()))
