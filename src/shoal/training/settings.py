"""What a training run does (`Optimisation`, `Objective`) and how it is carried out (`RuntimeOptions`), kept apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from cyclopts import Group, Parameter
from pydantic import Field

from shoal.settings import DATA, FLAT, MODEL, NO_OPTION, OUTPUT, SPEED, Settings

TRAINED = Parameter(group=Group("What is trained", sort_key=3.1))
LORA = Parameter(group=Group("Low-rank updates (LoRA)", sort_key=3.15))
TRAINING = Parameter(group=Group("How it is trained", sort_key=3.2))


class Optimisation(Settings):
    """Steps of AdamW (arXiv 1711.05101) over batches of `clips`."""

    steps: Annotated[int, TRAINING] = Field(default=500, ge=1)
    """Number of optimiser steps."""
    clips: Annotated[int, TRAINING] = Field(default=16, ge=1)
    """Clips a step over all processes (the effective batch size), whatever fits into memory at once."""
    projector_lr: Annotated[float, TRAINING] = Field(default=5e-4, gt=0)
    """Learning rate of the projector."""
    lora_lr: Annotated[float, TRAINING] = Field(default=6e-4, gt=0)
    """Learning rate of low-rank updates (LoRA)."""
    full_lr: Annotated[float, TRAINING] = Field(default=1e-4, gt=0)
    """Learning rate of weights that are trained whole, without a low-rank update (head, replace)."""
    warmup: Annotated[float, TRAINING] = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which the learning rate rises from 0."""
    schedule: Annotated[Literal["cosine", "linear", "constant"], TRAINING] = "cosine"
    """Course of the learning rate after the warm-up."""
    weight_decay: Annotated[float, TRAINING] = Field(default=0.0, ge=0)
    """Weight decay of AdamW."""
    max_grad_norm: Annotated[float, TRAINING] = Field(default=1.0, gt=0)
    """Norm that gradients are clipped to before every step."""


class Objective(Settings):
    """What a step minimises: a weighted sum, each term a mean over the whole step."""

    ce: Annotated[float, TRAINING] = Field(default=1.0, ge=0)
    """Weight of the cross-entropy of the response, in nats a token."""
    kl: Annotated[float, TRAINING] = Field(default=0.0, ge=0)
    """Weight of distillation: the Kullback-Leibler divergence from the unpruned model on the response (arXiv
    1503.02531), in nats a token."""
    temperature: Annotated[float, TRAINING] = Field(default=1.0, gt=0)
    """Temperature of both distributions in --kl; the gradient is scaled by its square."""
    hidden: Annotated[float, TRAINING] = Field(default=0.0, ge=0)
    """Weight of the hidden states behind the cut: squared distance from the unpruned model's, relative to their squared
    norm, mean over the positions of a clip, the cuts, and the clips."""
    ctc: Annotated[float, NO_OPTION] = Field(default=0.0, ge=0)
    """Weight of CTC of the projector's outputs against the input embeddings, nats a token, on clips whose response is
    what is said in them."""
    ctc_every: Annotated[int, NO_OPTION] = Field(default=1, ge=1)
    """Steps from one with the CTC term to the next."""

    @property
    def needs_teacher(self) -> bool:
        """Whether the unpruned model must be asked."""
        return self.kl > 0 or self.hidden > 0

    @property
    def needs_decoder(self) -> bool:
        """Whether the decoder must be run at all."""
        return self.ce > 0 or self.kl > 0 or self.hidden > 0

    def weights(self, step: int) -> dict[str, float]:
        """The weight of each term in step `step` (0 …)."""
        ctc = self.ctc if step % self.ctc_every == 0 else 0.0
        return {"ce": self.ce, "kl": self.kl, "hidden": self.hidden, "ctc": ctc}


class LoraSettings(Settings):
    """Low-rank updates (LoRA, arXiv 2106.09685); the defaults are those of arXiv 2603.05121."""

    rank: Annotated[int, LORA] = Field(default=64, ge=1)
    """LoRA rank."""
    alpha: Annotated[float, LORA, Parameter(show_default=False)] = Field(
        default_factory=lambda fields: float(fields["rank"]), gt=0
    )
    """LoRA alpha: updates are scaled by alpha / rank; default: the rank, so that the scaling is 1."""
    dropout: Annotated[float, LORA] = Field(default=0.05, ge=0, lt=1)
    """Dropout before low-rank updates."""


class RuntimeOptions(Settings):
    """What changes the time a run takes and not what comes out, but for rounding."""

    max_positions: Annotated[int, SPEED] = Field(default=16_384, ge=1)
    """Most padded positions in one forward pass of the decoder; a larger step is taken in parts."""
    workers: Annotated[int, SPEED] = Field(default=0, ge=0)
    """Number of processes that prepare batches ahead of the step."""
    precision: Annotated[Literal["no", "bf16", "fp16"], SPEED] = "no"
    """Precision of the forward pass (autocast); no is that of the weights."""
    gradient_checkpointing: Annotated[bool, SPEED] = False
    """Compute layers again in the backward pass: less memory, more time."""
    features: Annotated[Path | None, SPEED, Parameter(metavar="DIR")] = None
    """Folder where the outputs of the frozen encoder are kept; default: Shoal's cache."""
    save_every: Annotated[int | None, OUTPUT] = Field(default=None, ge=1)
    """Steps between checkpoints of the unfinished run; default: a tenth of the run, 500 at most."""
    report_to: Annotated[tuple[str, ...], OUTPUT, Parameter(metavar="NAME")] = ()
    """Tracker to report losses to: trackio, tensorboard, wandb … Repeatable."""
    run_name: Annotated[str | None, NO_OPTION] = None
    """Name of the run in trackers; default: the command and the output folder."""
    extra: Annotated[dict[str, object], NO_OPTION] = Field(default={})
    """Further `TrainingArguments`."""

    def save_steps(self, steps: int) -> int:
        """Steps between checkpoints in a run of `steps`."""
        return self.save_every or min(500, max(1, steps // 10))

    def named(self, name: str) -> Self:
        """With this name of the run, unless it has one."""
        return self if self.run_name else self.model_copy(update={"run_name": name})


class TrainSettings(Settings):
    """How a recipe is carried out."""

    data_root: Annotated[Path, DATA, Parameter(metavar="DIR")] = Path()
    """Folder that relative paths of manifests in the recipe start from."""
    device: Annotated[str, MODEL] = "auto"
    """Device to train on: cpu, cuda, cuda:1, mps; auto is CUDA if there is a GPU, else MPS, else the CPU."""
    dtype: Annotated[Literal["auto", "float32", "bfloat16", "float16"], MODEL] = "auto"
    """Precision of the frozen weights; auto is float32. What is trained is float32."""
    force: Annotated[bool, OUTPUT] = False
    """Replace the output folder if there is something already."""
    how: Annotated[RuntimeOptions, FLAT] = RuntimeOptions()
    """What changes the time it takes and not the result."""
