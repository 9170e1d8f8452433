"""One step: from a batch to what is minimised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle

from shoal.decoder.logits import logit_chunks, logits_at, token_losses
from shoal.decoder.states import first_of, last_states
from shoal.training.settings import Objective

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel
    from shoal.training.ctc import CtcAlignment
    from shoal.training.examples import Batch, Batches, DecoderInputs

TERMS = ("ce", "kl", "hidden", "ctc")


class _Reached(Exception):
    """The forward pass has come to where nothing behind it is needed."""


@dataclass(frozen=True, slots=True)
class StepTotals:
    """What the sums of a batch are divided by: totals of the whole step, over all parts and processes."""

    tokens: float
    """Target tokens."""
    clips: float
    ctc_tokens: float = 1.0
    """Tokens the CTC term is taken over."""


class ModelWithLoss(nn.Module):
    """The model in training, as one module whose forward gives the loss; what is trained has `requires_grad`.

    Dropout is active in low-rank updates alone: everything else is as in evaluation.

    Args:
        loaded: the model.
        feed: makes the decoder's inputs.
        objective: what is minimised.
        teacher: the unpruned model, where the objective asks for one; it is no part of this module's state.
        cuts: pairs of layers, of the student and of the teacher, whose inputs shall be alike; the depth stands for what
            leaves the last layer.
        ctc: the alignment, where the objective has a CTC term; trained with the model.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        batches: Batches,
        objective: Objective,
        *,
        teacher: LoadedModel | None = None,
        cuts: Sequence[tuple[int, int]] = (),
        ctc: CtcAlignment | None = None,
    ) -> None:
        super().__init__()
        self.model, self.ctc = loaded.model, ctc
        # In a tuple, so that a teacher is not registered: it is not trained, saved or sharded.
        self._held = (loaded, batches, teacher)
        self.objective, self.cuts = objective, list(cuts)

    @property
    def loaded(self) -> LoadedModel:
        """The student."""
        return self._held[0]

    @property
    def batches(self) -> Batches:
        """What it is fed."""
        return self._held[1]

    @contextmanager
    def layers_again(self) -> Iterator[None]:
        """While the block runs, layers are computed again in the backward pass instead of keeping what is inside."""
        layers = list(self.loaded.layers)
        for layer in layers:
            layer.forward = _again(layer.forward)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward  # the class's own stands behind it

    def train(self, mode: bool = True) -> ModelWithLoss:
        """Switch the dropout of low-rank updates; the rest of the model stays in evaluation mode."""
        super().train(False)
        self.training = mode
        for module in self.model.modules():
            for dropout in getattr(module, "lora_dropout", {}).values():
                dropout.train(mode)
        return self

    def trainable(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def forward(self, batch: Batch, scale: StepTotals, terms: Mapping[str, float]) -> dict[str, Tensor]:
        """The loss of a batch, and what it is made of.

        Args:
            batch: from `batches`, on the model's device.
            scale: what sums are divided by.
            terms: weight of each of `TERMS` in this step; 0 leaves it out.

        Returns:
            `loss`, to be differentiated; and detached `ce`, `kl`, `hidden`, `ctc` (where they were asked for), each
            already divided by its part of `scale`, so that the parts of a step add up.
        """
        inputs = self.batches.inputs(self.loaded, batch)
        losses: dict[str, Tensor] = {}
        if any(terms.get(name) for name in ("ce", "kl", "hidden")):
            losses |= self._decoder_terms(batch, inputs, scale, terms)
        if terms.get("ctc"):
            losses["ctc"] = self._ctc_sum(batch, inputs) / scale.ctc_tokens
        # A step without any term still needs a loss with a graph.
        zero = inputs.call["inputs_embeds"].sum() * 0.0 if not losses else 0.0
        total = sum((terms[name] * loss for name, loss in losses.items()), zero)
        return {"loss": torch.as_tensor(total)} | {name: loss.detach() for name, loss in losses.items()}

    def _decoder_terms(
        self, batch: Batch, inputs: DecoderInputs, scale: StepTotals, terms: Mapping[str, float]
    ) -> dict[str, Tensor]:
        wants_logits = bool(terms.get("ce") or terms.get("kl"))
        at_cuts = [pair[0] for pair in self.cuts] if terms.get("hidden") else []
        states, last = run_decoder(self.loaded, inputs, at_cuts, whole=wants_logits)
        teacher_states: list[Tensor] = []
        teacher_last: Tensor | None = None
        teacher = self._held[2]
        if teacher is not None and (at_cuts or terms.get("kl")):
            with torch.no_grad():
                layers = [pair[1] for pair in self.cuts] if at_cuts else []
                teacher_inputs = self.batches.inputs(teacher, batch)
                teacher_states, teacher_last = run_decoder(teacher, teacher_inputs, layers, whole=bool(terms.get("kl")))
        losses: dict[str, Tensor] = {}
        if last is not None:
            sums = self._logit_terms(inputs, last, teacher_last, terms)
            losses |= {name: total / scale.tokens for name, total in sums.items()}
        if at_cuts:
            pairs = zip(states, teacher_states, strict=True)
            distances = torch.stack([relative_distance(ours, theirs, inputs.real) for ours, theirs in pairs])
            losses["hidden"] = distances.mean(0).sum() / scale.clips
        return losses

    def _logit_terms(
        self, inputs: DecoderInputs, last: Tensor, teacher_last: Tensor | None, terms: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """Sums over all targets, a chunk of logits at a time."""
        ours = last.flatten(0, 1).index_select(0, inputs.index)
        theirs = None if teacher_last is None else teacher_last.flatten(0, 1).index_select(0, inputs.index)
        parts: list[Tensor] = []
        chunks = logit_chunks(self.loaded, ours.detach())
        for chunk in chunks:
            args = (ours[chunk], inputs.tokens[chunk], None if theirs is None else theirs[chunk])
            # Of several chunks, none keeps its logits for the backward pass.
            part = self._chunk(*args) if len(chunks) == 1 else checkpoint(self._chunk, *args, use_reentrant=False)
            parts.append(part)
        ce, kl = torch.stack(parts).sum(0)
        return {name: loss for name, loss in (("ce", ce), ("kl", kl)) if terms.get(name)}

    def _chunk(self, states: Tensor, tokens: Tensor, teacher_states: Tensor | None) -> Tensor:
        """(2,): the cross-entropy and the divergence from the teacher, summed over some targets."""
        logits = logits_at(self.loaded, states)
        ce = token_losses(logits, tokens, self.loaded.eos_ids).sum()
        teacher = self._held[2]
        if teacher is None or teacher_states is None:
            return torch.stack([ce, torch.zeros_like(ce)])
        with torch.no_grad():
            teacher_logits = logits_at(teacher, teacher_states)
        return torch.stack([ce, divergence(logits, teacher_logits, self.objective.temperature)])

    def _ctc_sum(self, batch: Batch, inputs: DecoderInputs) -> Tensor:
        """Sum of the CTC losses of the clips that can be aligned."""
        assert self.ctc is not None
        assert inputs.vectors is not None
        ints = self.batches.ints(batch)  # type: ignore[attr-defined]
        losses: Tensor = self.ctc(inputs.vectors, inputs.counts, ints["ctc_tokens"], ints["ctc_lengths"])
        return losses.sum()


def _again(forward: Any) -> Any:
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return checkpointed


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher ‖ student) in nats, summed over N positions, times the squared temperature (Hinton et al. 2015).

    Args:
        student: logits (N, V).
        teacher: logits (N, V).
        temperature: both are divided by it.
    """
    ours, theirs = F.log_softmax(student / temperature, -1), F.log_softmax(teacher / temperature, -1)
    return F.kl_div(ours, theirs, reduction="sum", log_target=True) * temperature**2


def relative_distance(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """‖s − t‖² / ‖t‖², mean over the real positions of each clip: (B, T, d) twice and (B, T) to (B,) float32."""
    student, teacher = student.float(), teacher.float()
    distances = (student - teacher).square().sum(-1) / teacher.square().sum(-1).clamp(min=1e-12)
    return distances.masked_fill(~real, 0.0).sum(1) / real.sum(1)


def run_decoder(
    loaded: LoadedModel, inputs: DecoderInputs, layers: Sequence[int], *, whole: bool
) -> tuple[list[Tensor], Tensor | None]:
    """One pass through the decoder.

    Args:
        loaded: the model.
        inputs: what its decoder takes.
        layers: whose inputs are asked for; the depth stands for what leaves the last layer.
        whole: run it to its end; else it ends at the last of these.

    Returns:
        The residual stream (B, T, d) in front of each of `layers`, and the states (B, T, d) after the final norm if
        `whole`.
    """
    states: dict[int, Tensor] = {}
    end = None if whole else max(layers, default=-1)
    with ExitStack() as hooks:
        for layer in set(layers):
            hooks.callback(_keep_input(loaded.layers, layer, states, end).remove)
        try:
            output: Any = loaded.decoder(**inputs.call, use_cache=False)
            final = last_states(output) if whole else None
        except _Reached:
            final = None
    return [loaded.family.state(states[layer]) for layer in layers], final


def _keep_input(layers: nn.ModuleList, index: int, states: dict[int, Tensor], end: int | None) -> RemovableHandle:
    """Put what enters layer `index` (or leaves the last one) into `states`; the pass ends there if it is `end`."""

    def keep(tensor: Tensor) -> None:
        states[index] = tensor
        if index == end:
            raise _Reached

    if index == len(layers):
        return layers[-1].register_forward_hook(lambda _, __, output: keep(first_of(output)))
    return layers[index].register_forward_pre_hook(
        lambda _, args, kwargs: keep(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
