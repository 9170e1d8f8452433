"""What becomes of every tensor and config of a checkpoint, decided and proved before anything is written.

The class is built without weights, once as the checkpoint has it and then pruned in memory as any other model. The
names on disk must cover the first, and the new names must cover the second in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.errors import ModelError
from shoal.models.families import find
from shoal.models.info import model_info
from shoal.models.json_file import read_json_object
from shoal.models.meta_model import CONFIG, GENERATION_CONFIG, meta_model
from shoal.pruning import config_files
from shoal.pruning.adapter_files import NewAdapter, pruned_adapter
from shoal.pruning.folder import adapter_folders
from shoal.pruning.in_memory import kept_layers, prune_in_place
from shoal.pruning.key_names import KeyNames, Layers, ModelTensor
from shoal.pruning.rebuild import check_rebuild
from shoal.pruning.safetensors_file import NewFile, Piece, TensorEntry, TensorSlice, cut_problem
from shoal.pruning.shards import Shards, new_index, numbered, read_shards
from shoal.pruning.source_tensors import SourceTensors, check_known, source_tensors
from shoal.schema import ModelInfo, Plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from shoal.models.families.base import Family


@dataclass(frozen=True)
class Rewrite:
    """Everything that is to be written anew."""

    files: list[NewFile]
    """The weights."""
    index: dict[str, Any] | None
    """None where there is one file."""
    config: dict[str, Any]
    generation: dict[str, Any] | None
    adapters: list[NewAdapter]
    info: ModelInfo
    """The model before pruning."""
    tensors: SourceTensors

    @property
    def tensor_files(self) -> list[NewFile]:
        """Weights and adapters."""
        return [*self.files, *(adapter.file for adapter in self.adapters)]


def rewrite(
    source: Path, plan: Plan, *, ref: str, licence: str | None = None, trust_remote_code: bool = False
) -> Rewrite:
    """Decide what becomes of the checkpoint in `source`; reads headers and configs only.

    Args:
        source: the checkpoint's folder.
        plan: what to remove.
        ref: what the user calls the model.
        licence: its licence, if known.
        trust_remote_code: run the checkpoint's own code.

    Raises:
        PlanError: the plan does not fit the model.
        ModelError: the checkpoint is damaged or not whole, or cannot be pruned so that it loads again.
    """
    shards, raw = read_shards(source), read_json_object(source / CONFIG)
    model = meta_model(source, trust_remote_code=trust_remote_code)
    family = find(model)
    keep = kept_layers(plan, depth := family.depth(model))
    info = model_info(model, family, source, ref=ref, licence=licence)
    layers = Layers(family.layers_path(model), tuple(keep), depth)
    cuts = _cuts(model, family, layers)
    before = KeyNames(model)
    targets = before.targets(name for name, _ in shards.tensors())
    _check_whole(source, before, targets)
    _check_shapes(source, dict(shards.tensors()), targets, before, model)
    tensors = source_tensors(shards, targets, before, layers)
    targets = {name: target for name, target in targets.items() if name not in tensors.dropped}
    files = _new_files(shards, targets, before, layers, cuts)
    adapters = [pruned_adapter(source, folder, before, layers) for folder in adapter_folders(source)]
    changes = config_files.field_changes(model, family, keep)
    config = config_files.pruned_config(raw, model.config, changes)
    generation = _generation(source, model, family, depth, keep)
    # From here on `model` is what the new files must load into; `before` keeps the names it had.
    prune_in_place(model, plan, family=family)
    check_rebuild(model, family)
    config_files.check_config(config, model.config)
    _check_names(files, targets, before, KeyNames(model), layers)
    config = config_files.pruned_quantisation(config, lambda name: before.renumbered(name, layers), layers.list_name)
    index = new_index(shards, files) if len(files) > 1 else None
    return Rewrite(files, index, tensors.config(config), generation, adapters, info, tensors)


def _cuts(model: PreTrainedModel, family: Family, layers: Layers) -> dict[str, TensorSlice]:
    """Name in the model → how to cut a parameter that holds a part for each layer."""
    decoder, _, _ = layers.path.rpartition(".")
    tensors = family.layered_tensors(family.text_config(model)) if len(layers.keep) < layers.depth else {}
    return {
        f"{decoder}.{name}".lstrip("."): TensorSlice(dim, layers.depth, layers.keep) for name, dim in tensors.items()
    }


def _check_whole(source: Path, names: KeyNames, targets: Mapping[str, ModelTensor]) -> None:
    check_known(source, targets)
    missing = names.missing(made for target in targets.values() for made in target.makes)
    if missing:
        raise ModelError(
            f"{len(missing)} weights of its model are missing, such as {missing[0]}",
            where=str(source),
            fix="check num_hidden_layers in config.json, and that every shard is there",
        )


def _check_shapes(
    source: Path,
    entries: Mapping[str, TensorEntry],
    targets: Mapping[str, ModelTensor],
    names: KeyNames,
    model: PreTrainedModel,
) -> None:
    # Quantised values are packed: their shapes are not those of the model.
    if getattr(model.config, "quantization_config", None):
        return
    for name, target in targets.items():
        shape = entries[name].shape
        if target.kind == "plain" and shape != (expected := tuple(names.state[target.key].shape)):
            raise ModelError(
                f"{name} has shape {list(shape)}, its model {list(expected)}",
                where=str(source),
                fix="check that config.json and the weights belong together",
            )


def _new_files(
    shards: Shards, targets: Mapping[str, ModelTensor], names: KeyNames, layers: Layers, cuts: Mapping[str, TensorSlice]
) -> list[NewFile]:
    files = []
    for shard in shards.files:
        pieces = []
        for name, entry in shard.tensors.items():
            new = names.renumbered(name, layers) if name in targets else None
            if new is not None:
                pieces.append(Piece(new, entry, _cut(name, entry, targets[name], cuts)))
        files.append(NewFile(shard.path.name, shard, pieces))
    return numbered(files)


def _cut(name: str, entry: TensorEntry, target: ModelTensor, cuts: Mapping[str, TensorSlice]) -> TensorSlice | None:
    key_to_cut = next((key for key in cuts if key in target.makes), None)
    if key_to_cut is None:
        return None
    cut = cuts[key_to_cut]
    problem = "it is stored in another form" if target.kind != "plain" else cut_problem(entry, cut)
    if problem:
        raise ModelError(
            f"{name} holds a part for each layer and cannot be cut ({problem})",
            where="its weights",
            fix="prune it in memory",
        )
    return cut


def _check_names(
    files: Sequence[NewFile], old: Mapping[str, ModelTensor], before: KeyNames, after: KeyNames, layers: Layers
) -> None:
    """The pruned model finds in `files`, by transformers' own rules, exactly what the model found before."""
    pieces = {piece.name: piece for file in files for piece in file.pieces}
    new = after.targets(pieces)
    moved = [layers.moved(target.key) for target in old.values()]
    if sorted(target.key for target in new.values()) != sorted(key for key in moved if key is not None):
        raise _wrong("tensors would get other names than the pruned model has")
    _check_same(before.state, after.state, layers)
    _check_same(_covered(old), _covered(new), layers)
    kinds = {target.key: target.kind for target in old.values()}
    for name, target in new.items():
        origin = _origin(target.key, layers)
        if kinds.get(origin) != target.kind:
            raise _wrong(f"{name} would be read as {target.kind}, not as {kinds.get(origin)}")
        cut = pieces[name].cut
        if cut is not None and pieces[name].shape != tuple(after.state[target.key].shape):
            raise _wrong(f"{name} would have shape {list(pieces[name].shape)}")


