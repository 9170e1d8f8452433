"""Write a pruned model as a checkpoint folder that the stock libraries load.

The folder is written and verified under a temporary name beside the final one and renamed last, so under
the final name there is either a verified checkpoint or what was there before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.cards.facts import Folder, write_source_record
from shoal.cards.writing import CARD, first_card
from shoal.errors import ModelError, PlanError
from shoal.machine import check_disk
from shoal.models.contexts import quiet
from shoal.models.families import find
from shoal.models.lineage import PLAN_FILE
from shoal.provenance import provenance
from shoal.pruning.adapter_files import pruned_adapter
from shoal.pruning.config_files import to_text
from shoal.pruning.folder import adapter_folders, carry_over, check_target, copy_files, files_in_folders, new_folder
from shoal.pruning.in_memory import check_whole, kept_layers, pruned
from shoal.pruning.key_names import KeyNames, Layers
from shoal.pruning.probe import probe
from shoal.pruning.rebuild import check_rebuild
from shoal.pruning.rerun import finished
from shoal.pruning.safetensors_file import write_file
from shoal.pruning.source_tensors import SourceTensors, tensors_of_folder
from shoal.pruning.verify import Expectation, checked, expectation, verify_checkpoint
from shoal.schema import ModelInfo, Plan, write_text

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from shoal.models.families.base import Family
    from shoal.models.loading import LoadedModel


def prune(
    loaded: LoadedModel, plan: Plan, out: str | os.PathLike[str], *, verify: bool = True, force: bool = False
) -> Path:
    """Prune a loaded model and write it to `out`; the model in memory is as before afterwards.

    Args:
        loaded: the unpruned model.
        plan: what to remove; made for this model.
        out: the folder to make.
        verify: load the folder in a fresh process and compare, before it gets its name.
        force: replace `out` if there is something already.

    Returns:
        `out`; if it is this very checkpoint already, nothing is done.

    Raises:
        PlanError: the plan does not fit the model.
        ModelError: the model cannot be pruned or saved so that it loads again.
        InputError: `out` is taken, or cannot be written, or the disk is full.
        VerificationError: the checkpoint is not what was in memory; nothing is left of it.
    """
    info = loaded.info()
    check_plan(plan, info)
    out = Path(out)
    dtype = str(loaded.model.config.dtype or loaded.model.dtype).removeprefix("torch.")
    if not force and finished(
        out, plan.layers, ref=info.ref, source=loaded.path, dtype=dtype, fingerprint=info.fingerprint
    ):
        return out
    cases = probe(loaded) if verify else {}
    return write_checkpoint(
        loaded.model,
        plan,
        out,
        cases=cases,
        tokenizer=loaded.tokenizer,
        processor=loaded.processor,
        source=loaded.path,
        adapters=getattr(loaded, "adapters", ()),
        info=info,
        force=force,
    )


def write_checkpoint(
    model: PreTrainedModel,
    plan: Plan,
    out: Path,
    *,
    cases: Mapping[str, Mapping[str, Tensor]],
    tokenizer: Any = None,
    processor: Any = None,
    source: Path | None = None,
    adapters: Sequence[Path] = (),
    info: ModelInfo | None = None,
    force: bool = False,
) -> Path:
    """What `prune` does, from the single parts.

    Args:
        model: the unpruned model.
        plan: what to remove.
        out: the folder to make.
        cases: inputs to verify on, see `shoal.pruning.verify.expectation`; empty: do not verify.
        tokenizer: saved beside the model, if given.
        processor: saved beside the model, if given.
        source: folder whose other files (chat template, licence, custom code …) are carried over.
        adapters: folders of adapters that were put into the model, whose history is carried over.
        info: the unpruned model, for the card (README.md); without it there is no card.
        force: replace `out` if there is something already.

    Raises:
        ShoalError: see `prune`.
    """
    check_whole(plan)
    check_target(out, source, force)
    family = find(model)
    kept_layers(plan, family.depth(model))
    tensors = tensors_of_folder(source, model, family, plan)
    folders = None if source is None or tensors is None else _Folders(source, model, family, plan)
    with new_folder(out) as draft:
        with pruned(model, plan, family=family):
            expected = write_model(model, draft, family=family, cases=cases, tensors=tensors)
        write_beside(draft, tokenizer=tokenizer, processor=processor, source=source, adapters=adapters, plan=plan)
        if folders is not None:
            folders.write(draft)
        report = None if expected is None else checked(verify_checkpoint(draft, expected), draft, out)
        if report is not None and tensors is not None:
            tensors.add_to(report, draft)
        if info is not None:
            write_source_record(draft, info, source, provenance())
            (draft / CARD).write_text(first_card(Folder(draft), info, report), encoding="utf-8")
    return out


class _Folders:
    """What lies in the folders inside a model's folder; see `shoal.pruning.sharded` for what becomes of it.

    Adapters that loading merges are in the weights already.
    """

    def __init__(self, source: Path, model: PreTrainedModel, family: Family, plan: Plan) -> None:
        merged = {source} if family.adapter is None else {source, source / family.adapter}
        names, layers = KeyNames(model), Layers(family.layers_path(model), tuple(plan.keep), plan.depth)
        folders = [folder for folder in adapter_folders(source) if folder not in merged]
        self._source = source
        self._files = [path for path in files_in_folders(source) if source / path.parts[0] not in merged]
        self._adapters = [pruned_adapter(source, folder, names, layers) for folder in folders]

    def write(self, draft: Path) -> None:
        """Put it into `draft`."""
        copy_files(self._source, draft, self._files)
        for adapter in self._adapters:
            (draft / adapter.file.name).parent.mkdir(parents=True, exist_ok=True)
            write_file(adapter.file, draft / adapter.file.name)
            (draft / adapter.config_name).write_text(to_text(adapter.config), encoding="utf-8")


def write_model(
    model: PreTrainedModel,
    draft: Path,
    *,
    family: Family,
    cases: Mapping[str, Mapping[str, Tensor]],
    tensors: SourceTensors | None = None,
) -> Expectation | None:
    """Write the model, as it is now in memory, with its stock class.

    Args:
        model: pruned, in evaluation mode.
        draft: an existing folder.
        family: its family.
        cases: inputs to verify on.
        tensors: what becomes of those in the model's own files, which its class may not load.

    Returns:
        What the checkpoint has to be; None without `cases`.

    Raises:
        ModelError: it cannot be saved so that it loads again.
        InputError: the disk is full.
    """
    check_saveable(model)
    check_rebuild(model, family)
    check_disk(draft, sum(parameter.nbytes for parameter in model.parameters()))
    _save(model, draft, tensors)
    return expectation(model, cases, family=family) if cases else None


def write_beside(
    draft: Path,
    *,
    tokenizer: Any = None,
    processor: Any = None,
    source: Path | None = None,
    adapters: Sequence[Path] = (),
    plan: Plan | None = None,
) -> None:
    """Write what belongs to a model besides its weights to `draft`; arguments as `write_checkpoint`.

    Without a `plan` the history in `source` and `adapters` is carried over as it is.
    """
    for preprocessor in (tokenizer, processor):
        if preprocessor is not None:
            preprocessor.save_pretrained(draft)
    if source is not None:
        carry_over(source, draft, adapters=adapters, plan_follows=plan is not None)
    if plan is not None:
        plan.save(draft / PLAN_FILE)


def _save(model: PreTrainedModel, draft: Path, tensors: SourceTensors | None) -> None:
    """`save_pretrained`, with the tensors that its class does not load."""
    dtype = model.config.dtype
    state = model.state_dict() | tensors.tensors() if tensors is not None and tensors.kept else None
    with quiet():
        model.save_pretrained(draft, state_dict=state)
    path = draft / "config.json"
    config = before = json.loads(path.read_text(encoding="utf-8"))
    if tensors is not None:
        tensors.check_written(draft)
        config = tensors.config(config)
    # It notes the dtype of the first parameter, and some classes keep that one in float32.
    if dtype is not None and model.dtype != dtype:
        model.config.dtype = dtype
        config = config | {"dtype": str(dtype).removeprefix("torch.")}
    if config != before:
        write_text(path, json.dumps(config, indent=2) + "\n")


def check_plan(plan: Plan, info: ModelInfo) -> None:
    """Make sure that `plan` was made for the model that `info` describes.

    Raises:
        PlanError: another depth, chosen from an audit of other weights, or for a part of its layers only.
    """
    check_whole(plan)
    kept_layers(plan, info.depth)
    audited = plan.source.model_fingerprint if plan.source else ""
    if audited and info.fingerprint and audited != info.fingerprint:
        raise PlanError(
            f"the plan was chosen from an audit of other weights than those of {info.ref}",
            where=f"plan for {plan.model_ref}",
            fix="audit this model (in the same --dtype), or list the layers yourself with --layers-list",
        )


def check_saveable(model: PreTrainedModel) -> None:
    """Make sure that the weights can be written as they are.

    Raises:
        ModelError: they are quantised, or there are low-rank weights beside them.
    """
    if getattr(model, "hf_quantizer", None) is not None:
        raise ModelError(
            "its weights are quantised and cannot be saved as they are",
            where=type(model).__name__,
            fix="prune the unquantised model and quantise it afterwards",
        )
    if any(".lora_" in name for name, _ in model.named_parameters()):
        raise ModelError(
            "it has low-rank weights that are not merged", where=type(model).__name__, fix="merge them first"
        )
