"""Continuous batching: rows of different lengths share a batch, and a finished row's place is taken at once."""

from __future__ import annotations

from shoal.evaluation.engine.cache import supported
from shoal.evaluation.engine.memory import BatchSize, fitting_slots
from shoal.evaluation.engine.run import Engine, EngineCache, Finished, Prompt, prompts_of

__all__ = ["BatchSize", "Engine", "EngineCache", "Finished", "Prompt", "fitting_slots", "prompts_of", "supported"]
