"""Which metric predicts the truth: regret of every metric and scope against measured ablation, per model and task.

    python benchmarks/metrics.py [--clips 24] [--sizes 1,2,4] [--decode 0] [--out DIR]

Models: the reference SpeechLLM, SmolLM2-135M, Gemma-3-270M. Tasks: ASR on speechocean762 (the text LLMs read and
repeat it), AST on asterisk, SER on ravdess, and the text as such (LM). Whether a model does a task at all is measured
first: its loss on the right answer of a clip against its loss on the right answer of another clip. Where hearing or
reading the clip does not help, what its layers do for the task is not asked.

The audits are written to `--out`, for `shoal report` and `shoal compare`. With `--decode N` the reference model decodes
N clips without each single layer too: regret in points of WER.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from shoal import audit, read_manifests, tasks
from shoal.data import Dataset, Row
from shoal.decoder.batches import prepared_batches
from shoal.measurement.ablation_losses import Ablation
from shoal.models.loading import LoadedModel, load
from shoal.schema import Audit, InputKind, MetricTrust, Trust
from shoal.statistics import interval, make_resampler
from support.interleave import Figures, rounded

ROOT = Path(__file__).resolve().parents[1]
SPEECH = ROOT.parent / "shared" / "speech"


@dataclass(frozen=True)
class Case:
    """A task on clips."""

    task: str
    folder: str
    where: dict[str, str]


CASES = (
    Case("asr", "speechocean762", {"split": "test"}),
    Case("ast", "asterisk", {"task": "ast", "lang": "es"}),
    Case("ser", "ravdess", {"split": "test"}),
    Case("lm", "speechocean762", {"split": "test"}),
)
HEADINGS = (
    f"{'n':>2}  {'metric':<20} {'scope':<7} {'regret':>8} {'interval':>18} {'top 3':>8} {'rank corr.':>10}  pick  best"
)
MODELS = ("pkg:reference", "pkg:smollm2-135m-instruct", "pkg:gemma-3-270m")


def main() -> None:
    """Measure, print the tables, end with the figures."""
    options = parse()
    out = Path(options.out or tempfile.mkdtemp(prefix="shoal-metrics-"))
    figures: Figures = {}
    for ref in options.models:
        model = load(ref, dtype="float32")
        for case in CASES:
            figures |= measure_case(model, case, options, out)
    print(json.dumps({"regret": figures}))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", nargs="+", default=list(MODELS))
    add("--speech", type=Path, default=SPEECH, help="a folder with speechocean762, asterisk and ravdess")
    add("--clips", type=int, default=24)
    add("--sizes", default="1,2,4", help="of the blocks that ablation leaves out")
    add("--decode", type=int, default=0, help="clips that the reference model decodes without each layer")
    add("--out", help="where the audits go")
    return parser.parse_args()


def measure_case(model: LoadedModel, case: Case, options: argparse.Namespace, out: Path) -> Figures:
    """One model on one task; nothing if it does not take or do the task."""
    task = tasks.get(case.task)
    possible = [name for name in model.inputs if name in task.inputs]
    if not possible:
        print(f"\n{model.ref}, {case.task}: it takes {', '.join(model.inputs)}, the task {', '.join(task.inputs)}")
        return {}
    kind: InputKind = "speech" if "speech" in possible else "text"
    data = read(options.speech, case, options.clips)
    name = f"{model.ref.removeprefix('pkg:')}_{case.task}"
    # Repeating what is read has no wrong answer to compare with: text and answer are one field.
    if not task.alone and (kind == "speech" or case.task != "asr"):
        gain, low, high = what_hearing_helps(model, data, case, kind)
        print(f"\n{name}: the right answer is {gain:.2f} [{low:.2f}, {high:.2f}] nats a token likelier than another's")
        if low <= 0:
            print("so it does not do this task, and its layers are not asked about it")
            return {f"{name}_answer_gain": rounded(gain)}
    sizes = [int(size) for size in options.sizes.split(",")]
    document = audit(
        model, data, task, inputs=[kind], metrics=["gradient", "ablation"], block_sizes=sizes, out=out / name
    )
    figures = show(name, document, kind)
    if options.decode and case.task == "asr" and kind == "speech":
        figures |= decoded(model, case, options, out / f"{name}_decoded")
    return figures


def read(speech: Path, case: Case, clips: int) -> Dataset:
    """The clips of a case."""
    return read_manifests(
        [speech / case.folder / "manifest.jsonl"],
        where=case.where,
        limit=clips,
        needs_text=tasks.get(case.task).needs_text,
    )


def what_hearing_helps(model: LoadedModel, data: Dataset, case: Case, kind: InputKind) -> tuple[float, float, float]:
    """Loss of another clip's answer minus loss of the right one, nats a token, with a 95 % interval."""
    right, wrong = (per_clip(model, each, case, kind) for each in (data, with_others_answers(data, case.task)))
    ids = sorted(right)
    gains = np.array([wrong[clip] - right[clip] for clip in ids])
    drawn = make_resampler([None] * len(ids), replicates=1000, seed=0)
    low, high = interval(drawn.means(gains[:, None], np.ones(len(ids), dtype=np.int64)), 0.95)
    return float(gains.mean()), float(low[0]), float(high[0])


