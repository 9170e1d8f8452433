"""What the tensors of a checkpoint are called on disk, and what they become in the model.

A checkpoint may use the names of today's classes or older ones; transformers renames them while it loads. Here the
same rules, in the same order, say to which layer a tensor on disk belongs. Then only the number of the layer in the
disk's own name is changed, and the rules must turn the result into the name that the layer has after pruning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from shoal.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ALWAYS_IGNORED = {"rotary_emb.inv_freq": r"rotary_emb\.inv_freq", "position_ids": r"(^|\.)position_ids$"}
"""End of a buffer's name → names on disk that transformers ignores if the model has such a buffer."""


@dataclass(frozen=True, slots=True)
class ModelTensor:
    """What a tensor on disk is in the model.

    `plain`: one entry of the state dict. `converted`: a share in some, such as one expert of a layer. `part`: belongs
    to a quantised module, under a name that only its quantiser knows. `ignored`: not used by transformers.
    `unknown`: nothing.
    """

    key: str
    kind: Literal["plain", "converted", "part", "ignored", "unknown"]
    makes: frozenset[str] = frozenset()
    """Entries of the state dict that it gives a value, or helps to."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Where the decoder's layers are among the names of a model, and which of them stay."""

    path: str
    """Such as `model.language_model.layers`."""
    keep: tuple[int, ...]
    """Indices before pruning, ascending."""
    depth: int

    def index(self, key: str) -> int | None:
        """The layer that a name of the model belongs to; None if to none that the decoder has."""
        match = re.match(re.escape(self.path) + r"\.(\d+)(?=\.|$)", key)
        index = int(match[1]) if match else self.depth
        return index if index < self.depth else None

    def moved(self, key: str) -> str | None:
        """A name of the model as it is after pruning; None if it goes."""
        if (old := self.index(key)) is None:
            return key
        if old not in self.keep:
            return None
        prefix = f"{self.path}.{old}"
        return f"{self.path}.{self.keep.index(old)}{key[len(prefix) :]}"

    def renamed(self, name: str, key: str, new_key: str, resolve: Callable[[str], str | None]) -> str | None:
        """Change the number of the layer in `name`, and nothing else.

        Args:
            name: a name on disk.
            key: what it is in the model: `resolve(name)`, in a layer.
            new_key: what the new name has to be in the model.
            resolve: a name on disk → what it is in the model.

        Returns:
            The new name; None if no number in `name` can be changed to that end.
        """
        old, new = self.index(key), self.index(new_key)
        for first, last in _occurrences(name, str(old), self.list_name):
            candidate = f"{name[:first]}{new}{name[last:]}"
            if resolve(candidate) == new_key:
                return candidate
        return None

    @property
    def list_name(self) -> str:
        """The last component of `path`."""
        return self.path.rpartition(".")[2]


