"""The one training loop: transformers' Trainer, with steps drawn beforehand, split where memory ends, and resumed.

A step is the same clips in every run (see `sampling`), its random numbers are seeded by its number, and its loss is
divided by totals of the whole step. So it does not matter how a step is cut into parts, over how many processes it is
spread, or how often the run was killed: the same gradients come out, to the last bit where the cutting is the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from shoal.errors import TrainingError, UsageError
from shoal.machine import out_of_memory, return_memory
from shoal.models.adapters import write_tensors
from shoal.models.contexts import quiet
from shoal.progress import Progress, report_progress
from shoal.schema import write_text
from shoal.training.examples import to_device
from shoal.training.fsdp import check_fsdp, ready_to_shard
from shoal.training.micro_batches import TrainingSteps, halved
from shoal.training.run_folder import (
    LOG,
    MARKER,
    TENSORS,
    claim_folder,
    last_checkpoint,
    load_trained,
    read_log,
    steps_of,
)
from shoal.training.sampling import Ints, SampledClips
from shoal.training.settings import Optimisation, RuntimeOptions
from shoal.training.step import ModelWithLoss, StepTotals

NAMED = 8
"""Clips a message names at most."""


@dataclass
class TrainingResult:
    """What a run came to."""

    steps: int
    losses: list[float]
    """Of every step, all terms together."""
    seconds: float
    """Of all steps, over all runs that were needed."""
    clips: int
    notes: list[str] = field(default_factory=list)
    sharded: Path | None = None
    """Where the parameters are sharded over processes (FSDP): the file that holds all that was trained."""


def train(
    student: ModelWithLoss,
    sampled: SampledClips,
    optimisation: Optimisation,
    folder: Path,
    *,
    how: RuntimeOptions | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    what: str = "train",
    progress: Progress | None = None,
    sharded: bool = False,
) -> TrainingResult:
    """Train `student` in place; what an earlier, interrupted run in `folder` has reached is taken up.

    Args:
        student: what is trained, and what it minimises.
        sampled: the clips of every step.
        optimisation: steps, rates, schedule.
        folder: for checkpoints and the log; stays when the run is done.
        how: what does not change the result.
        settings: everything that decides the result; a run with others in `folder` is not taken up.
        seed: of dropout.
        what: name of the progress.
        progress: called with (what, steps done, steps in all).
        sharded: whether the caller can take `TrainingResult.sharded`, so that FSDP may be used.

    Raises:
        UsageError: `folder` holds a run with other settings, or the launcher asks for what cannot be done.
        TrainingError: the loss is not a number, or a single clip does not fit into memory.
    """
    how = how or RuntimeOptions()
    claim_folder(folder, settings or {})
    resume = last_checkpoint(folder)
    trainer = _Trainer(student, sampled, optimisation, folder, how, seed, what, progress)
    trainer.check(sharded=sharded)
    trainer.truncate_log(0 if resume is None else steps_of(resume))
    with quiet(), student.layers_again() if how.gradient_checkpointing else nullcontext():
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    student.train(False)
    return trainer.result()


class _Trainer(Trainer):
    """The Trainer, told what a step, a checkpoint and a log are here."""

    def __init__(
        self,
        student: ModelWithLoss,
        sampled: SampledClips,
        optimisation: Optimisation,
        folder: Path,
        how: RuntimeOptions,
        seed: int,
        what: str,
        progress: Progress | None,
    ) -> None:
        steps = len(sampled.examples)
        self.student, self._sampled, self._how = student, sampled, how
        self._optimisation, self._seed = optimisation, seed
        self._splits = 0
        self._notes: list[str] = []
        self._terms: dict[str, float] = {}
        self._folder = folder
        arguments = _arguments(optimisation, steps, folder, how, seed, student)
        super().__init__(model=student, args=arguments, callbacks=[_Log(self, what, progress)])
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # the loss is divided by totals of the step already

    def check(self, *, sharded: bool) -> None:
        """Refuse what the launcher asks for and cannot be; and tell FSDP, where it is used, what it must know.

        Raises:
            UsageError: see there.
        """
        world = self.args.world_size
        if self._sampled.examples.shape[1] < world:
            raise UsageError(
                f"a step of {self._sampled.examples.shape[1]} clips cannot be shared by {world} processes",
                where="--clips",
                fix="give more clips a step, or start fewer processes",
            )
        if not self.is_fsdp_enabled:
            return
        plugin = self.accelerator.state.fsdp_plugin
        check_fsdp(plugin, self.student, sharded=sharded)
        ready_to_shard(self.student, plugin, self.args.device)

    # --- What it is fed ---

    def get_train_dataloader(self) -> Any:
        """One item a step, of this process's share; not prepared, since `TrainingSteps` knows the processes itself."""
        steps = TrainingSteps(
            self.student.batches,
            self._sampled,
            self.args.process_index,
            self.args.world_size,
            self._how.max_positions,
            together=self.is_fsdp_enabled,
        )
        return DataLoader(
            steps,
            batch_size=1,
            shuffle=False,
            collate_fn=itemgetter(0),
            num_workers=self._how.workers,
            pin_memory=False,
            persistent_workers=False,
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with a rate for each kind of parameter."""
        del model
        self.optimizer: torch.optim.Optimizer | None
        if self.optimizer is None:
            groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
            projector = self.student.loaded.family.projector(self.student.model)
            projected = set() if projector is None else set(projector.parameters())
            for name, parameter in self.student.trainable().items():
                # AdamW takes a group's parameters at once: sharded ones and whole ones do not mix.
                whole = self.is_fsdp_enabled and parameter.dim() == 0
                rate = self._rate(name, projected=parameter in projected)
                groups.setdefault((rate, whole), []).append(parameter)
            self.optimizer = torch.optim.AdamW(
                [{"params": group, "lr": rate} for (rate, _), group in groups.items()],
                weight_decay=self._optimisation.weight_decay,
            )
        return self.optimizer

    def _rate(self, name: str, *, projected: bool) -> float:
        if ".lora_" in name:
            return self._optimisation.lora_lr
        if projected or name.startswith("ctc."):
            return self._optimisation.projector_lr
        return self._optimisation.full_lr

    # --- A step ---

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """The gradients of one step, in as many micro-batches as memory asks for; returns its loss."""
        del num_items_in_batch
        model.train()
        # What did not fit into memory in one step is not tried again in the next.
        inputs = self._split(inputs, self._splits)
        while True:
            try:
                return self._whole_step(model, inputs)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                reason = " ".join(str(error).split())[:120]
            if self.is_fsdp_enabled:
                raise TrainingError(
                    f"step {inputs['step'] + 1}: memory ran out ({reason}); sharded parameters do not let one process "
                    "take its part again, so give a smaller --max-positions and run the command again"
                )
            # Outside the handler, which would keep the failed step's tensors alive.
            model.zero_grad()
            return_memory()
            inputs = self._halved(inputs, reason)

    def _halved(self, inputs: dict[str, Any], reason: str) -> dict[str, Any]:
        largest = max(part.stop - part.start for part in inputs["slices"])
        if largest == 1:
            names = self.student.batches.names(inputs["examples"])
            raise TrainingError(
                f"step {inputs['step'] + 1}: memory ran out on a single clip of {', '.join(names[:NAMED])} ({reason}); "
                "train with less (a smaller rank, another target, shorter clips, --gradient-checkpointing)"
            )
        self._splits += 1
        self._notes.append(f"memory ran out at step {inputs['step'] + 1}: parts of {largest} clips are halved")
        return self._split(inputs, 1)

    def _split(self, inputs: dict[str, Any], times: int) -> dict[str, Any]:
        """The step in smaller micro-batches: the effective batch stays."""
        slices = inputs["slices"]
        for _ in range(times):
            slices = halved(slices)
        if slices == inputs["slices"]:
            return inputs
        collate, examples, variants = self.student.batches.collate, inputs["examples"], inputs["variants"]
        smaller = [collate(examples[part], variants[part]) for part in slices]
        return inputs | {"slices": slices, "batches": smaller}

    def _whole_step(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        step, world = inputs["step"], self.args.world_size
        mixed = np.random.SeedSequence([self._seed, step, self.args.process_index]).generate_state(1, np.uint64)
        torch.manual_seed(int(mixed[0] >> 1))
        totals, terms = self._totals(step), self.student.objective.weights(step)
        total = torch.zeros((), device=self.args.device)
        sums: dict[str, Tensor] = {}
        passes = list(zip(inputs["batches"], inputs["slices"], strict=True))
        passes += passes[-1:] * inputs["idle"]
        last = len(passes) - 1
        for number, (batch, part) in enumerate(passes):
            idle = number >= len(inputs["batches"])
            # Processes exchange their gradients once, after the last micro-batch.
            with self.accelerator.no_sync(model) if number < last else nullcontext():
                with self.compute_loss_context_manager():
                    losses = model(to_device(batch, self.args.device), totals, terms)
                self._check(losses["loss"], step, inputs["examples"][part])
                # Processes average their gradients, but a loss is divided by totals of all of them already.
                self.accelerator.backward(losses["loss"] * (0 if idle else world))
            if idle:
                continue
            total += losses["loss"].detach() * world
            for name, value in losses.items():
                sums[name] = sums.get(name, torch.zeros_like(value.detach())) + value.detach()
        if self.is_fsdp_enabled:
            self._average_whole()
        self._keep_terms(sums)
        return total

    def _average_whole(self) -> None:
        """The gradients of what FSDP leaves whole, which it does not bring together either."""
        for parameter in self.student.trainable().values():
            if parameter.grad is not None and not isinstance(parameter, DTensor):
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")

    def _keep_terms(self, sums: Mapping[str, Tensor]) -> None:
        """Totals over all processes, exact: the Trainer's own log rounds."""
        stacked = torch.stack(list(sums.values())).float()
        if self.args.world_size > 1:
            stacked = self.accelerator.reduce(stacked, reduction="sum")
        self._terms = dict(zip(sums, stacked.tolist(), strict=True))

    def _totals(self, step: int) -> StepTotals:
        examples, batches = self._sampled.examples[step], self.student.batches
        return StepTotals(
            tokens=float(batches.targets[examples].sum()),
            clips=float(len(examples)),
            ctc_tokens=float(max(1, batches.ctc_tokens[examples].sum())),
        )

    def _check(self, loss: Tensor, step: int, examples: Ints) -> None:
        if bool(torch.isfinite(loss)):
            return
        names = self.student.batches.names(examples)
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        kept = last_checkpoint(self._folder)
        where = f"the last good checkpoint is {kept}" if kept else "no checkpoint was reached"
        raise TrainingError(
            f"step {step + 1}: the loss is {loss.item()} on the clips {', '.join(names[:NAMED])}{more}; {where}; "
            "try a lower rate or float32"
        )

    # --- Checkpoints: what is trained, and not the rest of the model ---

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """What is trained, whole; where it is sharded, all processes put it together and the first one writes."""
        folder, tensors = Path(output_dir or self.args.output_dir), {}
        for name, parameter in self.student.trainable().items():
            tensor = parameter.detach()
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.args.should_save:
                tensors[name] = whole.cpu()
        if self.args.should_save:
            write_tensors(folder / TENSORS, tensors)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        del model
        load_trained(self.student, Path(resume_from_checkpoint) / TENSORS)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Of a sharded model too without the model itself, most of which is frozen."""
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        from accelerate.utils import save_fsdp_optimizer

        plugin = self.accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        if self.args.should_save and self.lr_scheduler is not None:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # every process writes a file of its own
        if self.args.should_save:
            (Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / MARKER).touch()

    # --- The log ---

    def truncate_log(self, steps: int) -> None:
        """Forget what was logged after the checkpoint that the run goes on from."""
        lines = [line for line in read_log(self._folder) if line["step"] <= steps]
        if self.args.should_save:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            write_text(self._folder / LOG, text)

    def result(self) -> TrainingResult:
        """What the log says."""
        lines = read_log(self._folder)
        return TrainingResult(
            steps=len(lines),
            losses=[line["loss"] for line in lines],
            seconds=sum(line["seconds"] for line in lines),
            clips=int(self._sampled.examples.size),
            notes=[note for line in lines for note in line.get("notes", [])],
            sharded=last / TENSORS if self.is_fsdp_enabled and (last := last_checkpoint(self._folder)) else None,
        )

    def taken(self) -> tuple[dict[str, float], list[str]]:
        """Terms of the last step, and what there is to note since they were last taken."""
        notes, self._notes = self._notes, []
        return self._terms, notes


class _Log(TrainerCallback):
    """A line a step in `log.jsonl`, and the progress."""

    def __init__(self, trainer: _Trainer, what: str, progress: Progress | None) -> None:
        self._trainer, self._what, self._progress = trainer, what, progress
        self._started = 0.0

    def on_train_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        """Say how many steps an earlier run has left."""
        if state.is_world_process_zero:
            report_progress(self._progress, self._what, state.global_step, state.max_steps)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_log(self, args: Any, state: Any, _: Any, logs: dict[str, Any] | None = None, **__: Any) -> None:
        """Write the line; the Trainer's own summary at the end has no loss of a step and is left out."""
        if not state.is_world_process_zero or logs is None or "loss" not in logs:
            return
        terms, notes = self._trainer.taken()
        logs.update({name: round(value, 6) for name, value in terms.items()})
        line = {
            "step": state.global_step,
            **terms,
            "lr": logs.get("learning_rate"),
            "grad_norm": logs.get("grad_norm"),
            "seconds": round(time.perf_counter() - self._started, 4),
            **({"notes": notes} if notes else {}),
        }
        with (Path(args.output_dir) / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=float) + "\n")
        report_progress(self._progress, self._what, state.global_step, state.max_steps)


def _arguments(
    optimisation: Optimisation, steps: int, folder: Path, how: RuntimeOptions, seed: int, student: ModelWithLoss
) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=optimisation.lora_lr,
        lr_scheduler_type=optimisation.schedule,
        warmup_steps=round(optimisation.warmup * steps),
        max_grad_norm=optimisation.max_grad_norm,
        weight_decay=optimisation.weight_decay,
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=how.save_steps(steps),
        save_total_limit=2,
        report_to=list(how.report_to) or "none",
        run_name=how.run_name,
        disable_tqdm=True,
        seed=seed,
        use_cpu=student.loaded.device.type == "cpu",
        bf16=how.precision == "bf16",
        fp16=how.precision == "fp16",
        remove_unused_columns=False,
        label_names=[],
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        **how.extra,
    )
    # Several GPUs in one process would mean DataParallel; `accelerate launch` gives each a process.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments
