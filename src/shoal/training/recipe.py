"""The recipe of a SpeechLLM: which parts, which data, which stages. What it says decides what comes out."""

from __future__ import annotations

import os
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from shoal.errors import FileFormatError
from shoal.schema.document import problem_of
from shoal.schema.files import read_yaml
from shoal.settings import Settings
from shoal.training.settings import LoraSettings, Optimisation


class TrainingData(Settings):
    """Rows of a manifest, and what is asked of them."""

    data: str | list[str]
    """Manifests, folders or `hf:` references; see `shoal.read_manifests`."""
    task: str = "asr"
    weight: float | None = Field(default=None, gt=0)
    """How often a clip of this source is drawn, relative to the other sources; default is its number of clips."""
    where: dict[str, str] = Field(default_factory=dict)
    limit: int | None = Field(default=None, ge=1)
    lang: str | None = None
    max_seconds: float = Field(default=30.0, gt=0)
    """Longer clips are left out."""

    @property
    def name(self) -> str:
        """As the recipe calls it."""
        return self.data if isinstance(self.data, str) else ", ".join(self.data)


class DecoderLora(LoraSettings):
    """Low-rank updates of the decoder, smaller than those that heal."""

    rank: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    modules: list[str] | None = None
    """Last parts of the names of the linear layers that get one; default: all in the decoder's layers."""


class CtcStage(Settings):
    """Pre-alignment of the projector, see `shoal.training.ctc`; the decoder's layers are not run."""

    steps: int = Field(default=250, ge=1)
    clips: int = Field(default=192, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    warmup: float = Field(default=0.05, ge=0, le=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"

    @property
    def optimisation(self) -> Optimisation:
        """As the training loop takes it."""
        return Optimisation(
            steps=self.steps, clips=self.clips, projector_lr=self.lr, warmup=self.warmup, schedule=self.schedule
        )


class LmStage(Optimisation):
    """The main stage: the decoder's loss on the response."""

    steps: int = Field(ge=1)
    clips: int = Field(ge=1)
    ctc_weight: float = Field(default=0.0, ge=0)
    """Weight of the CTC term beside it."""
    ctc_every: int = Field(default=4, ge=1)


class Augment(Settings):
    """How training clips are altered before the encoder hears them."""

    speeds: list[float] = Field(default_factory=lambda: [1.0])
    """Every clip is there at each of these speeds."""
    masks: int = Field(default=0, ge=0)
    """SpecAugment: so many draws of masks a clip and speed, beside the clip without; 0 is none."""


class Recipe(Settings):
    """A SpeechLLM to build and train."""

    encoder: str
    decoder: str
    projector: dict[str, Any] = Field(default_factory=dict)
    """Arguments of `shoal.models.speech_llm.ProjectorSettings`."""
    condition: Literal["projector", "projector+lora"] = "projector+lora"
    """What is trained: the projector alone, or low-rank updates of the decoder with it; the encoder never."""
    lora: DecoderLora = DecoderLora()
    prompt_template: str | None = None
    response_style: str = "lower"
    end_token: str | None = None
    encoder_window: Literal["full", "clip"] = "clip"
    """What an encoder with a fixed window (Whisper) hears: the whole window, or the clip and 0.2 s of silence."""
    train: list[TrainingData] = Field(min_length=1)
    validation: list[TrainingData] = Field(default_factory=list)
    augment: Augment = Augment()
    ctc: CtcStage | None = None
    lm: LmStage
    seed: int = 0
    licence: str | None = None
    compress: bool = True
    """Write the adapters as int8 rows, a quarter of the size, see `shoal.models.row_int8`."""
    about: str = ""
    """What a reader of the model's card should know of it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lm.ctc_weight and self.ctc is None:
            raise ValueError("lm.ctc_weight needs the stage ctc, which the term goes on from")
        return self

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a recipe.

        Raises:
            FileFormatError: not there, not YAML, an unknown or missing key, a value out of range.
        """
        recipe = read_yaml(path, what="a recipe", fix="write encoder:, decoder:, train: …")
        try:
            return cls.model_validate(recipe)
        except ValidationError as error:
            raise FileFormatError(
                problem_of(error, cls), where=str(path), fix="compare with recipes/reference.yaml"
            ) from None
