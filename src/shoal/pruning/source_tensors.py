"""What becomes of every tensor in the files of a checkpoint, and of those that its stock class does not load.

Checkpoints may hold more than their class uses: a head that predicts several tokens ahead (`mtp.…`), which servers
load, or a vision tower beside a class for text. Loading passes these over, so a model that is saved from memory lost
them, while its config still promised them. Here they are carried over. Layers of such a head that follow the decoder's
by number (`model.layers.61.…` of a decoder of 61) cannot be: stock classes know them by that very number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.errors import ModelError
from shoal.models.json_file import read_json_object
from shoal.models.meta_model import CONFIG
from shoal.pruning.key_names import KeyNames, Layers, ModelTensor
from shoal.pruning.safetensors_file import SafetensorsHeader
from shoal.pruning.shards import Shards, has_weights, read_shards
from shoal.schema.verification import REPORT_FILE, VerificationReport

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from shoal.models.families.base import Family
    from shoal.schema import Plan

_AHEAD = re.compile(r"mtp|nextn")
"""In names of tensors and config fields of multi-token prediction (DeepSeek-V3, arXiv 2412.19437, section 2.2)."""
_COUNT = re.compile(r"^(?=.*num)(?=.*(mtp|nextn))(?=.*(layer|module))")
"""Config fields that say how many layers such a head has: `mtp_num_hidden_layers`, `num_nextn_predict_layers`."""


@dataclass(frozen=True)
class SourceTensors:
    """What becomes of the tensors in a checkpoint's files."""

    files: Sequence[SafetensorsHeader]
    loaded: int
    """How many the class loads and keeps."""
    removed: int
    """How many go with their layers."""
    kept: Mapping[str, str]
    """Not loaded, and kept: name → name after pruning."""
    dropped: Sequence[str]
    """Not loaded, and left out."""
    predicts_ahead: bool
    """Whether anything that stays belongs to a head for multi-token prediction."""
    promised: bool
    """Whether the config says that there is such a head."""

    def tensors(self) -> dict[str, Tensor]:
        """Those that are kept without being loaded, under their new names."""
        from safetensors import safe_open

        tensors: dict[str, Tensor] = {}
        for file in self.files:
            with safe_open(file.path, "pt") as values:
                tensors |= {self.kept[name]: values.get_tensor(name) for name in file.tensors if name in self.kept}
        return tensors

    def check_written(self, folder: Path) -> None:
        """Make sure that `folder` has what is kept, as it was.

        Raises:
            ModelError: saving gave a tensor another name or shape.
        """
        if not self.kept:
            return
        sources = {name: entry for file in self.files for name, entry in file.tensors.items()}
        written = dict(read_shards(folder).tensors())
        for name, new in self.kept.items():
            entry = written.get(new)
            if entry is None or (entry.dtype, entry.shape) != (sources[name].dtype, sources[name].shape):
                raise ModelError(
                    f"saving changes {name}, which its class does not load",
                    where=str(self.files[0].path.parent),
                    fix="prune it on disk, with --how disk",
                )

    def config(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """A config that promises no layers of multi-token prediction where there are none."""
        if self.predicts_ahead:
            return dict(raw)
        counts = _promised(raw)
        nested = {name: self.config(value) for name, value in raw.items() if isinstance(value, dict)}
        return {**raw, **nested, **dict.fromkeys(counts, 0)}

    def add_to(self, report: VerificationReport, folder: Path) -> None:
        """Say in the verification report of `folder` what became of all tensors."""
        total = sum(len(file.tensors) for file in self.files)
        parts = [f"{self.loaded} of {total} kept", f"{self.removed} removed with their layers"]
        if self.kept:
            parts.append(f"{len(self.kept)} kept that the class does not load, such as {min(self.kept)}")
        if self.dropped:
            parts.append(f"{len(self.dropped)} left out that follow the last layer, such as {min(self.dropped)}")
        if self.promised and not self.predicts_ahead:
            parts.append("none for multi-token prediction, which the config promises no longer")
        report.source_tensors = ", ".join(parts)
        report.save(folder / REPORT_FILE)


def _promised(raw: Mapping[str, Any]) -> dict[str, int]:
    """The fields of a config that promise layers of multi-token prediction."""
    return {name: value for name, value in raw.items() if _COUNT.search(name) and isinstance(value, int) and value}


def source_tensors(
    shards: Shards, targets: Mapping[str, ModelTensor], names: KeyNames, layers: Layers
) -> SourceTensors:
    """Decide what becomes of every tensor.

    Args:
        shards: the weights, with their config beside them.
        targets: name on disk → what it is in the model; of each tensor.
        names: of the model before pruning; or after it, where only what the class does not load is of interest.
        layers: which layers stay.
    """
    raw = read_json_object(shards.folder / CONFIG)
    configs = [raw, *(value for value in raw.values() if isinstance(value, dict))]
    promised = max((count for config in configs for count in _promised(config).values()), default=0)
    end = layers.depth + promised
    numbered = re.compile(rf"(^|\.){re.escape(layers.path)}\.(\d+)\.")

    def follows(key: str) -> bool:
        match = numbered.search(key)
        return match is not None and layers.depth <= int(match[2]) < end

    ignored = {name: target.key for name, target in targets.items() if target.kind == "ignored"}
    pruned = len(layers.keep) < layers.depth
    dropped = [name for name, key in ignored.items() if pruned and follows(key)]
    new_names = {name: names.renumbered(name, layers) for name in ignored if name not in dropped}
    kept = {name: new for name, new in new_names.items() if new is not None}
    used = [target.key for target in targets.values() if target.kind not in ("ignored", "unknown")]
    gone = sum(layers.moved(key) is None for key in used) + len(new_names) - len(kept)
    stays = [*names.state, *(key for name, key in ignored.items() if name in kept)]
    ahead = any(_AHEAD.search(key) or follows(key) for key in stays)
    loaded = len(targets) - gone - len(kept) - len(dropped)
    return SourceTensors(shards.files, loaded, gone, kept, dropped, ahead, promised > 0)


def check_known(folder: Path, targets: Mapping[str, ModelTensor]) -> None:
    """Make sure that every tensor in the files is one of the model's, or one that its class says it ignores.

    Raises:
        ModelError: one is not; it would be lost without a word.
    """
    unknown = [name for name, target in targets.items() if target.kind == "unknown"]
    if unknown:
        raise ModelError(
            f"{len(unknown)} of its tensors are not of its model, such as {unknown[0]}",
            where=str(folder),
            fix="check that config.json (architectures, depth) and the weights belong together",
        )


def tensors_of_folder(
    folder: Path | None, model: PreTrainedModel, family: Family, plan: Plan | None, *, pruned: bool = False
) -> SourceTensors | None:
    """What becomes of every tensor of the weights in `folder`; None if there are none (adapters, say).

    Args:
        folder: where `model` was loaded from.
        model: in memory.
        family: its family.
        plan: what is removed from what lies in the folder.
        pruned: the plan was carried out on `model` already.

    Raises:
        PlanError: the plan does not fit the model.
        ModelError: a file is damaged, or holds tensors that are not the model's.
    """
    if folder is None or not has_weights(folder) or not (folder / CONFIG).is_file():
        return None
    depth = plan.depth if plan is not None else family.depth(model)
    keep = range(depth) if plan is None else plan.keep
    shards, names = read_shards(folder), KeyNames(model)
    targets = names.targets(name for name, _ in shards.tensors())
    if not pruned:
        check_known(folder, targets)
    return source_tensors(shards, targets, names, Layers(family.layers_path(model), tuple(keep), depth))