def _check_same(before: Iterable[str], after: Iterable[str], layers: Layers) -> None:
    expected = {key for name in before if (key := layers.moved(name)) is not None}
    if difference := expected ^ set(after):
        raise _wrong(f"{len(difference)} weights would not be found again, such as {min(difference)}")


def _covered(targets: Mapping[str, ModelTensor]) -> set[str]:
    return {made for target in targets.values() for made in target.makes}


def _origin(key: str, layers: Layers) -> str:
    """The name before pruning of what is called `key` after it."""
    prefix = f"{layers.path}."
    number, _, rest = key.removeprefix(prefix).partition(".")
    if not key.startswith(prefix) or not number.isdigit() or int(number) >= len(layers.keep):
        return key
    return f"{prefix}{layers.keep[int(number)]}" + (f".{rest}" if rest else "")


def _wrong(problem: str) -> ModelError:
    return ModelError(
        problem,
        where="its weights",
        fix="load the model with transformers and save_pretrained it, which writes today's names",
    )


def _generation(
    source: Path, model: PreTrainedModel, family: Family, depth: int, keep: Sequence[int]
) -> dict[str, Any] | None:
    """The generation config with what names layers changed, and proof that it loads so; None without one.

    Raises:
        ModelError: loaded again, a field does not have its value.
    """
    from transformers import GenerationConfig

    path, config = source / GENERATION_CONFIG, getattr(model, "generation_config", None)
    if not path.is_file() or config is None or len(keep) == depth:
        return None
    fields = family.generation_fields(config, depth, keep)
    if not fields:
        return None
    edited = read_json_object(path) | dict(fields)
    again = GenerationConfig.from_dict(edited)
    for name, value in fields.items():
        if getattr(again, name, None) != value:
            raise ModelError(
                f"loaded again, {name} is {getattr(again, name, None)!r} and not {value!r}",
                where=str(path),
                fix="add a family for this model in shoal/models/families",
            )
    return edited
