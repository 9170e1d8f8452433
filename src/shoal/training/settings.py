"""What a training run does (`Optimisation`, `Objective`) and how it is carried out (`RuntimeOptions`), kept apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from shoal.schema import Record


class Strict(Record):
    """Base of everything that a person writes by hand: an unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Optimisation(Strict):
    """Steps of AdamW (arXiv 1711.05101) over batches of `clips`."""

    steps: int = Field(ge=1)
    clips: int = Field(ge=1)
    """Clips a step, over all processes: the effective batch, whatever fits into memory at once."""
    projector_lr: float = Field(default=5e-4, gt=0)
    lora_lr: float = Field(default=6e-4, gt=0)
    full_lr: float = Field(default=1e-4, gt=0)
    """Of weights that are trained themselves, without a low-rank update."""
    warmup: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which the rate rises from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)


class Objective(Strict):
    """What a step minimises: a weighted sum, each term a mean over the whole step."""

    ce: float = Field(default=1.0, ge=0)
    """Cross-entropy of the response, nats a token."""
    kl: float = Field(default=0.0, ge=0)
    """Kullback-Leibler divergence of the student from the teacher on the response (arXiv 1503.02531), nats a token."""
    temperature: float = Field(default=1.0, gt=0)
    """Of both distributions in `kl`, whose gradient is scaled by its square."""
    hidden: float = Field(default=0.0, ge=0)
    """Squared distance between the state behind a cut and the teacher's, relative to the teacher's squared norm, mean
    over the positions of a clip, the cuts, and the clips."""
    ctc: float = Field(default=0.0, ge=0)
    """CTC of the projector's outputs against the input embeddings, nats a token, on clips whose response is what is
    said in them."""
    ctc_every: int = Field(default=1, ge=1)
    """Steps from one with the CTC term to the next."""

    @property
    def needs_teacher(self) -> bool:
        """Whether the unpruned model must be asked."""
        return self.kl > 0 or self.hidden > 0

    @property
    def needs_decoder(self) -> bool:
        """Whether the decoder must be run at all."""
        return self.ce > 0 or self.kl > 0 or self.hidden > 0


class LoraSettings(Strict):
    """Low-rank updates (LoRA, arXiv 2106.09685); the defaults are those of arXiv 2603.05121."""

    rank: int = Field(default=64, ge=1)
    alpha: float = Field(default_factory=lambda given: float(given["rank"]), gt=0)
    """Their scaling is `alpha / rank`; the rank unless given, so that the scaling is 1."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Of their inputs."""


@dataclass(frozen=True)
class RuntimeOptions:
    """What changes the time a run takes and not what comes out, but for rounding."""

    max_positions: int = 16_384
    """Padded positions that pass through the decoder at once; a step of more is taken in parts."""
    workers: int = 0
    """Processes that put batches together ahead of the step."""
    save_every: int | None = None
    """Steps between checkpoints; default is a tenth of the run, 500 at most."""
    report_to: tuple[str, ...] = ()
    """Trackers of the Trainer: trackio, tensorboard, wandb …"""
    run_name: str | None = None
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Autocast of the Trainer."""
    features: Path | None = None
    """Where states of the frozen encoder are kept; default is Shoal's cache."""
    gradient_checkpointing: bool = False
    extra: dict[str, object] = field(default_factory=dict)
    """Further `TrainingArguments`."""

    def save_steps(self, steps: int) -> int:
        """Steps between checkpoints in a run of `steps`."""
        return self.save_every or min(500, max(1, steps // 10))
