"""The systems of an evaluation: the unpruned model, plans over it, perhaps another checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.errors import UsageError
from shoal.evaluation.score_systems import BASELINE, SystemIdentity
from shoal.evaluation.system_outputs import SystemOutputs
from shoal.models.lineage import heal_files, removed_layers
from shoal.schema import HealRecord
from shoal.wording import unused

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel
    from shoal.schema import Part, Plan

Opener = Callable[[Path, Mapping[str, Any]], SystemOutputs]
FULL = "full"


@dataclass(slots=True)
class System:
    """One thing that transcribes all clips."""

    identity: SystemIdentity
    loaded: LoadedModel
    outputs: SystemOutputs

    @property
    def removed(self) -> list[int]:
        """The layers it goes without."""
        return self.identity.plan.layers if self.identity.plan else []

    @property
    def part(self) -> Part:
        """What of those layers it goes without."""
        return self.identity.plan.part if self.identity.plan else "layer"


def open_systems(
    loaded: LoadedModel,
    plans: Sequence[Plan],
    *,
    against: LoadedModel | None,
    beside: Sequence[LoadedModel] = (),
    out: Path | None,
    header: Mapping[str, Any],
    opened: Opener = SystemOutputs.open,
) -> list[System]:
    """The systems in order, the baseline first, each with the outputs that `out` holds already.

    Args:
        loaded: the model that plans prune.
        plans: what to remove; plans that remove nothing, and repeated ones, are left out.
        against: another checkpoint, to be the baseline.
        beside: more checkpoints; each is called by the name of its folder.
        out: folder; outputs go to `outputs/`.
        header: settings that decide the outputs of all systems.
        opened: opens the file of outputs of a path and a header; asked once for each path.

    Raises:
        PlanError: a plan is for another depth.
        UsageError: `against` is the same model.
        FileFormatError: `out` holds outputs made otherwise.
    """
    files = _Files(out, header, opened)
    named = named_plans(plans, loaded.info().depth)
    missing = tuple(removed_layers(loaded.path))
    systems = [_system(SystemIdentity(checkpoint_name(loaded, named), missing=missing), loaded, files)]
    if against is not None:
        if against.info().fingerprint == loaded.info().fingerprint:
            raise UsageError(f"{against.ref} has the same weights as {loaded.ref}", where="--against")
        systems.insert(0, _system(_checkpoint(BASELINE, against), against, files, BASELINE))
    for name, plan in named.items():
        systems.append(_system(SystemIdentity(name, plan=plan, missing=missing), loaded, files))
    for other in beside:
        name = unused(Path(other.ref).resolve().name, {BASELINE, *(system.identity.name for system in systems)}, "#")
        systems.append(_system(_checkpoint(name, other), other, files, f"checkpoint-{name}"))
    return systems


def _checkpoint(name: str, other: LoadedModel) -> SystemIdentity:
    """Another checkpoint than the one that plans are over."""
    records = heal_files(other.path)
    return SystemIdentity(
        name,
        other.ref,
        missing=tuple(removed_layers(other.path)),
        fingerprint=other.info().fingerprint,
        healed=HealRecord.load(records[-1]).target if records else "",
    )


def checkpoint_name(loaded: LoadedModel, plans: Container[str] = ()) -> str:
    """`full`, or the name of the folder of a model that was pruned before, for that is not full.

    Args:
        loaded: the model without any plan.
        plans: names of those over it; a folder of such a name is called `checkpoint NAME`.
    """
    if not removed_layers(loaded.path):
        return FULL
    name = Path(loaded.ref).resolve().name
    return f"checkpoint {name}" if name in (FULL, BASELINE) or name in plans else name


def named_plans(plans: Sequence[Plan], depth: int) -> dict[str, Plan]:
    """Unique name → plan, without plans that remove nothing or stand there twice.

    Raises:
        PlanError: a plan is for another depth.
    """
    named: dict[str, Plan] = {}
    for plan in plans:
        plan.check_depth(depth)
        if plan.layers and not any((plan.name, plan.layers) == (p.name, p.layers) for p in named.values()):
            named[unused(plan.name, named, "#")] = plan
    return named


class _Files:
    """Opens files of outputs, each once: systems that go without the same layers share one."""

    def __init__(self, out: Path | None, header: Mapping[str, Any], opened: Opener) -> None:
        self.out, self.header, self._opened = out, header, opened
        self._files: dict[Path, SystemOutputs] = {}

    def name(self, stem: str) -> str:
        """Where the outputs of a system go; those of a control apart from the others."""
        control = f".{self.header['control']}" if "control" in self.header else ""
        return f"outputs/{stem}{control}.jsonl"

    def open(self, name: str, about: Mapping[str, Any]) -> SystemOutputs:
        """The file `name` in the folder; in memory if there is no folder."""
        if self.out is None:
            return SystemOutputs.open(None, about)
        path = self.out / name
        if path not in self._files:
            self._files[path] = self._opened(path, about)
        return self._files[path]


def _system(identity: SystemIdentity, loaded: LoadedModel, files: _Files, stem: str = FULL) -> System:
    info = loaded.info()
    removed = identity.plan.layers if identity.plan else []
    part = identity.plan.part if identity.plan else "layer"
    about = {
        "model": {
            "class": info.class_name,
            "fingerprint": info.fingerprint,
            "prompt": getattr(loaded.model.config, "prompt_template", None),
            "eos_ids": list(loaded.eos_ids),
            "note": {"ref": loaded.ref},
        },
        "removed": removed,
        # Left out for whole layers, so that outputs from before there were parts are taken up.
        **({} if part == "layer" else {"part": part}),
        **files.header,
    }
    # The same layers have the same file, whoever chose them.
    name = files.name(without(removed, part) if removed else stem)
    placed = replace(identity, outputs_file=None if files.out is None else name)
    return System(placed, loaded, files.open(name, about))


def without(removed: Sequence[int], part: Part = "layer") -> str:
    """A file name for a model without some layers, or a part of each."""
    prefix = "without" if part == "layer" else f"without-{part}"
    stem = f"{prefix}-" + "+".join(map(str, removed))
    digest = hashlib.sha256(stem.encode()).hexdigest()[:8]
    if list(removed) == list(range(removed[0], removed[-1] + 1)) and len(removed) > 1:
        return f"{prefix}-{removed[0]}-to-{removed[-1]}"
    return stem if len(stem) <= 60 else f"{prefix}-{len(removed)}-layers-{digest}"
