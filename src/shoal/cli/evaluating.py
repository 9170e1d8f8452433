"""What `shoal evaluate` does with its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from shoal.cli import shards
from shoal.cli import typer_options as options
from shoal.cli.progress import progress_bars
from shoal.errors import UsageError
from shoal.schema import Plan, Scores

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.evaluation.engine import BatchSize
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task
    from shoal.validation.requirements import Requirement


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The options of the command, under their names there."""

    model: str | None
    data: list[str] | None
    plan: list[Path] | None = None
    against: str | None
    task: str
    asr: str | None = None
    out: Path
    limit: int | None
    where: list[str] | None
    lang: str | None
    max_bad: float
    batch_size: BatchSize
    max_new_tokens: int | None
    group_by: list[str] | None
    out_of_domain: list[str] | None = None
    comet: str | None = None
    export: list[str] | None = None
    max_wer: str | None = None
    max_wer_increase: str | None = None
    rescore: bool = False
    shard: str | None = None
    workers: int | None = None
    cluster: str
    replicates: int
    seed: int
    device: str
    dtype: str
    trust_remote_code: bool
    json: bool = False

    def carry_out(self, context: typer.Context | None = None) -> Scores | None:
        """Decode and score, score again, or decode a part and say so.

        Args:
            context: of the command, whose options workers are given; None where there are none.

        Returns:
            The scores; None for a part.

        Raises:
            UsageError: options that do not go together.
        """
        self._check()
        if self.rescore:
            return self._rescored()
        if self.model is None:
            raise UsageError(
                "no model given", where="MODEL", fix="name one, or score stored outputs with --rescore"
            )
        asked = self._asked()
        if self.workers and context is not None:
            shards.run_workers(context, self.workers)
        elif self.shard:
            shards.end_with_parent()
        with progress_bars() as progress:
            dataset = options.read_data(
                self.data,
                task=self.task,
                limit=self.limit,
                where=self.where,
                lang=self.lang,
                max_bad=self.max_bad,
                seed=self.seed,
                progress=progress,
            )
        return self._evaluated(self._load(self.model), dataset, self._speaking(asked))

    def broken(self, scores: Scores) -> list[str]:
        """One line for every limit that the point values do not keep; `shoal validate` also looks at intervals."""
        from shoal.validation.validate import validate

        requirements = self._requirements()
        if not requirements:
            return []
        found = validate(requirements, [scores], confident=False)
        return [
            f"{each.where or 'nothing to judge'}: {each.requirement} does not hold ({each.shown or each.reason})"
            for each in found.failures
        ]

    def _requirements(self) -> list[Requirement]:
        from shoal.validation import requirement_syntax

        given = {"max_wer": self.max_wer, "max_wer_increase": self.max_wer_increase}
        return [
            getattr(requirement_syntax, name)(options.parse_share(text, f"--{name.replace('_', '-')}"))
            for name, text in given.items()
            if text is not None
        ]

    def _check(self) -> None:
        from shoal.evaluation.shards import Shard

        if self.shard is not None:
            Shard.parse(self.shard)
            if self.rescore or self.workers or self.max_wer or self.max_wer_increase:
                raise UsageError(
                    "a part of the clips is decoded and not scored",
                    where="--shard",
                    fix="give --rescore, --workers and --max-… without it",
                )
        options.parse_cluster(self.cluster)
        compared = self.plan or self.against or self.rescore
        self._requirements()
        if self.max_wer_increase is not None and not compared:
            raise UsageError(
                "there is nothing to compare with", where="--max-wer-increase", fix="add --plan or --against"
            )

    def _asked(self) -> Task:
        """The task; everything that can be refused before a model is loaded is refused here."""
        from shoal import tasks
        from shoal.evaluation.generated_speech import check_answers_in_speech
        from shoal.evaluation.scores.registry import headline
        from shoal.evaluation.settings import ScoringSettings

        asked = tasks.get(self.task)
        headline(asked)
        if self.asr is not None:
            check_answers_in_speech(asked)
        ScoringSettings(comet=self.comet, exports=self.export or ()).scorer(asked, self.out)
        self._plans()
        return asked

    def _speaking(self, asked: Task) -> Task:
        """The task with a recogniser that listens, if one was named."""
        from shoal.evaluation.generated_speech import with_recogniser

        return asked if self.asr is None else with_recogniser(asked, self._load(self.asr))

    def _plans(self) -> list[Plan]:
        return [Plan.load(path) for path in self.plan or ()]

    def _load(self, ref: str) -> LoadedModel:
        import shoal

        return shoal.load(ref, device=self.device, dtype=self.dtype, trust_remote_code=self.trust_remote_code)

    def _rescored(self) -> Scores:
        from shoal.evaluation import rescore

        return rescore(self.out, **self._scoring())

    def _evaluated(self, loaded: LoadedModel, dataset: Dataset, asked: Task) -> Scores | None:
        import shoal
        from shoal.evaluation import evaluate_shard
        from shoal.evaluation.shards import Shard

        decoding: dict[str, Any] = {
            "plans": self._plans(),
            "against": self._load(self.against) if self.against else None,
            "out": self.out,
            "batch_size": self.batch_size,
            "max_new_tokens": self.max_new_tokens,
        }
        call: Callable[..., Any] = shoal.evaluate
        if self.shard is None:
            decoding |= self._scoring()
        else:
            part = Shard.parse(self.shard)
            call, decoding["shard"] = evaluate_shard, (part.number, part.of)
        with progress_bars() as progress:
            done = call(loaded, dataset, asked, **decoding, progress=progress)
        if isinstance(done, Scores):
            return done
        typer.echo(dumps(shards.as_json(done)) if self.json else shards.as_text(done))
        return None

    def _scoring(self) -> dict[str, Any]:
        """What decides the scores of given outputs."""
        return {
            "group_by": self.group_by,
            "out_of_domain": self.out_of_domain or (),
            "comet": self.comet,
            "exports": self.export or (),
            "cluster": options.parse_cluster(self.cluster),
            "replicates": self.replicates,
            "seed": self.seed,
        }
