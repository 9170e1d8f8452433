"""One step by hand, Shoal's way and the plain way: its loss, its gradients, and where its time goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from shoal.training.step import ModelWithLoss, StepTotals
from support.plain_training import Collator, Item
from support.step_clock import Laps

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel


@dataclass(frozen=True)
class Step:
    """What a step came to."""

    loss: float
    gradients: dict[str, Tensor]
    """Of every trained parameter, by its name in the model, float64 on the CPU."""
    seconds: dict[str, float]
    """Of its parts."""


@dataclass(frozen=True)
class Agreement:
    """How two steps compare."""

    loss: float
    """Relative difference."""
    cosine: float
    """Of all gradients as one vector."""
    lowest: float
    """The lowest cosine of a single tensor's gradient."""


def plain_step(loaded: LoadedModel, items: Sequence[Item]) -> Step:
    """Collate, encode, forward with full logits, backward."""
    model: Any = loaded.model
    model.train()
    model.zero_grad()
    laps = Laps(loaded.device)
    batch = Collator(loaded.processor)(items)
    laps.lap("collate")
    hook = model.encoder.register_forward_hook(lambda *_: laps.lap("encode"))
    loss = model(**{name: each.to(loaded.device) for name, each in batch.items()}, use_cache=False).loss
    hook.remove()
    laps.lap("forward")
    loss.backward()
    laps.lap("backward")
    return _ended(loss, model, laps)


def our_step(student: ModelWithLoss, examples: Sequence[int]) -> Step:
    """Collate from stored states, forward with logits where the loss is, backward."""
    batches, device = student.batches, student.loaded.device
    chosen = np.asarray(examples, np.int64)
    student.train()
    student.zero_grad()
    laps = Laps(device)
    batch = batches.collate(chosen, np.zeros_like(chosen))
    laps.lap("collate")
    moved = {name: each.to(device) if isinstance(each, Tensor) else each for name, each in batch.items()}
    scale = StepTotals(tokens=float(batches.targets[chosen].sum()), clips=float(len(chosen)))
    loss = student(moved, scale, student.objective.weights(0))["loss"]
    laps.lap("forward")
    loss.backward()
    laps.lap("backward")
    return _ended(loss, student.model, laps)


def _ended(loss: Tensor, model: nn.Module, laps: Laps) -> Step:
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    gradients = {
        name: torch.zeros(each.shape, dtype=torch.float64) if each.grad is None else each.grad.detach().double().cpu()
        for name, each in trained.items()
    }
    model.zero_grad()
    model.eval()
    return Step(float(loss.detach()), gradients, laps.seconds)


def compare(ours: Step, plain: Step) -> Agreement:
    """Loss and gradients of the same batch.

    Raises:
        SystemExit: they do not train the same parameters.
    """
    if ours.gradients.keys() != plain.gradients.keys():
        raise SystemExit("the two sides do not train the same parameters")
    pairs = [(each.flatten(), plain.gradients[name].flatten()) for name, each in ours.gradients.items()]
    whole = torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])
    return Agreement(
        loss=abs(ours.loss - plain.loss) / abs(plain.loss),
        cosine=_cosine(*whole),
        lowest=min(_cosine(a, b) for a, b in pairs),
    )


def _cosine(a: Tensor, b: Tensor) -> float:
    """Of two vectors; 0 if one is zero."""
    norms = float(a.norm() * b.norm())
    return float(a @ b) / norms if norms else 0.0
