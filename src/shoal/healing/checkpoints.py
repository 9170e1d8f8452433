"""Write a healed model: merged, as a checkpoint that its stock class loads, or as a PEFT adapter for its base.

Both are written and verified under a temporary name and renamed last. The model in memory is as before afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from shoal.cards.facts import Folder
from shoal.cards.writing import CARD, first_card
from shoal.errors import ModelError, VerificationError
from shoal.models import weights
from shoal.models.contexts import evaluating
from shoal.models.lineage import HEAL_FILE
from shoal.models.lora import ADAPTER, exactly, lora_layers, lora_state, merged
from shoal.models.peft_folder import WEIGHTS, has_adapter
from shoal.pruning.folder import check_target, new_folder
from shoal.pruning.on_disk import write_beside, write_model
from shoal.pruning.probe import probe
from shoal.pruning.rebuild import rebuilt
from shoal.pruning.source_tensors import tensors_of_folder
from shoal.pruning.verify import Expectation, checked, expectation, verify_checkpoint
from shoal.pruning.verify_child import tensor_digests
from shoal.schema import HealRecord, Plan
from shoal.schema.verification import VerificationReport

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from shoal.models.loading import LoadedModel

PREFIX = "base_model.model."
"""Before every name in a PEFT adapter."""
MERGED = "write it merged"


def write_merged(
    loaded: LoadedModel,
    out: str | os.PathLike[str],
    *,
    record: HealRecord,
    plan: Plan | None = None,
    dtype: torch.dtype | None = None,
    verify: bool = True,
    force: bool = False,
) -> Path:
    """Write a healed model as a checkpoint, its low-rank layers merged.

    Args:
        loaded: the healed model, as it was loaded from `loaded.path` but for healing and `plan`.
        out: the folder to make.
        record: how it was healed.
        plan: what was removed in memory only, after loading; goes into the folder's history.
        dtype: of the written weights; None: as they are in memory.
        verify: load the folder in a fresh process and compare, before it gets its name.
        force: replace `out` if there is something already.

    Returns:
        `out`.

    Raises:
        ModelError: the model cannot be saved so that it loads again.
        InputError: `out` is taken, or cannot be written, or the disk is full.
        VerificationError: the checkpoint is not what was in memory; nothing is left of it.
    """
    out = Path(out)
    for source in (loaded.path, *loaded.adapters):
        check_target(out, source, force)
    with new_folder(out) as draft:
        # Merged before it is cast, so that the sum is rounded once and not its parts.
        with evaluating(loaded.model), merged(loaded.model, dtype), cast(loaded.model, dtype):
            cases = probe(loaded) if verify else {}
            tensors = tensors_of_folder(loaded.path, loaded.model, loaded.family, plan, pruned=True)
            expected = write_model(loaded.model, draft, family=loaded.family, cases=cases, tensors=tensors)
        write_beside(
            draft,
            tokenizer=loaded.tokenizer,
            processor=loaded.processor,
            source=loaded.path,
            adapters=loaded.adapters,
            plan=plan,
        )
        record.save(draft / HEAL_FILE)
        report = None
        if expected is not None:
            report = checked(verify_checkpoint(draft, expected), draft, out, done="healed")
        text = first_card(Folder(draft), record.model, report)
        (draft / CARD).write_text(text, encoding="utf-8")
    return out


def write_adapters(
    loaded: LoadedModel,
    out: str | os.PathLike[str],
    *,
    base: str,
    record: HealRecord,
    modules_to_save: Sequence[str] = (),
    verify: bool = True,
    force: bool = False,
) -> Path:
    """Write what was trained as an adapter that `PeftModel.from_pretrained` puts into the base model.

    Args:
        loaded: the healed model, with its low-rank layers.
        out: the folder to make.
        base: the model before healing, on disk: a folder (also relative to `out`), a Hub id or `pkg:NAME`.
        record: how it was healed.
        modules_to_save: full names of modules that were trained whole, such as the projector.
        verify: load base and adapter in a fresh process and compare, before the folder gets its name.
        force: replace `out` if there is something already.

    Returns:
        `out`.

    Raises:
        ModelError: more was trained than the low-rank layers and these modules, or the base has no stock class.
        InputError: `out` is taken, or cannot be written, or the disk is full.
        VerificationError: base and adapter are not what was in memory; nothing is left of it.
    """
    out, model = Path(out), loaded.model
    named, base_folder = _base(base, out)
    for source in (loaded.path, base_folder, *loaded.adapters):
        check_target(out, source, force)
    _check_trained(model, modules_to_save)
    tensors = _tensors(model, modules_to_save)
    with new_folder(out) as draft:
        save_file(tensors, draft / WEIGHTS, metadata={"format": "pt"})
        _config(model, named, modules_to_save).save_pretrained(str(draft))
        record.save(draft / HEAL_FILE)
        report = None
        if verify:
            expected = _expected(loaded, draft, tensors, modules_to_save)
            report = _checked(verify_checkpoint(base_folder, expected), draft, out)
        text = first_card(Folder(draft, base_folder, named), record.model, report)
        (draft / CARD).write_text(text, encoding="utf-8")
    return out


@contextmanager
def cast(model: PreTrainedModel, dtype: torch.dtype | None) -> Iterator[None]:
    """`model` in `dtype` while the block runs, as its class loads it in that dtype; afterwards it is as before.

    Some classes keep a few of their tensors in float32 whatever the rest is in.
    """
    if dtype is None:
        yield
        return
    with ExitStack() as undo:
        for config in _configs(model.config):
            undo.callback(setattr, config, "dtype", config.dtype)
            config.dtype = dtype
        dtypes = _dtypes(model, dtype)
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name in dtypes and tensor.is_floating_point() and tensor.dtype != dtypes[name]:
                undo.callback(setattr, tensor, "data", tensor.data)
                tensor.data = tensor.data.to(dtypes[name])
        yield


def _configs(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """The config and those inside it, to which transformers gives the same dtype when it loads a model."""
    yield config
    for name in config.sub_configs:
        if (part := getattr(config, name, None)) is not None:
            yield part


def _dtypes(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """What each tensor of the state dict is in after `from_pretrained(…, dtype=dtype)`."""
    from transformers.core_model_loading import build_glob_alternation

    dtypes = {name: tensor.dtype for name, tensor in rebuilt(model, dtype).state_dict().items()}
    if plan := model._get_dtype_plan(dtype):
        pattern, group_names, _ = build_glob_alternation(list(plan))
        for name in dtypes:
            if (match := pattern.search(name)) is not None and match.lastgroup is not None:
                dtypes[name] = plan[group_names[match.lastgroup]]
    return dtypes


def _base(base: str, out: Path) -> tuple[str, Path]:
    """How the adapter calls its base, so that it is found from anywhere, and the base's folder.

    Raises:
        ModelError: a stock class does not load the base as it is in memory.
    """
    beside = Path(os.path.normpath(out.absolute() / base))
    folder = beside if beside.is_dir() else weights.resolve(base).path
    if not (folder / "config.json").is_file():
        raise ModelError("the base is not a checkpoint that a stock class loads", where=base, fix=MERGED)
    if has_adapter(folder):
        raise ModelError("the base has an adapter of its own beside its weights", where=base, fix=MERGED)
    local = not beside.is_dir() and Path(base).expanduser().exists()
    return str(Path(base).expanduser().resolve()) if local else base, folder


def _check_trained(model: nn.Module, modules: Sequence[str]) -> None:
    """Refuse, before anything is computed, what an adapter cannot hold; verification finds what is not seen here."""
    there = dict(model.named_modules())
    adapted = [name for name, _ in lora_layers(model)]
    if not adapted and not modules:
        raise ModelError("nothing in it is an adapter's", where=type(model).__name__, fix=MERGED)
    for name in modules:
        if name not in there:
            raise ModelError("the model has no such module", where=name, fix="give its full name")
        # PEFT looks at the end of names, and not where a part of them starts.
        if other := [module for module in there if module != name and module.endswith(name)]:
            raise ModelError(f"PEFT would take {other[0]} for the trained module {name}", where=name, fix=MERGED)
        if any(layer.startswith(f"{name}.") or layer == name for layer in adapted):
            raise ModelError("it has low-rank layers and was trained whole", where=name, fix=MERGED)
    inside = tuple(f"{name}." for name in modules)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and ".lora_" not in name and not name.startswith(inside):
            raise _more([name])


def _more(names: Sequence[str]) -> ModelError:
    return ModelError(
        f"an adapter holds low-rank layers and modules_to_save only, and more was trained, such as {names[0]}",
        where="adapters",
        fix=MERGED,
    )


def _tensors(model: nn.Module, modules: Sequence[str]) -> dict[str, Tensor]:
    """What the adapter holds, under PEFT's names."""
    tensors = lora_state(model)
    for name in modules:
        tensors |= {f"{name}.{key}": value for key, value in model.get_submodule(name).state_dict().items()}
    # Copies, since safetensors takes no tensor twice.
    return {PREFIX + name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def _config(model: PreTrainedModel, base: str, modules: Sequence[str]) -> Any:
    """PEFT's config of the adapter, which picks the low-rank layers by their full names."""
    from peft import LoraConfig
    from peft.utils.constants import DUMMY_TARGET_MODULES

    adapted = [name for name, _ in lora_layers(model)]
    return replace(
        getattr(model, "peft_config", {}).get(ADAPTER) or LoraConfig(),
        target_modules=exactly(adapted) if adapted else DUMMY_TARGET_MODULES,
        modules_to_save=list(modules) or None,
        base_model_name_or_path=base,
        inference_mode=True,
    )


def _expected(loaded: LoadedModel, draft: Path, tensors: Mapping[str, Tensor], modules: Sequence[str]) -> Expectation:
    """What the base is with the adapter, and that the rest of it is what is in memory."""
    with evaluating(loaded.model):
        whole = expectation(loaded.model, probe(loaded), family=loaded.family)
    return replace(
        whole,
        facts=whole.facts
        | {
            "dtype": loaded.dtype_name,
            "tensors": _without(whole.facts["tensors"], lora_layers(loaded.model), modules),
            "adapter": {"folder": str(draft.resolve()), "modules": list(modules), "tensors": tensor_digests(tensors)},
        },
    )


def _without(digests: Mapping[str, str], layers: Iterator[tuple[str, Any]], modules: Sequence[str]) -> dict[str, str]:
    """The digests of what an adapter does not hold, under the names of the model without it."""
    inner = {f"{name}.base_layer": name for name, _ in layers}
    inside = tuple(f"{name}." for name in modules)
    kept = {}
    for name, digest in digests.items():
        owner, _, last = name.rpartition(".")
        if ".lora_" not in name and not name.startswith(inside):
            kept[f"{inner[owner]}.{last}" if owner in inner else name] = digest
    return kept


def _checked(report: VerificationReport, draft: Path, out: Path) -> VerificationReport:
    failed = {check.name: check.detail for check in report.failures}
    if list(failed)[:1] == ["tensors"]:
        raise _more([failed["tensors"].rpartition("such as ")[2]])
    try:
        return checked(report, draft, out, done="healed")
    except VerificationError as error:
        raise VerificationError(f"{error}; {MERGED}") from None
