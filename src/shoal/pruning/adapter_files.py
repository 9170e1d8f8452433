"""PEFT adapters that lie in a checkpoint's folder: their layers go and are renumbered with the model's.

Some speech LLMs come with low-rank weights that the stock class loads beside its own: in the root (Granite Speech) or
in folders of their own (Phi-4-multimodal). Their tensors carry the names of the modules they adapt, and their config
may pick layers and modules by number. What a pattern picks is compared before and after, among the adapter's own
modules; a pattern that cannot follow is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.errors import ModelError
from shoal.models.json_file import read_json_object
from shoal.pruning.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from shoal.pruning.key_names import KeyNames, Layers
from shoal.pruning.safetensors_file import NewFile, Piece, read_header

PREFIX = "base_model.model."
_PART = re.compile(r"\.(lora_|vera_|ia3_|hada_|lokr_|oft_|boft_|modules_to_save|base_layer|original_module)")
"""Where the name of the adapted module ends and that of the adapter's part begins."""

Match = Callable[[str, str], bool]
"""(pattern, module) → whether the pattern picks the module."""


@dataclass(frozen=True)
class NewAdapter:
    """An adapter to write: its weights, and its config under `config_name`, both relative to the new folder."""

    file: NewFile
    config_name: str
    config: dict[str, Any]


def pruned_adapter(root: Path, folder: Path, names: KeyNames, layers: Layers) -> NewAdapter:
    """The adapter in `folder` as it is after pruning.

    Args:
        root: the checkpoint's folder.
        folder: the adapter's: `root`, or a folder in it.
        names: of the model before pruning.
        layers: which of its layers stay.

    Raises:
        ModelError: it adapts a module that cannot be found, or only layers that go, or picks them by a rule that
            cannot follow.
    """
    header = read_header(folder / ADAPTER_WEIGHTS)
    modules = _Modules(folder, names, layers)
    pieces = [
        Piece(new, entry)
        for name, entry in header.tensors.items()
        if (new := modules.renumbered_tensor(name)) is not None
    ]
    if not pieces:
        raise ModelError("every layer it adapts would be removed", where=str(folder), fix="move the adapter away first")
    relative = folder.relative_to(root)
    file = NewFile((relative / ADAPTER_WEIGHTS).as_posix(), header, pieces)
    config = _config(read_json_object(folder / ADAPTER_CONFIG), modules)
    return NewAdapter(file, (relative / ADAPTER_CONFIG).as_posix(), config)


class _Modules:
    """The modules an adapter adapts, under the names it has for them.

    Args:
        folder: the adapter's, for messages.
        names: of the model.
        layers: of its decoder.
    """

    def __init__(self, folder: Path, names: KeyNames, layers: Layers) -> None:
        self.folder, self.layers = folder, layers
        self.new: dict[str, str | None] = {}
        """Module → its name after pruning, None if it goes; filled by `renumbered_tensor`."""
        self._names = names

    def renumbered_tensor(self, name: str) -> str | None:
        """The new name of a tensor; None if it goes."""
        path = name.removeprefix(PREFIX)
        part = _PART.search(path)
        module = path[: part.start()] if part else path.rpartition(".")[0]
        if module not in self.new:
            self.new[module] = self._renumbered(module)
        new = self.new[module]
        start = len(name) - len(path)
        return None if new is None else name[:start] + new + path[len(module) :]

    def _renumbered(self, module: str) -> str | None:
        key = self.resolve(module)
        if key is None:
            raise self.problem(f"adapts {module}, which is not a module of the model")
        new_key = self.layers.moved(key)
        if new_key is None or new_key == key:
            return None if new_key is None else module
        new = self.layers.renamed(module, key, new_key, self.resolve)
        if new is None:
            raise self.problem(f"adapts {module}, whose number cannot be changed")
        return new

    def resolve(self, module: str) -> str | None:
        """The name in the model; an adapter may have been made for the language model alone."""
        decoder = self.layers.path.rpartition(".")[0]
        return self._names.module(module) or self._names.module(f"{decoder}.{module.removeprefix('model.')}")

    def index(self, module: str) -> int | None:
        """The decoder layer a module is in."""
        key = self.resolve(module)
        return None if key is None else self.layers.index(key)

    def followed(self, pattern: str, matches: Match) -> str | None:
        """The pattern that picks after pruning what `pattern` picks before; None if nothing of that is left.

        Raises:
            ModelError: there is none.
        """
        picked = {module for module in self.new if matches(pattern, module)}
        left = {new for module in picked if (new := self.new[module]) is not None}
        if not left and (picked or self._numbered(pattern)):
            return None
        remaining = [new for new in self.new.values() if new is not None]
        for candidate in self._candidates(pattern, picked):
            if {module for module in remaining if matches(candidate, module)} == left:
                return candidate
        raise self.problem(f"picks layers by {pattern!r}, which cannot be renumbered")

    def _candidates(self, pattern: str, picked: Iterable[str]) -> Iterable[str]:
        yield pattern
        indices = {self.index(module) for module in picked}
        for old in sorted(index for index in indices if index in self.layers.keep):
            new = str(self.layers.keep.index(old))
            for match in re.finditer(rf"(?<!\d){old}(?!\d)", pattern):
                yield pattern[: match.start()] + new + pattern[match.end() :]

    def _numbered(self, pattern: str) -> bool:
        return re.search(rf"{re.escape(self.layers.list_name)}\W{{1,3}}\d", pattern) is not None

    def problem(self, text: str) -> ModelError:
        """A refusal that names the adapter."""
        return ModelError(text, where=str(self.folder), fix="merge the adapter, or move it away first")


def _config(config: Mapping[str, Any], modules: _Modules) -> dict[str, Any]:
    new = dict(config)
    if config.get("layer_replication"):
        raise modules.problem("repeats layers (layer_replication)")
    if config.get("layers_to_transform") is not None:
        new["layers_to_transform"] = _layers_to_transform(config["layers_to_transform"], modules)
    for field in ("rank_pattern", "alpha_pattern"):
        if isinstance(config.get(field), dict):
            names = {pattern: modules.followed(pattern, _matches) for pattern in config[field]}
            new[field] = {names[old]: value for old, value in config[field].items() if names[old] is not None}
    for field in ("target_modules", "modules_to_save"):
        if isinstance(config.get(field), list):
            names = {name: modules.followed(name, _ends_with) for name in config[field]}
            new[field] = [name for name in names.values() if name is not None]
        elif isinstance(config.get(field), str):
            new[field] = modules.followed(config[field], _fully_matches)
    return new


def _layers_to_transform(value: Any, modules: _Modules) -> Any:
    listed = [value] if isinstance(value, int) else list(value)
    if any(modules.index(module) is None for module in modules.new):
        raise modules.problem("picks layers by number (layers_to_transform) not only in the decoder")
    keep = modules.layers.keep
    left = [keep.index(layer) for layer in listed if layer in keep]
    return left[0] if isinstance(value, int) else left


def _matches(pattern: str, module: str) -> bool:
    """As `peft.utils.other.get_pattern_key` does it."""
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


def _ends_with(name: str, module: str) -> bool:
    return module == name or module.endswith(f".{name}")


def _fully_matches(pattern: str, module: str) -> bool:
    return re.fullmatch(pattern, module) is not None
