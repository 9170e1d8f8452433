"""Transcribe with the unpruned model and with plans over it, and score the outputs."""

from typing import TYPE_CHECKING

from shoal.lazy import lazy_exports

if TYPE_CHECKING:
    from shoal.evaluation.run import evaluate, evaluate_shard, rescore

__all__ = ["evaluate", "evaluate_shard", "rescore"]

__getattr__ = lazy_exports(__name__, dict.fromkeys(__all__, "run"))
