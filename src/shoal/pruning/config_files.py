"""`config.json` and `generation_config.json` after pruning: the raw JSON with a few values changed, and proof.

A config that is loaded and saved again loses what the class does not know and gains what this version of the class
adds. So the file itself is edited, under the names it uses itself, and what it leaves to defaults is only added where
the default would now be another. Then the class has to read from it what pruning in memory made of its config.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from shoal.errors import ModelError
from shoal.models.contexts import quiet
from shoal.models.families import fields
from shoal.pruning.rebuild import config_refusal

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from shoal.models.families.base import Family

FieldPath = tuple[str, ...]
"""Attributes that lead from the model's config to a value."""
UNRELATED = frozenset({"_name_or_path", "transformers_version", "quantization_config", "dtype", "torch_dtype"})
"""Differ between a config that was read and one that a model was built from, whatever the depth."""
QUANTISATION = "quantization_config"


def field_changes(model: PreTrainedModel, family: Family, keep: Sequence[int]) -> dict[FieldPath, Any]:
    """Everything in the config of `model`, unpruned, that has to change, and to what.

    Raises:
        ModelError: a field cannot follow.
    """
    config, path = family.text_config(model), family.config_path(model)
    changes: dict[FieldPath, Any] = {(*path, name): value for name, value in family.pruned_fields(config, keep).items()}
    return changes | dict(family.other_fields(model.config, family.depth(model), keep))


def pruned_config(raw: Mapping[str, Any], config: PreTrainedConfig, changes: Mapping[FieldPath, Any]) -> dict[str, Any]:
    """`raw`, the JSON that `config` was read from, with the `changes` made.

    Raises:
        ModelError: the class reads other values from it than `changes` has.
    """
    first = _edited(raw, config, changes, add=())
    try:
        absent = _differing(_read(first, config), changes)
    except Exception:  # a class may check its fields against each other: then all of them are needed
        absent = list(changes)
    final = _edited(first, config, changes, add=absent)
    if wrong := _differing(_reread(final, config), changes):
        name = ".".join(wrong[0])
        raise config_refusal(config, f"{name} cannot be set to {changes[wrong[0]]!r} in config.json")
    return final


def check_config(raw: Mapping[str, Any], pruned: PreTrainedConfig) -> None:
    """Make sure that the class reads from `raw` what `pruned`, a config pruned in memory, is.

    Raises:
        ModelError: naming the first field that differs.
    """
    read, expected = _plain(_reread(raw, pruned).to_dict()), _plain(pruned.to_dict())
    for name in sorted(read.keys() | expected.keys()):
        if read.get(name) != expected.get(name):
            problem = f"{name} would be read as {read.get(name)!r}, but is {expected.get(name)!r} after pruning"
            raise config_refusal(pruned, " ".join(problem.split())[:400])


def _reread(raw: Mapping[str, Any], config: PreTrainedConfig) -> PreTrainedConfig:
    try:
        return _read(raw, config)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise config_refusal(config, f"its class does not read the pruned config ({reason})") from error


def _read(raw: Mapping[str, Any], config: PreTrainedConfig) -> PreTrainedConfig:
    with TemporaryDirectory(prefix="shoal-config-") as folder, quiet():
        (Path(folder) / "config.json").write_text(json.dumps(raw), encoding="utf-8")
        return type(config).from_pretrained(folder)


def _edited(
    raw: Mapping[str, Any], config: PreTrainedConfig, changes: Mapping[FieldPath, Any], *, add: Iterable[FieldPath]
) -> dict[str, Any]:
    """`raw` with those `changes` made that it spells out, and those in `add` added if they are not there."""
    edited, added = copy.deepcopy(dict(raw)), set(add)
    for path, value in changes.items():
        node, owner = edited, config
        for name in path[:-1]:
            spelled = _spelled(node, owner, name)
            key = spelled[0] if spelled else owner.attribute_map.get(name, name)
            child: dict[str, Any] = node[key] if isinstance(node.get(key), dict) else {}
            if spelled or path in added:
                node[key] = child
            node, owner = child, getattr(owner, name)
        keys = _spelled(node, owner, path[-1])
        if not keys and path in added:
            keys = [owner.attribute_map.get(path[-1], path[-1])]
        for key in keys:
            node[key] = _json(value)
    return edited


def _spelled(node: Mapping[str, Any], config: PreTrainedConfig, name: str) -> list[str]:
    """The names under which `node` has the attribute `name` of `config`; a class may know several."""
    known = config.attribute_map
    own = known.get(name, name)
    return [key for key in node if key in (own, name) or known.get(key) == own]


def _differing(config: PreTrainedConfig, changes: Mapping[FieldPath, Any]) -> list[FieldPath]:
    return [path for path, value in changes.items() if _json(_at(config, path)) != _json(value)]


def _at(config: Any, path: FieldPath) -> Any:
    for name in path:
        config = fields.overrides(config) if name == "per_layer_config" else getattr(config, name, None)
    return config


def _json(value: Any) -> Any:
    """As it comes back from a file: a tuple is a list."""
    return json.loads(json.dumps(value, default=str))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items() if name not in UNRELATED}
    return _json(value)


def pruned_quantisation(
    raw: Mapping[str, Any], renumber: Callable[[str], str | None], list_name: str
) -> dict[str, Any]:
    """`raw` with the layers named in its quantisation settings renumbered (modules left unquantised, say).

    Args:
        raw: a config.
        renumber: a module's name on disk → after pruning; None if it goes.
        list_name: what the list of layers is called.

    Raises:
        ModelError: a pattern in them picks single layers.
    """
    numbered = re.compile(rf"(^|\W){re.escape(list_name)}\W{{1,3}}[\d(\[]")

    def follow(text: str) -> str | None:
        if not numbered.search(text):
            return text
        if re.search(r"[^\w.\-]", text):
            raise ModelError(
                f"{QUANTISATION} picks single layers by the pattern {text!r}, which cannot be renumbered",
                where="config.json",
                fix="list the modules there by their names",
            )
        return renumber(text)

    if not isinstance(raw.get(QUANTISATION), dict):
        return dict(raw)
    return {**raw, QUANTISATION: _followed(raw[QUANTISATION], follow)}


def _followed(value: Any, follow: Callable[[str], str | None]) -> Any:
    if isinstance(value, dict):
        names = {name: follow(name) for name in value}
        return {new: _followed(value[name], follow) for name, new in names.items() if new is not None}
    if isinstance(value, list):
        kept = [item for item in value if not isinstance(item, str) or follow(item) is not None]
        return [_followed(item, follow) for item in kept]
    return follow(value) if isinstance(value, str) else value


def to_text(raw: Mapping[str, Any]) -> str:
    """A config as transformers writes it, in the order it has."""
    return json.dumps(raw, indent=2, ensure_ascii=False) + "\n"
