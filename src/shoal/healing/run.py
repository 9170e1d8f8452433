"""Healing: a pruned model and clips in, a healed checkpoint out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from shoal.data import fingerprint
from shoal.decoder.batches import prepared_batches
from shoal.errors import UsageError
from shoal.healing import targets
from shoal.healing.checkpoints import write_adapters, write_merged
from shoal.healing.cuts import Cut, cuts_of
from shoal.healing.linear import apply_linear, fit_linear
from shoal.healing.settings import HealSettings
from shoal.healing.targets import Target, TrainedParts
from shoal.healing.teacher import PruningHistory, check_teacher, pruning_history, share_weights
from shoal.models.lineage import HEAL_FILE
from shoal.models.loading import DTYPES, load_model
from shoal.models.lora import add_lora
from shoal.progress import Progress
from shoal.provenance import provenance
from shoal.pruning.folder import check_target
from shoal.pruning.in_memory import prune_in_place
from shoal.schema import HealRecord, InputKind, ModelInfo, Plan, read_json
from shoal.training.batches import examples_of, fill_audio_cache, make_batches, response_losses
from shoal.training.examples import Batches, TrainingExample
from shoal.training.loop import TrainingResult, load_trained, train
from shoal.training.processes import Processes, work_folder
from shoal.training.sampling import sample_clips
from shoal.training.settings import Objective, RuntimeOptions
from shoal.training.step import ModelWithLoss

if TYPE_CHECKING:
    from shoal.data import Dataset, Row
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

HELD_OUT = 0.05
"""Share of the clips that are not trained on, where no others are given to watch the loss on."""
MOST_HELD_OUT = 64
SaveAs = Literal["merged", "adapters"]


@dataclass(frozen=True)
class HealingJob:
    """Everything healing is asked for."""

    data: Dataset
    task: Task
    settings: HealSettings
    input: InputKind = "speech"
    plan: Plan | None = None
    validation: Dataset | None = None
    teacher: str | None = None
    out: Path | None = None
    save_as: SaveAs = "merged"
    force: bool = False
    trust_remote_code: bool = False
    how: RuntimeOptions = field(default_factory=RuntimeOptions)
    progress: Progress | None = None


@dataclass
class HealedModel:
    """A healed model in memory, with its record; low-rank layers are still beside the weights."""

    loaded: LoadedModel
    record: HealRecord
    folder: Path | None = None
    plan: Plan | None = None
    """What was removed on the way; None where the checkpoint had been pruned before."""
    whole: tuple[str, ...] = ()
    """Modules that were trained whole."""


def run_heal(model: LoadedModel, job: HealingJob) -> HealedModel:
    """Heal `model`, which is changed in place (with `replace` it is another that is healed).

    Args:
        model: a pruned checkpoint; or, with a plan, the model to prune first.
        job: what is asked for.

    Returns:
        The healed model. Only the first of several processes writes it.

    Raises:
        PlanError: no layer is missing where the target needs a cut.
        ModelError: the model does not have what the target trains, or the teacher is another model.
        UsageError: settings that make no sense together, or an output folder that is taken.
        TrainingError: see `shoal.training.loop.train`.
        VerificationError: the healed checkpoint is not what was in memory; it is not written.
    """
    target = targets.get(job.settings.target)
    _check_job(job, target)
    if job.out is not None:
        check_target(job.out, model.path if model.path != Path() else None, job.force)
    origin = pruning_history(model, job.plan)
    processes = Processes.now(cpu=model.device.type == "cpu")
    with work_folder(job.out, "healing", processes) as work:
        student = _student(model, job, target, origin)
        info = _pruned_info(student, origin, target)
        healing = _Healing(job, target, origin, student, work, processes)
        healed = healing.run(info)
        if job.plan is not None or student is not model:
            healed.plan = healing.plan
        if job.out is not None and healing.first:
            healed.folder = _write(healed, job, model, job.out)
    return healed


def finished(out: Path | None, model: ModelInfo, job: HealingJob) -> HealRecord | None:
    """The record of a folder in which this very healing is done already; None if it is not.

    Args:
        out: the folder.
        model: the model to heal.
        job: what is asked for.
    """
    if out is None or not (out / HEAL_FILE).is_file():
        return None
    record = HealRecord.load(out / HEAL_FILE)
    same = (
        record.model.fingerprint == model.fingerprint
        and record.settings == _described(job)
        and record.data.fingerprint == fingerprint(_split(job)[0])
    )
    return record if same else None


def _described(job: HealingJob) -> dict[str, Any]:
    """Everything that decides the result, besides model and clips."""
    plan = None if job.plan is None else job.plan.layers
    return {**job.settings.model_dump(), "input": job.input, "plan": plan, "save_as": job.save_as}


def _check_job(job: HealingJob, target: Target) -> None:
    objective = _objective(job.settings, target)
    if target.trained and not (objective.needs_decoder or objective.ctc):
        raise UsageError(
            "no term has a weight, so there is nothing to learn", fix="give --ce, --kl or --hidden"
        )
    if job.save_as == "adapters" and not target.adapts:
        raise UsageError(
            f"{target.name} changes whole weights, which adapters do not hold",
            where="--save",
            fix="use merged",
        )
    if job.save_as == "adapters" and job.plan is not None:
        raise UsageError(
            "adapters lie beside a pruned checkpoint, and here there is none",
            where="--save adapters",
            fix="write it with shoal prune first, and heal that",
        )


def _objective(settings: HealSettings, target: Target) -> Objective:
    """What is minimised: a target that learns from hidden states does only that, unless it is told otherwise."""
    if target.hidden_only and settings.objective == Objective():
        return Objective(ce=0.0, hidden=1.0)
    return settings.objective


def _student(model: LoadedModel, job: HealingJob, target: Target, origin: PruningHistory) -> LoadedModel:
    """The pruned model: `model` itself, or where the target puts layers back, the unpruned one without fewer."""
    plan = origin.plan
    kept = None if plan is None else target.kept(plan)
    if job.plan is not None:
        assert kept is not None
        prune_in_place(model.model, kept, family=model.family)
        return model
    if plan is None or kept is None or kept.layers == plan.layers:
        return model
    fresh = _load(job.teacher or str(origin.teacher), model, job)
    check_teacher(fresh, model, plan)
    prune_in_place(fresh.model, kept, family=fresh.family)
    return fresh


def _pruned_info(student: LoadedModel, origin: PruningHistory, target: Target) -> ModelInfo:
    """The pruned model before healing; what `student.info` says afterwards is of the healed one."""
    student.forget_info()
    info = student.info()
    student.forget_info()
    if origin.plan is None:
        return info
    return info.model_copy(update={"removed_layers": target.kept(origin.plan).layers})


def _load(ref: str, like: LoadedModel, job: HealingJob) -> LoadedModel:
    return load_model(
        ref, device=str(like.device), dtype=like.dtype_name, trust_remote_code=job.trust_remote_code
    )


def _split(job: HealingJob) -> tuple[list[Row], list[Row]]:
    """Rows to train on, and rows of the same data to watch the loss on; the same in every run."""
    rows = job.data.rows
    if job.validation is not None:
        return list(rows), []
    count = min(MOST_HELD_OUT, round(HELD_OUT * len(rows)))
    ordered = sorted(range(len(rows)), key=lambda at: rows[at].id)
    chosen = set(np.random.default_rng([job.settings.seed, 7]).permutation(ordered)[:count].tolist())
    return (
        [row for at, row in enumerate(rows) if at not in chosen],
        [row for at, row in enumerate(rows) if at in chosen],
    )


class _Healing:
    """One run, from a pruned model in memory to a healed one.

    Args:
        job: what is asked for.
        target: what is trained.
        origin: where the model comes from.
        student: the pruned model.
        work: folder for checkpoints.
        processes: those that train together.
    """

    def __init__(
        self,
        job: HealingJob,
        target: Target,
        origin: PruningHistory,
        student: LoadedModel,
        work: Path,
        processes: Processes,
    ) -> None:
        self.job, self.target, self.origin, self.student, self._work = job, target, origin, student, work
        self._objective = _objective(job.settings, target)
        self.plan = None if origin.plan is None else target.kept(origin.plan)
        self._cuts: list[Cut] = [] if self.plan is None else cuts_of(self.plan)
        self._processes = processes
        self._teacher: LoadedModel | None = None
        self._linear_parameters = 0
        self._linear_tensors: dict[str, torch.Tensor] = {}
        self._notes: list[str] = []

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self._processes.rank == 0

    def run(self, info: ModelInfo) -> HealedModel:
        """Heal, and say how."""
        rows, held_out = _split(self.job)
        trained_on = {row.id for row in rows}
        examples = [each for each in examples_of(self.job.data, self.job.task) if each.row.id in trained_on]
        watched = self._watched(held_out)
        choice = self.target.choose(self.student, self._cuts)
        before = self._loss(watched)
        seconds = self._fit_linear(rows)
        result, parameters = TrainingResult(0, [], seconds, 0), self._linear_parameters
        if self.target.trained:
            result, parameters = self._train(choice, examples)
            if result.sharded is not None and self.first:
                self.student = self._gathered(choice, result.sharded)
        record = HealRecord(
            provenance=provenance(device=str(self.student.device), dtype=self.student.dtype_name),
            model=info,
            teacher=None if self._teacher is None else self._teacher.ref,
            target=self.target.name,
            settings=_described(self.job),
            task=self.job.task.name,
            data=self.job.data.info().model_copy(
                update={"clips": len(rows), "fingerprint": fingerprint(rows)}
            ),
            trained_parameters=parameters,
            steps=result.steps,
            clips=result.clips,
            seconds=round(result.seconds, 2),
            last_loss=result.losses[-1] if result.losses else None,
            loss_before=before,
            loss_after=self._loss(watched),
            notes=[*self._notes, *result.notes],
        )
        return HealedModel(self.student, record, whole=choice.whole)

    def _watched(self, held_out: Sequence[Row]) -> Batches | None:
        """Clips that are not trained on, for the loss before and after."""
        data = self.job.validation or self.job.data
        wanted = None if self.job.validation is not None else {row.id for row in held_out}
        examples = [
            each for each in examples_of(data, self.job.task) if wanted is None or each.row.id in wanted
        ]
        return self._batches(examples) if examples else None

    def _batches(self, examples: Sequence[TrainingExample], *, through: bool = False) -> Batches:
        return make_batches(
            self.student,
            examples,
            input=self.job.input,
            through_projector=through,
            features=self.job.how.features,
            processes=self._processes,
            progress=self.job.progress,
        )

    def _loss(self, watched: Batches | None) -> float | None:
        if watched is None or not self.first:
            return None
        return response_losses(self.student, watched).mean

    def teacher(self) -> LoadedModel:
        """The unpruned model.

        Raises:
            UsageError: it is not known which that is.
            ModelError: it is another model.
        """
        if self._teacher is None:
            ref = self.job.teacher or self.origin.teacher
            if ref is None:
                raise UsageError(
                    "it is not known which model was pruned", where="--teacher", fix="give the unpruned model"
                )
            self._teacher = _load(ref, self.student, self.job)
            check_teacher(self._teacher, self.student, self.plan)
        return self._teacher

    def _fit_linear(self, rows: Sequence[Row]) -> float:
        """The closed form, as the target itself or as the start of another; returns its seconds, without encoding."""
        if self.target.trained and self.job.settings.start != "linear":
            return 0.0
        assert self.plan is not None
        wanted = self.job.settings.linear
        every = max(1, len(rows) // wanted.clips)
        chosen = list(rows)[::every][: wanted.clips]
        if self.job.input == "speech":
            fill_audio_cache(self.teacher(), self.job.data, chosen, features=self.job.how.features)
        begun = time.perf_counter()
        batches = prepared_batches(
            self.teacher(), self.job.data, self.job.task, self.job.input, 8, rows=chosen
        )
        tensors, fits = fit_linear(
            self.teacher(), self.plan, batches, fit=wanted.fit, ridge=wanted.ridge, weighting=wanted.weighting
        )
        apply_linear(self.student.model, tensors)
        self._linear_tensors = tensors
        self._linear_parameters = sum(each.parameters for each in fits)
        for each in fits:
            self._notes.append(
                f"linear over layers {each.cut.start}-{each.cut.stop - 1}: relative error "
                f"{each.error_before:.3f} to {each.error_after:.3f} ({each.positions} positions, {len(chosen)} clips)"
            )
        return time.perf_counter() - begun

    def _train(self, choice: TrainedParts, examples: Sequence[TrainingExample]) -> tuple[TrainingResult, int]:
        settings = self.job.settings
        teacher = self.teacher() if self._objective.needs_teacher else None
        mark(self.student, choice, settings)
        if teacher is not None and self.plan is not None:
            share_weights(teacher, self.student, self.plan.keep)
        batches = self._batches(examples, through=projector_trained(self.student, choice))
        student = ModelWithLoss(
            self.student,
            batches,
            self._objective,
            teacher=teacher,
            cuts=layers_behind(self._cuts, len(self.student.layers)) if self._objective.hidden else (),
        )
        parameters = sum(each.numel() for each in student.trainable().values())
        sampled = sample_clips(
            np.zeros(len(batches.examples), np.int64),
            batches.lengths,
            weights=[None],
            steps=settings.optimisation.steps,
            clips=settings.optimisation.clips,
            seed=settings.seed,
        )
        result = train(
            student,
            sampled,
            settings.optimisation,
            self._work,
            how=self.job.how,
            settings=self._identity(batches),
            seed=settings.seed,
            what="heal",
            progress=self.job.progress,
            sharded=True,
        )
        return result, parameters

    def _gathered(self, choice: TrainedParts, trained: Path) -> LoadedModel:
        """The student once more, whole, in this process alone: what was trained of it came back in shards."""
        whole = _load(self.student.ref, self.student, self.job)
        if len(whole.layers) != len(self.student.layers):
            assert self.plan is not None
            prune_in_place(whole.model, self.plan, family=whole.family)
        apply_linear(whole.model, self._linear_tensors)
        mark(whole, choice, self.job.settings)
        load_trained(whole.model, trained, prefix="model.")
        return whole

    def _identity(self, batches: Batches) -> dict[str, Any]:
        """What an unfinished run must share with this one to be taken up."""
        return {
            "model": self.student.info().fingerprint,
            "clips": batches.fingerprint,
            "task": self.job.task.name,
            "processes": self._processes.world,
            **{key: value for key, value in _described(self.job).items() if key != "save_as"},
        }


def mark(loaded: LoadedModel, choice: TrainedParts, settings: HealSettings) -> None:
    """Freeze everything but what is chosen, and put the low-rank layers in; their start depends on the seed alone."""
    loaded.model.requires_grad_(False)
    if choice.lora:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            add_lora(
                loaded.model, choice.lora, rank=settings.rank, alpha=settings.alpha, dropout=settings.dropout
            )
    for name in choice.whole:
        for parameter in loaded.model.get_submodule(name).parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)


def projector_trained(loaded: LoadedModel, choice: TrainedParts) -> bool:
    """Whether the projector is among what is trained."""
    projector = loaded.family.projector(loaded.model)
    return any(loaded.model.get_submodule(name) is projector for name in choice.whole)


def layers_behind(cuts: Sequence[Cut], depth: int) -> list[tuple[int, int]]:
    """Behind each cut: the layer of the student, which has `depth` of them, and that of its teacher."""
    return [(depth if cut.receiver is None else cut.receiver, cut.stop) for cut in cuts]


def _write(healed: HealedModel, job: HealingJob, source: LoadedModel, out: Path) -> Path:
    if job.save_as == "adapters":
        return write_adapters(
            healed.loaded,
            out,
            base=source.ref,
            record=healed.record,
            modules_to_save=healed.whole,
            force=job.force,
        )
    return write_merged(
        healed.loaded,
        out,
        record=healed.record,
        plan=healed.plan,
        dtype=stored_dtype(source.path),
        force=job.force,
    )


def stored_dtype(folder: Path) -> torch.dtype | None:
    """What a checkpoint is stored in, as its config says; None where it does not."""
    if not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    return DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch."))
