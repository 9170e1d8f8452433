"""Find the shallowest plan within a budget, and confirm it on clips that the search has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shoal.progress import Progress

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.loading import LoadedModel
    from shoal.schema import InputKind, Part, Scope, Search
    from shoal.tasks import Task

__all__ = ["search"]


def search(
    model: LoadedModel,
    data: Dataset,
    task: Task | str = "asr",
    *,
    confirm_data: Dataset | None = None,
    max_increase: float | None = None,
    confidence: float = 0.95,
    point: bool = False,
    max_layers: int | None = None,
    max_milliseconds: float | None = None,
    max_megabytes: float | None = None,
    strategy: str = "greedy",
    metric: str | None = None,
    input: InputKind = "speech",
    scope: Scope | None = None,
    part: Part = "layer",
    width: int = 3,
    allow_last: bool = False,
    patience: int = 2,
    confirm_plans: int = 3,
    out: str | Path | None = None,
    batch_size: int = 16,
    max_new_tokens: int | None = None,
    cluster: Literal["utterance", "speaker"] = "utterance",
    replicates: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Search:
    """Remove one layer more at a time, score every plan on one half of the clips, and test the shallowest on the other.

    A plan holds if its headline score (WER, BLEU …) is, relative to the unpruned model's, worse by at most
    `max_increase`: on the validation split by the one-sided upper bound of the paired bootstrap, on the confirmation
    split by its one-sided test after Holm's correction. With bounds on costs it must keep to these too. With nothing
    but bounds on costs, the plan of the fewest layers that keeps to them is found, and what it costs is reported.

    Args:
        model: a SpeechLLM from `shoal.load`.
        data: from `shoal.read_manifests`; split into validation and confirmation, by speaker where speakers are known.
        task: what is asked, and how answers are scored.
        confirm_data: other clips for the confirmation; `data` is then not split.
        max_increase: 0.25 for 25 %; default, unless a cost is bounded, 0.25 for `asr` (arXiv 2603.05121), else 0.1.
        confidence: one-sided, of the bound and the test.
        point: take the value itself instead of bound and test.
        max_layers: layers the decoder may have at most.
        max_milliseconds: latency of a clip (encode, prefill and 32 tokens), as `shoal.bench` measures it.
        max_megabytes: size of the weights in the model's dtype, 10^6 bytes.
        strategy: `greedy`, `beam`, `contiguous` or `lowest`.
        metric: what plans are chosen by; default is the strategy's own. It is measured on the validation split.
        input: what is measured with; decoding is from speech.
        scope: which positions the metric counts; default `text` for ablation and gradient, else `all`.
        part: remove only the `attention` or the `mlp` of layers.
        width: sets that `beam` keeps at every step.
        allow_last: the last layer may go too.
        patience: stop after this many plans in a row whose value breaks the budget.
        confirm_plans: how many plans are tested at most, the shallowest that held.
        out: folder for `search.json`, `plan.json`, what was measured and the raw outputs; running again there decodes
            and measures only what is missing.
        batch_size: clips a batch.
        max_new_tokens: most tokens a clip may get; None follows its length.
        cluster: what the bootstrap draws.
        replicates: bootstrap replicates.
        seed: of the split and the bootstrap.
        progress: called with (what, done, in all).

    Returns:
        Everything that was tried; `chosen` is None and `reason` says why where no plan holds.

    Raises:
        UsageError: a text LLM, a task for which nothing is decoded, a budget that makes no sense or that the unpruned
            model keeps to already, or too few clips to split.
        ManifestError: no usable clip or reference, or an unpruned model whose score is 0.
        FileFormatError: `out` holds outputs of another model or other settings.
    """
    from shoal.evaluation.settings import Resampling, TokenLimit
    from shoal.plan_search.budget import make_budget
    from shoal.plan_search.run import run_search
    from shoal.plan_search.settings import SearchSettings

    return run_search(
        model,
        data,
        task,
        confirm_data=confirm_data,
        budget=make_budget(
            max_increase=max_increase,
            confidence=confidence,
            point=point,
            max_layers=max_layers,
            max_milliseconds=max_milliseconds,
            max_megabytes=max_megabytes,
        ),
        settings=SearchSettings(
            strategy=strategy,
            metric=metric,
            input=input,
            scope=scope,
            part=part,
            width=width,
            allow_last=allow_last,
            patience=patience,
            confirm_plans=confirm_plans,
            batch_size=batch_size,
            limit=TokenLimit(max_new_tokens),
            resampling=Resampling(replicates, cluster=cluster, seed=seed),
        ),
        out=None if out is None else Path(out),
        progress=progress,
    )
