"""Training a SpeechLLM as one writes it: transformers' Trainer, a collator around the processor, `labels=`.

The encoder is frozen and runs in every step, the logits are those of every position. In its favour: decoded audio is
kept in memory, the batches are those of like lengths that Shoal draws, nothing is cached that is not used, and the
fused AdamW is the Trainer's own choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainingArguments

from shoal.models.contexts import quiet
from shoal.training.examples import TrainingExample
from support.step_clock import StepClock

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel
    from shoal.training.settings import Optimisation

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Item:
    """A clip: its samples, the prompt with the audio token, and the response with what ends it."""

    samples: npt.NDArray[np.float32]
    prompt: str
    response: str


def items_of(loaded: LoadedModel, examples: Sequence[TrainingExample]) -> list[Item]:
    """The examples with their audio decoded, in their order."""
    config: Any = loaded.model.config
    clips = {clip.id: clip for each in examples[:1] for clip in each.data.clips([e.row for e in examples])}
    return [
        Item(
            clips[each.row.id].samples,
            config.format_prompt(each.task.instruction),
            loaded.response_text(each.task.target(each.row)) + config.end_token,
        )
        for each in examples
    ]


class Collator:
    """Items to the model's inputs, padded on the right, with the loss on the response alone.

    Args:
        processor: the model's own.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """The batch, with `labels`."""
        batch = dict(
            self._processor(
                text=[item.prompt + item.response for item in items],
                audio=[item.samples for item in items],
                padding_side="right",
            )
        )
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
        for row, item in zip(labels, items, strict=True):
            row[: self._asked(item)] = IGNORED
        return batch | {"labels": labels}

    def _asked(self, item: Item) -> int:
        """Positions of the prompt."""
        return len(self._processor.encode(item.prompt, [self._processor.positions(len(item.samples))]))


def train_plain(
    loaded: LoadedModel,
    items: Sequence[Item],
    optimisation: Optimisation,
    clock: StepClock,
    folder: Path,
    workers: int,
) -> None:
    """Train what has `requires_grad`, on `items` in their order, until the clock says stop."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=len(items) // optimisation.clips,
        per_device_train_batch_size=optimisation.clips,
        train_sampling_strategy="sequential",
        learning_rate=optimisation.lora_lr,
        lr_scheduler_type=optimisation.schedule,
        max_grad_norm=optimisation.max_grad_norm,
        weight_decay=optimisation.weight_decay,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=loaded.device.type == "cpu",
        dataloader_num_workers=workers,
        dataloader_pin_memory=loaded.device.type == "cuda",
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # several would mean DataParallel
    # The Trainer turns the cache off in the outer config alone.
    loaded.family.text_config(loaded.model).use_cache = False
    trainer = Trainer(
        model=loaded.model,
        args=arguments,
        train_dataset=list(items),
        data_collator=Collator(loaded.processor),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    with quiet():
        trainer.train()
    loaded.model.eval()
