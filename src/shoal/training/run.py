"""A recipe carried out: build, encode once, align, train, save."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal import tasks
from shoal.cards.facts import Folder
from shoal.cards.writing import CARD, first_card
from shoal.data import Dataset, read_manifests
from shoal.errors import UsageError
from shoal.models import families
from shoal.models.adapters import save_adapters
from shoal.models.build import build
from shoal.models.contexts import quiet
from shoal.models.lineage import TRAINING_FILE
from shoal.models.loading import DTYPES, LoadedModel, find_device, load_model
from shoal.models.lora import add_lora, linear_layers
from shoal.progress import Progress, stage
from shoal.provenance import provenance
from shoal.pruning.folder import check_target, new_folder
from shoal.schema import StageRecord, TrainingRecord, ValidationLoss, write_text
from shoal.schema.files import check_same
from shoal.settings import takes
from shoal.training import loop
from shoal.training.augment import PLAIN, Variant
from shoal.training.batches import examples_of, make_batches, response_losses
from shoal.training.ctc import CtcAlignment, vocabulary_of
from shoal.training.examples import Batches, TrainingExample
from shoal.training.loop import TrainingResult
from shoal.training.processes import Processes
from shoal.training.recipe import Recipe, TrainingData
from shoal.training.run_folder import work_folder
from shoal.training.sampling import SampledClips, sample_clips
from shoal.training.settings import Objective, Optimisation, TrainSettings
from shoal.training.step import ModelWithLoss

if TYPE_CHECKING:
    from shoal.training.cached_batches import CachedBatches

HELD_OUT_CLIPS = 256
"""Clips of a validation source at most, where the recipe sets no limit."""


@takes(TrainSettings)
def train(
    recipe: Recipe | str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: TrainSettings | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> TrainingRecord | None:
    """Build a SpeechLLM by a recipe, train it, and write its adapters, their record and a card to `out`.

    Running it again goes on where it was interrupted, and returns the record where it was done.

    Args:
        recipe: a recipe, or the path of one.
        out: the folder to make; `shoal.load(out)` loads it.
        settings: how the recipe is carried out.
        progress: called with (what, done, total).
        **options: fields of `TrainSettings`, instead of `settings` or in their place.

    Returns:
        The record; None in all processes but the first of several.

    Raises:
        InputError: data, base models or recipe cannot be used, or the folder is taken.
        TrainingError: see `shoal.training.loop.train`.
    """
    settings, out = TrainSettings.of(settings, options), Path(out)
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    if (done := finished(recipe, out, force=settings.force)) is not None:
        return done
    check_target(out, None, settings.force)
    return _Training(recipe, out, settings, progress).run()


def finished(recipe: Recipe, out: Path, *, force: bool) -> TrainingRecord | None:
    """The record of a folder in which this very recipe is carried out already; None if none is.

    Raises:
        UsageError: another was, and it shall not be replaced.
    """
    if not (out / TRAINING_FILE).is_file():
        return None
    record = TrainingRecord.load(out / TRAINING_FILE)
    same = check_same(out, "a model trained", record.recipe, recipe.model_dump(mode="json"), force=force)
    return record if same else None


class _Training:
    """One run of a recipe."""

    def __init__(self, recipe: Recipe, out: Path, settings: TrainSettings, progress: Progress | None) -> None:
        self.recipe, self._out, self._settings, self._progress = recipe, out, settings, progress
        self._how = settings.how.named(f"shoal-train-{out.name}")
        self._device = find_device(settings.device)
        self._processes = Processes.now(cpu=self._device.type == "cpu")
        self._stages: list[StageRecord] = []
        self._notes: list[str] = []
        self._encode_seconds = 0.0

    def run(self) -> TrainingRecord | None:
        """Everything, in order."""
        root = self._settings.data_root
        data = [read_source(source, root, self.recipe.seed) for source in self.recipe.train]
        watched = [read_source(source, root, self.recipe.seed) for source in self.recipe.validation]
        self.loaded = self._build()
        with work_folder(self._out, "training", self._processes) as self._work:
            batches = self._batches(data)
            ctc = self._align(batches)
            self._train(batches, ctc)
            return self._save(data, watched) if self._processes.rank == 0 else None

    def _build(self) -> LoadedModel:
        """The untrained model; its projector depends on the seed alone."""
        recipe = self.recipe
        dtype = DTYPES.get(self._settings.dtype, torch.float32)
        torch.manual_seed(recipe.seed)
        with stage(self._progress, "build the model"), quiet():
            model, processor = build(
                recipe.encoder,
                recipe.decoder,
                projector=recipe.projector or "mlp",
                prompt_template=recipe.prompt_template,
                response_style=recipe.response_style,
                end_token=recipe.end_token,
                encoder_window=recipe.encoder_window,
                dtype=dtype,
            )
        model.projector.float()  # trained, so in full precision
        model = model.to(self._device).requires_grad_(False)
        return LoadedModel(
            ref=str(self._out),
            path=self._out,
            model=model,
            tokenizer=processor.tokenizer,
            processor=processor,
            family=families.find(model),
            kind="speech_llm",
        )

    def _batches(self, data: Sequence[Dataset]) -> CachedBatches:
        examples: list[TrainingExample] = []
        for number, (source, rows) in enumerate(zip(self.recipe.train, data, strict=True)):
            examples += examples_of(rows, tasks.get(source.task), number)
        augment = self.recipe.augment
        variants = [Variant(speed, masks) for speed in augment.speeds for masks in range(augment.masks + 1)] or [PLAIN]
        begun = time.perf_counter()
        batches: Any = make_batches(
            self.loaded,
            examples,
            ctc_tokens=self.recipe.ctc is not None,
            variants=variants,
            features=self._how.features,
            processes=self._processes,
            progress=self._progress,
        )
        self._encode_seconds = time.perf_counter() - begun
        return batches

    def _sampled(self, batches: Batches, steps: int, clips: int, stage: int) -> SampledClips:
        return sample_clips(
            np.array([example.source for example in batches.examples], np.int64),
            batches.lengths,
            weights=[source.weight for source in self.recipe.train],
            steps=steps,
            clips=clips,
            variants=batches.variants,
            seed=self.recipe.seed * 10 + stage,
        )

    def _align(self, batches: CachedBatches) -> CtcAlignment | None:
        """The first stage: the projector alone, by CTC."""
        stage = self.recipe.ctc
        if stage is None:
            return None
        said = batches.spoken_tokens()
        if not any(said):
            raise UsageError(
                "no clip of the training data is one of recognition, so there is nothing to align",
                where="ctc",
                fix="add data with task: asr, or leave the stage ctc out",
            )
        table: Any = self.loaded.model.get_input_embeddings()
        with torch.no_grad():
            # What the model's own embedding module gives: some classes scale the table.
            ids = torch.arange(table.weight.shape[0], device=table.weight.device)
            embeds = torch.cat([table(part) for part in ids.split(4096)])
        ctc = CtcAlignment(embeds, vocabulary_of(said))
        self.loaded.model.projector.requires_grad_(True)
        objective = Objective(ce=0.0, ctc=1.0)
        student = ModelWithLoss(self.loaded, batches, objective, ctc=ctc)
        self._stage("ctc", student, self._sampled(batches, stage.steps, stage.clips, 1), stage.optimisation)
        return ctc

    def _train(self, batches: CachedBatches, ctc: CtcAlignment | None) -> None:
        """The main stage: the projector, and with it the decoder's low-rank updates."""
        recipe, stage = self.recipe, self.recipe.lm
        self.loaded.model.projector.requires_grad_(True)
        if recipe.condition == "projector+lora":
            decoder: Any = self.loaded.model.decoder
            names = lora_names(self.loaded, recipe.lora.modules)
            torch.manual_seed(recipe.seed + 1)
            lora = recipe.lora
            add_lora(decoder, names, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout)
        uses_ctc = stage.ctc_weight > 0 and ctc is not None
        objective = Objective(ctc=stage.ctc_weight if uses_ctc else 0.0, ctc_every=stage.ctc_every if uses_ctc else 1)
        student = ModelWithLoss(self.loaded, batches, objective, ctc=ctc if uses_ctc else None)
        optimisation = Optimisation.model_validate(stage.model_dump(exclude={"ctc_weight", "ctc_every"}))
        self._stage("lm", student, self._sampled(batches, stage.steps, stage.clips, 2), optimisation)

    def _stage(self, name: str, student: ModelWithLoss, sampled: SampledClips, optimisation: Optimisation) -> None:
        result: TrainingResult = loop.train(
            student,
            sampled,
            optimisation,
            self._work / name,
            how=self._how,
            settings={
                "recipe": self.recipe.model_dump(mode="json"),
                "clips": [len(student.batches.examples), student.batches.fingerprint],
                "processes": self._processes.world,
            },
            seed=self.recipe.seed,
            what=name,
            progress=self._progress,
        )
        tail = result.losses[-max(1, len(result.losses) // 10) :]
        self._stages.append(
            StageRecord(
                name=name,
                steps=result.steps,
                clips=result.clips,
                seconds=round(result.seconds, 2),
                trained_parameters=sum(parameter.numel() for parameter in student.trainable().values()),
                first_loss=result.losses[0],
                last_loss=sum(tail) / len(tail),
            )
        )
        self._notes += result.notes

    def _save(self, data: Sequence[Dataset], watched: Sequence[Dataset]) -> TrainingRecord:
        """Adapters, record and card, complete or not at all."""
        recipe, model = self.recipe, self.loaded.model
        held_out = [
            make_batches(
                self.loaded,
                examples_of(rows, tasks.get(source.task))[:HELD_OUT_CLIPS],
                features=self._how.features,
                progress=self._progress,
            )
            for source, rows in zip(recipe.validation, watched, strict=True)
        ]
        losses = [response_losses(self.loaded, batches, progress=self._progress).mean for batches in held_out]
        with new_folder(self._out) as draft:
            save_adapters(
                model,
                draft,
                encoder=recipe.encoder,
                decoder=recipe.decoder,
                licence=recipe.licence,
                compress=recipe.compress,
            )
            again = load_model(str(draft), device=str(self._device), dtype="float32", trust_remote_code=False)
            saved = [response_losses(again, batches, progress=self._progress).mean for batches in held_out]
            record = TrainingRecord(
                provenance=provenance(device=str(model.device), dtype=self.loaded.dtype_name),
                recipe=recipe.model_dump(mode="json"),
                data=[
                    rows.info().model_copy(update={"manifests": [source.name]})
                    for rows, source in zip(data, recipe.train, strict=True)
                ],
                stages=self._stages,
                validation=[
                    ValidationLoss(
                        data=source.name, task=source.task, clips=len(batches.examples), loss=own, loss_as_saved=kept
                    )
                    for source, batches, own, kept in zip(recipe.validation, held_out, losses, saved, strict=True)
                ],
                encode_seconds=round(self._encode_seconds, 2),
                notes=self._notes,
            )
            write_text(draft / TRAINING_FILE, record.model_dump_json(indent=1) + "\n")
            write_text(draft / CARD, first_card(Folder(draft)))
        return record


def lora_names(loaded: LoadedModel, endings: Sequence[str] | None) -> list[str]:
    """The linear layers of the decoder's layers that get an update, by their names in the causal LM.

    Args:
        loaded: the model that the causal LM is in.
        endings: last parts of their names; None is all.

    Raises:
        UsageError: no name ends with one of these.
    """
    path = loaded.family.layers_path(loaded.model)
    names = {name.removeprefix("decoder."): name.rpartition(".")[2] for name in linear_layers(loaded.model, [path])}
    if missing := sorted({*(endings or ())} - {*names.values()}):
        raise UsageError(
            f"no linear layer is called {missing[0]!r}",
            where="lora.modules",
            fix=f"there are {', '.join(sorted({*names.values()}))}",
        )
    return [name for name, ending in names.items() if endings is None or ending in endings]


def read_source(source: TrainingData, root: Path, seed: int) -> Dataset:
    """The clips of a source; relative paths are relative to `root`."""
    task = tasks.get(source.task)
    refs = [source.data] if isinstance(source.data, str) else source.data
    placed = [ref if ref.startswith("hf:") else str(root / ref) for ref in refs]
    return read_manifests(
        placed,
        limit=source.limit,
        where=source.where,
        needs_text=task.needs_text,
        label_field=task.label_field,
        lang=source.lang,
        max_clip_seconds=source.max_seconds,
        seed=seed,
    )