def per_clip(model: LoadedModel, data: Dataset, case: Case, kind: InputKind) -> dict[str, float]:
    """Loss a token of each clip."""
    ablation, found = Ablation(model), {}
    for batch in prepared_batches(model, data, tasks.get(case.task), kind, 8):
        losses = ablation.measure(batch, [(0,)])
        found |= dict(zip(losses.ids, losses.full / losses.counts, strict=True))
    return found


def with_others_answers(data: Dataset, task: str) -> Dataset:
    """The same clips, each with the answer of the next one that has another."""
    return Dataset(data.manifests, [with_answer(row, other(row, data.rows, task), task) for row in data.rows])


def other(row: Row, rows: Sequence[Row], task: str) -> Row:
    """The next row with another answer."""
    target = tasks.get(task).target
    at = rows.index(row)
    return next(each for each in (*rows[at + 1 :], *rows[:at]) if target(each) != target(row))


def with_answer(row: Row, of: Row, task: str) -> Row:
    """`row` with the answer of another row; what is heard, or stands in its place, stays."""
    field = {"asr": "text", "ast": "translation", "ser": "emotion"}[task]
    fields = {**row.fields, field: of.fields[field]}
    return replace(row, fields=fields, text=of.text if task == "asr" else row.text)


def show(name: str, document: Audit, kind: InputKind) -> Figures:
    """The table of each truth, and the figures: regret by metric, scope and size."""
    figures: Figures = {}
    for trust in document.inputs[kind].trust:
        print(f"\n{name}: truth {trust.truth}, {trust.unit}, {document.data.clips} clips, {kind} input")
        print(HEADINGS)
        for each in trust.metrics:
            print(line(each))
            figures[key_of(name, trust, each)] = rounded(each.regret.value)
    return figures


def key_of(name: str, trust: Trust, each: MetricTrust) -> str:
    """Such as `reference_asr_regret_loss_n1_angular_all`."""
    quantity = trust.truth.split()[-1]
    metric = each.metric.replace(" ", "_")
    return f"{name}_regret_{quantity}_n{each.n}_{metric}_{each.scope}"


def line(each: MetricTrust) -> str:
    """One row of a table."""
    regret, top = each.regret, each.top_k_regret
    spread = "" if regret.low is None else f"[{regret.low:.3f}, {regret.high:.3f}]"
    return (
        f"{each.n:>2}  {each.metric:<20} {each.scope:<7} {regret.value:>8.3f} {spread:>18} "
        f"{top.value:>8.3f} {each.spearman.value:>10.2f}  {each.picked:>4}  {each.best:>4}"
    )


def decoded(model: LoadedModel, case: Case, options: argparse.Namespace, out: Path) -> Figures:
    """Regret in points of WER, by decoding without each single layer."""
    data = read(options.speech, case, options.decode)
    document = audit(model, data, case.task, inputs=["speech"], metrics=["gradient", "ablation"], decode=True, out=out)
    document.inputs["speech"].trust = [
        trust for trust in document.inputs["speech"].trust if trust.truth.endswith("score")
    ]
    return show(f"{model.ref.removeprefix('pkg:')}_{case.task}_decoded", document, "speech")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
