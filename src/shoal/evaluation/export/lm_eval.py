"""Results and samples in the shape of lm-evaluation-harness 0.4 (`lm_eval.result_schema`, `EvaluationTracker`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.evaluation.export.nemo import row
from shoal.evaluation.export.scored_outputs import ScoredOutputs, replaced
from shoal.evaluation.scores import registry
from shoal.evaluation.scores.answers import answers_of
from shoal.evaluation.system_outputs import Output

if TYPE_CHECKING:
    from shoal.evaluation.scores.base import Score
    from shoal.schema import Scores, SystemScores
    from shoal.tasks import Task

FILTER = "none"
"""Answers are scored as they are written: no filter takes an answer out of a text."""


def write(folder: Path, stored: ScoredOutputs) -> None:
    """`SYSTEM/results_DATE.json` and `SYSTEM/samples_TASK_DATE.jsonl`; those of earlier dates are removed.

    Raises:
        FileFormatError: a file cannot be written.
    """
    date = _file_date(stored.scores.provenance.created)
    for name, system, outputs in stored.systems():
        own_folder = folder / name
        samples = own_folder / f"samples_{stored.task.name}_{date}.jsonl"
        results = own_folder / f"results_{date}.json"
        task_hash = _write_samples(samples, stored, outputs)
        with replaced(results) as stream:
            document = results_of(stored.scores, system, stored.task, task_hash, len(stored.ids))
            json.dump(document, stream, indent=2, ensure_ascii=False, default=str)
        for old in (*own_folder.glob("results_*.json"), *own_folder.glob("samples_*.jsonl")):
            if old not in (results, samples):
                old.unlink()


def _file_date(created: str) -> str:
    """As lm-eval writes it: ISO 8601 without a zone, `-` for `:`."""
    return created.partition("+")[0].replace(":", "-")


def results_of(scores: Scores, system: SystemScores, task: Task, task_hash: str, samples: int) -> dict[str, Any]:
    """What `results_DATE.json` holds for one system."""
    metrics, higher = _metrics(system)
    name, packages = task.name, scores.provenance.packages
    return {
        "results": {name: {"name": name, "alias": name, "sample_len": samples, **metrics}},
        "group_subtasks": {name: []},
        "configs": {name: _task_config(scores, task, higher)},
        "versions": {name: scores.provenance.shoal},
        "n-shot": {name: 0},
        "higher_is_better": {name: higher},
        "n-samples": {name: {"original": samples, "effective": samples}},
        "config": _model_config(scores, system),
        "git_hash": None,
        "date": datetime.fromisoformat(scores.provenance.created).timestamp(),
        "transformers_version": packages.get("transformers"),
        "lm_eval_version": None,
        "task_hashes": {name: task_hash},
        **_identity(scores, system),
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": False,
        "chat_template": None,
        "chat_template_sha": None,
        "total_evaluation_time_seconds": str(system.encode_seconds + system.prefill_seconds + system.decode_seconds),
    }


def _metrics(system: SystemScores) -> tuple[dict[str, Any], dict[str, bool]]:
    """`NAME,none` and `NAME_stderr,none` of every score, and which way each runs."""
    metrics: dict[str, Any] = {}
    for name, score in system.measures.items():
        metrics[f"{key(name)},{FILTER}"] = score.value.value
        error = score.standard_error
        metrics[f"{key(name)}_stderr,{FILTER}"] = "N/A" if error is None else error
    return metrics, {key(name): score.higher_is_better for name, score in system.measures.items()}


def key(name: str) -> str:
    """The name of a score without the comma that lm-eval keeps for the filter."""
    return re.sub(r"\W+", "_", name.lower())


def _task_config(scores: Scores, task: Task, higher: Mapping[str, bool]) -> dict[str, Any]:
    return {
        "task": task.name,
        "description": task.instruction,
        "output_type": "generate_until",
        "num_fewshot": 0,
        "repeats": 1,
        "metric_list": [
            {"metric": name, "aggregation": "corpus", "higher_is_better": up} for name, up in higher.items()
        ],
        "generation_kwargs": scores.decoding,
        "dataset_path": scores.data.manifests,
        "metadata": {
            "version": scores.provenance.shoal,
            "normaliser": scores.normaliser,
            "scorer": scores.scorer,
            "data_fingerprint": scores.data.fingerprint,
        },
    }


def _model_config(scores: Scores, system: SystemScores) -> dict[str, Any]:
    provenance = scores.provenance
    return {
        "model": "shoal",
        "model_args": {
            "pretrained": system.model_ref or scores.model.ref,
            # In the numbering of `pretrained`; those that it lacks itself are among the absent ones only.
            "removed_layers": ",".join(map(str, system.removed)),
            "absent_layers": ",".join(map(str, system.absent_layers)),
            "part": system.plan.part if system.plan else "layer",
        },
        "model_num_parameters": None if system.removed or system.model_ref else scores.model.total_parameters,
        "model_dtype": provenance.dtype,
        "model_revision": None,
        "model_sha": None if system.model_ref else scores.model.fingerprint,
        "batch_size": str(scores.decoding.get("batch_size", "")),
        "device": provenance.device,
        "limit": None,
        "bootstrap_iters": scores.replicates,
        "gen_kwargs": scores.decoding,
        "random_seed": scores.seed,
    }


def _identity(scores: Scores, system: SystemScores) -> dict[str, str]:
    name = f"{system.model_ref or scores.model.ref} {system.name}"
    sanitised = re.sub(r"[\"<>:/|\\?*\[\]]+", "__", name)
    return {"model_source": "shoal", "model_name": name, "model_name_sanitized": sanitised}


def _write_samples(path: Path, stored: ScoredOutputs, outputs: Mapping[str, Output]) -> str:
    """Write all samples; returns lm-eval's hash of the task: over the hashes of all samples."""
    total, number = sha256(), 0
    scores = registry.scores_of(stored.task)
    with replaced(path) as stream:
        for block in stored.read(outputs):
            for output, values in zip(block, _own_values(stored.task, scores, block), strict=True):
                record = sample(number, output, stored.task.instruction, stored.scores.decoding, values)
                total.update((record["doc_hash"] + record["prompt_hash"] + record["target_hash"]).encode())
                stream.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
                number += 1
    return total.hexdigest()


def _own_values(task: Task, scores: Sequence[Score], block: Sequence[Output]) -> Iterator[dict[str, float]]:
    """The scores of each clip by itself, without those that are undefined there."""
    answers = answers_of(task, block)
    values = {key(score.name): score.value(score.statistics(answers)) for score in scores}
    for clip in range(len(block)):
        yield {name: float(column[clip]) for name, column in values.items() if np.isfinite(column[clip])}


def sample(
    number: int, output: Output, instruction: str, decoding: Mapping[str, Any], values: Mapping[str, float]
) -> dict[str, Any]:
    """One line of `samples_TASK_DATE.jsonl`."""
    document = {name: value for name, value in row(output).items() if name != "pred_text"}
    return {
        "doc_id": number,
        "doc": document,
        "target": output.text,
        "arguments": {"gen_args_0": {"arg_0": instruction, "arg_1": dict(decoding)}},
        "resps": [[output.pred_text]],
        "filtered_resps": [output.pred_text],
        "filter": FILTER,
        "metrics": list(values),
        "doc_hash": _hash(json.dumps(document, indent=2, ensure_ascii=False, default=str)),
        "prompt_hash": _hash(instruction),
        "target_hash": _hash(output.text),
        **values,
    }


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
