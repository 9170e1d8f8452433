"""Write a pruned model as a checkpoint folder that the stock libraries load.

The folder is written and verified under a temporary name beside the final one and renamed last, so under
the final name there is either a verified checkpoint or what was there before.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.errors import InputError, ModelError, PlanError, ShoalError, UsageError, VerificationError
from shoal.models.adapters import ADAPTERS_FILE
from shoal.models.families import find
from shoal.models.lineage import PLAN_FILE, plan_files
from shoal.models.quiet import quiet
from shoal.prune.card import card
from shoal.prune.in_memory import kept_layers, pruned
from shoal.prune.probe import probe
from shoal.prune.rebuild import check_rebuild
from shoal.prune.verify import REPORT_FILE, expectation, verify_checkpoint
from shoal.schema import ModelInfo, Plan

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from shoal.models.loading import LoadedModel

WEIGHT_SUFFIXES = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".npz", ".ot"}
)
NOT_CARRIED = frozenset({"config.json", "README.md", ADAPTERS_FILE})
"""Written anew, or true of the unpruned folder only; so are all files of Shoal's own, `shoal-…`."""
LARGEST_SIDE_FILE = 256 * 2**20


def write_pruned(
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
        `out`.

    Raises:
        PlanError: the plan does not fit the model.
        ModelError: the model cannot be pruned or saved so that it loads again.
        InputError: `out` is taken, or cannot be written, or the disk is full.
        VerificationError: the checkpoint is not what was in memory; nothing is left of it.
    """
    info = loaded.info()
    check_plan(plan, info)
    cases = probe(loaded) if verify else {}
    return write_checkpoint(
        loaded.model,
        plan,
        Path(out),
        cases=cases,
        tokenizer=loaded.tokenizer,
        processor=loaded.processor,
        source=loaded.path,
        readme=card(plan, info, verified=verify),
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
    readme: str = "",
    force: bool = False,
) -> Path:
    """What `write_pruned` does, from the single parts.

    Args:
        model: the unpruned model.
        plan: what to remove.
        out: the folder to make.
        cases: inputs to verify on, see `shoal.prune.verify.expectation`; empty: do not verify.
        tokenizer: saved beside the model, if given.
        processor: saved beside the model, if given.
        source: folder whose other files (chat template, licence, custom code …) are carried over.
        readme: text of README.md.
        force: replace `out` if there is something already.

    Raises:
        ShoalError: see `write_pruned`.
    """
    _check_target(out, source, force)
    _check_saveable(model)
    family = find(model)
    with _folder(out) as draft:
        with pruned(model, plan, family=family):
            check_rebuild(model, family)
            _check_space(model, draft)
            with quiet():
                model.save_pretrained(draft)
            expected = expectation(model, cases, family=family) if cases else None
        for part in (tokenizer, processor):
            if part is not None:
                part.save_pretrained(draft)
        if source is not None:
            _carry_over(source, draft)
        plan.save(draft / PLAN_FILE)
        (draft / "README.md").write_text(readme, encoding="utf-8")
        if expected is not None:
            _verify(draft, out, expected)
    return out


def check_plan(plan: Plan, info: ModelInfo) -> None:
    """Make sure that `plan` was made for the model that `info` describes.

    Raises:
        PlanError: another depth, or chosen from an audit of other weights.
    """
    kept_layers(plan, info.depth)
    audited = plan.source.model_fingerprint if plan.source else ""
    if audited and info.fingerprint and audited != info.fingerprint:
        raise PlanError(
            f"the plan was chosen from an audit of other weights than those of {info.ref}",
            where=f"plan for {plan.model_ref}",
            fix="audit this model (in the same --dtype), or list the layers yourself with --layers-list",
        )


def _check_target(out: Path, source: Path | None, force: bool) -> None:
    if source is not None and out.resolve() == source.resolve():
        raise UsageError("this is the model's own folder", where=str(out), fix="choose another with --out")
    if out.exists() and not out.is_dir():
        raise UsageError("a file with this name exists", where=str(out), fix="choose another with --out")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise UsageError("the folder is not empty", where=str(out), fix="choose another, or give --force")


def _check_saveable(model: PreTrainedModel) -> None:
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


def _check_space(model: PreTrainedModel, draft: Path) -> None:
    needed = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if (free := shutil.disk_usage(draft).free) < needed:
        raise _disk_full(draft, f"{needed / 2**30:.2f} GiB are needed, {free / 2**30:.2f} GiB are free")


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its name if the block succeeds, and else disappears."""
    draft = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        _put_in_place(draft, out)
    except ShoalError:
        raise
    except Exception as error:
        if problem := _disk_problem(error, out):
            raise problem from None
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put_in_place(draft: Path, out: Path) -> None:
    """Rename; a folder in the way is moved aside first and comes back if that fails."""
    aside = out.with_name(f".{out.name}.{os.getpid()}.old")
    occupied = out.exists()
    if occupied:
        out.rename(aside)
    try:
        draft.rename(out)
    except OSError:
        if occupied:
            aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _disk_problem(error: Exception, out: Path) -> InputError | None:
    """The one-line error for a write that the system refused; None for anything else."""
    # safetensors hands on the system's error as text only.
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
        return _disk_full(out, "the write was refused")
    if isinstance(error, OSError) and error.errno is not None:
        return InputError(
            f"cannot be written ({error.strerror})", where=str(out), fix="choose another place with --out"
        )
    return None


def _disk_full(out: Path, detail: str) -> InputError:
    return InputError(
        f"the disk is full ({detail})", where=str(out.parent), fix="free some or choose another --out"
    )


def _carry_over(source: Path, draft: Path) -> None:
    """Copy what lies beside the weights and was not written anew: chat template, licence, custom code."""
    for path in sorted(source.iterdir()):
        if _is_side_file(path) and not (draft / path.name).exists():
            shutil.copyfile(path, draft / path.name)
    for number, path in enumerate(plan_files(source), start=1):
        shutil.copyfile(path, draft / f"shoal-plan-{number}.json")


def _is_side_file(path: Path) -> bool:
    weights = path.suffix in WEIGHT_SUFFIXES or path.name.endswith(".index.json")
    ours = path.name in NOT_CARRIED or path.name.startswith(("shoal-", "."))
    return path.is_file() and not weights and not ours and path.stat().st_size <= LARGEST_SIDE_FILE


def _verify(draft: Path, out: Path, expected: Any) -> None:
    report = verify_checkpoint(draft, expected)
    if not report.passed:
        failures = "; ".join(f"{check.name}: {check.detail}" for check in report.failures)
        raise VerificationError(
            f"{out}: the checkpoint is not the model that was pruned ({failures}); not written"
        )
    report.save(draft / REPORT_FILE)
