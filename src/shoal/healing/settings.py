"""What decides the result of healing, besides model and data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BeforeValidator, Field

from shoal.evaluation.settings import DecodingSettings
from shoal.healing.targets import TARGETS
from shoal.settings import DATA, FLAT, INTERVALS, MODEL, NO_OPTION, OUTPUT, Intervals, Settings, comma_separated
from shoal.terms import InputKind
from shoal.training.settings import TRAINED, TRAINING, LoraSettings, Objective, Optimisation, RuntimeOptions

if TYPE_CHECKING:
    TargetName = str
else:
    TargetName = Literal[tuple(TARGETS)]  # so that the command line knows the choices
RIDGE = 0.1
"""Of 1, 0.1, 0.01, 0.001 and 0.0001 the best for `weights` and `relative`: mean loss on held-out speech over four
blocks of the reference model, fitted on 60 clips (3710 positions). With as few, far less can be worse than nothing."""
RIDGES = (0.01, RIDGE, 1.0, 10.0, 100.0)
"""What is tried on clips that are held out."""
Fit = Literal["map", "weights"]
Weighting = Literal["none", "relative"]


class LinearSettings(Settings):
    """The closed form, see `shoal.healing.linear.fit_linear`."""

    fit: Fit = "weights"
    """What is fitted: a map behind the down projection, or its weights."""
    ridge: float | None = Field(default=None, gt=0)
    """Ridge towards the old weights; default: the best on the clips that are held out, for each cut."""
    weighting: Weighting = "relative"
    """Weight of a position: alike, or relative to the squared norm of its state."""
    clips: int = Field(default=256, ge=1)
    """Clips of the training data at most, evenly spaced; every fifth is held out, to choose the ridge by and to test
    the fit on."""


class HealMethod(LoraSettings):
    """How pruned models are healed, whatever the target."""

    optimisation: Annotated[Optimisation, FLAT] = Optimisation()
    """Steps, clips a step and learning rates."""
    objective: Annotated[Objective, FLAT] = Objective()
    """What is minimised; default: cross-entropy of the response, for `replace` the hidden states alone."""
    start: Annotated[Literal["plain", "linear"], TRAINING] = "plain"
    """Weights that training begins from: those of the pruned model, or the same after the closed form (linear)."""
    linear: Annotated[LinearSettings, NO_OPTION] = LinearSettings()
    """The closed form."""
    seed: Annotated[int, INTERVALS] = 0
    """Seed of every random draw."""
    how: Annotated[RuntimeOptions, FLAT] = RuntimeOptions()
    """What changes the time it takes and not the result."""
    trust_remote_code: Annotated[bool, NO_OPTION] = False
    """Run code that a model brings along, where one is loaded."""

    def method(self) -> dict[str, Any]:
        """What decides the result, as records keep it."""
        return self.model_dump(include=set(HealMethod.model_fields) - {"how", "trust_remote_code"})


class HealSettings(HealMethod):
    """How a pruned model is healed."""

    target: Annotated[TargetName, TRAINED] = "joint"
    """Target, which is what is trained: receiver is LoRA on the MLP behind the cut; decoder is LoRA on all layers;
    projector; joint is receiver and projector; joint-decoder is decoder and projector; head is the LM head and the last
    3 layers; replace is a new layer in place of each removed block; linear trains nothing: it computes the down
    projection before the cut by least squares; chain computes those of all layers from there on."""
    layers: Annotated[str | None, MODEL, Parameter(metavar="N|P%")] = None
    """Number of layers (or share of the depth) to remove first, instead of a plan: the block is taken that linear
    healing on half of the speakers leaves best on the others."""
    input: Annotated[InputKind, DATA] = "speech"
    """Input in the audio's place: speech, or the transcript as text."""
    teacher: Annotated[str | None, MODEL, Parameter(metavar="MODEL")] = None
    """Unpruned model to learn from, where the method needs one; default: the one that the plan names."""
    save: Annotated[Literal["merged", "adapters"], OUTPUT] = "merged"
    """Form of the result: merged is a whole checkpoint; adapters is a PEFT folder for the pruned checkpoint."""
    force: Annotated[bool, OUTPUT] = False
    """Replace the output folder if there is something already."""


def _all_targets(value: object) -> object:
    """`all` means every target."""
    parts = comma_separated(value)
    return tuple(TARGETS) if parts == ["all"] else parts


class HealGridSettings(HealMethod, DecodingSettings, Intervals):
    """How every plan is healed by every target, and tested."""

    targets: Annotated[
        tuple[TargetName, ...],
        BeforeValidator(_all_targets),
        TRAINED,
        Parameter(name=("--target", "--targets"), metavar="NAME,NAME…|all"),
    ] = tuple(TARGETS)
    """Targets to compare, as for shoal heal, such as linear,joint; default: all."""