class KeyNames:
    """The names of one model, as it is when this is made, and the rules that lead to them.

    Args:
        model: a model, on any device.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        self.state: dict[str, Tensor] = model.state_dict()
        """Every entry of the state dict."""
        mapping = get_model_conversion_mapping(model)
        self._renamings = [rule for rule in mapping if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in mapping if isinstance(rule, WeightConverter)]
        self._by_pattern = {pattern: rule for rule in self._converters for pattern in rule.source_patterns}
        self._prefix: str = model.base_model_prefix
        self._ignored = _pattern([*(model._keys_to_ignore_on_load_unexpected or ()), *_ignored_buffers(model)])
        self._optional = _pattern(model._keys_to_ignore_on_load_missing or ())
        self._same = _same(model)
        self._quantised = bool(getattr(model.config, "quantization_config", None))
        self._owners = _owners(self.state)
        self._modules = {path for path, _ in model.named_modules() if path}

    def targets(self, names: Iterable[str]) -> dict[str, ModelTensor]:
        """What each of `names` is in the model, in the order in which transformers loads them.

        (A few rules only hold once another has been seen, so the order matters.)
        """
        from transformers.core_model_loading import dot_natural_key

        return {name: self.target(name) for name in sorted(names, key=dot_natural_key)}

    def target(self, name: str) -> ModelTensor:
        """What `name` is in the model."""
        key, pattern = self._renamed(name)
        if key in self.state:
            makes = self._made(key, pattern) if pattern else frozenset({key})
            return ModelTensor(key, "converted" if pattern else "plain", makes)
        if self._ignored is not None and self._ignored.search(key):
            return ModelTensor(self._anchored(key), "ignored")
        if self._quantised and (owner := self._owner(anchored := self._anchored(key))):
            return ModelTensor(anchored, "part", self._owners[owner])
        return ModelTensor(key, "unknown")

    def _renamed(self, name: str) -> tuple[str, str | None]:
        """As `transformers.core_model_loading.convert_and_load_state_dict_in_model` does it."""
        from transformers.core_model_loading import rename_source_key

        rules = (self._renamings, self._converters)
        renamed: tuple[str, str | None] = rename_source_key(name, *rules, self._prefix, self.state)
        if renamed[0] not in self.state and name in self.state:
            renamed = rename_source_key(name, [], [], self._prefix, self.state)
        return renamed

    def _made(self, key: str, pattern: str) -> frozenset[str]:
        targets = self._by_pattern[pattern].target_patterns
        return frozenset(key.replace(targets[0], pattern) for pattern in targets) & self.state.keys() | {key}

    def _anchored(self, key: str) -> str:
        """`key` with or without the base model's prefix: what reaches deepest into the model's modules."""
        candidates = [key]
        if self._prefix:
            candidates += [f"{self._prefix}.{key}", key.removeprefix(self._prefix + ".")]
        return min(candidates, key=self._outside)

    def _outside(self, key: str) -> int:
        """How many components at the end of `key` are not part of the name of a module."""
        parts = key.split(".")
        return next((n for n in range(len(parts)) if ".".join(parts[: len(parts) - n]) in self._modules), 99)

    def _owner(self, key: str) -> str | None:
        """The innermost module (or parameter) that has values of its own and a name that `key` begins with."""
        while "." in key:
            key = key.rpartition(".")[0]
            if key in self._owners:
                return key
        return None

    def module(self, path: str) -> str | None:
        """Today's name of a module (or of the values it was merged into); None if there is none."""
        key = self._renamed(f"{path}.weight")[0]
        if key in self.state:
            return key.removesuffix(".weight")
        anchored = self._anchored(key.removesuffix(".weight"))
        return anchored if anchored in self._modules else None

    def missing(self, covered: Iterable[str]) -> list[str]:
        """Entries of the state dict that would not get a value if only `covered` do."""
        covered_names = set(covered)
        covered_names |= {name for group in self._same if group & covered_names for name in group}
        optional = self._optional
        return sorted(
            name
            for name in self.state.keys() - covered_names
            if not name.endswith("_extra_state") and not (optional and optional.search(name))
        )

    def renumbered(self, name: str, layers: Layers) -> str | None:
        """The disk's name of a tensor after pruning; None if it goes.

        Raises:
            ModelError: no number in the name can be changed so that the model would find the tensor again.
        """
        key = self.target(name).key
        new_key = layers.moved(key)
        if new_key is None or new_key == key:
            return None if new_key is None else name
        moved = layers.renamed(name, key, new_key, lambda candidate: self.target(candidate).key)
        if moved is None:
            raise ModelError(
                f"{name} is {key} in the model, and no number in it can be changed to make it {new_key}",
                where="its weights",
                fix="load the model with transformers and save_pretrained it, which writes today's names",
            )
        return moved


def _occurrences(name: str, number: str, after: str) -> list[tuple[int, int]]:
    """Where `number` is a component of `name`; behind the component `after` first."""
    spans = [match.span(1) for match in re.finditer(rf"(?:^|(?<=\.))({number})(?=\.|$)", name)]
    return sorted(spans, key=lambda span: not re.search(rf"(^|\.){after}\.$", name[: span[0]]))


def _pattern(patterns: Iterable[str]) -> re.Pattern[str] | None:
    joined = "|".join(f"({pattern})" for pattern in sorted(patterns))
    return re.compile(joined) if joined else None


def _ignored_buffers(model: PreTrainedModel) -> list[str]:
    buffers = [name for name, _ in model.named_buffers()]
    return [pattern for end, pattern in ALWAYS_IGNORED.items() if any(name.endswith(end) for name in buffers)]


def _same(model: PreTrainedModel) -> list[set[str]]:
    """Groups of names under which one and the same values are known: tied weights, shared modules."""
    groups: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), set()).add(name)
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    shared = [group for group in groups.values() if len(group) > 1]
    return shared + [{target, source} for target, source in tied.items()]


def _owners(state: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Modules with values of their own → these; and each value → itself."""
    owners: dict[str, set[str]] = {name: {name} for name in state}
    for name in state:
        owners.setdefault(name.rpartition(".")[0], set()).add(name)
    return {name: frozenset(keys) for name, keys in owners.items()}
