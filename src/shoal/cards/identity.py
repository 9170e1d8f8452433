"""Whether a document is about a checkpoint: by the fingerprints of weights, never by names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from shoal.cards.measured import Measured
from shoal.errors import UsageError
from shoal.schema import PARTS, Audit, Bench, Plan, Scores, SystemBench

Fingerprint = Callable[[str], str]
"""The fingerprint of a checkpoint loaded in a dtype, such as `float32`."""


@dataclass(frozen=True)
class CheckpointIdentity:
    """Which checkpoint it is, for documents that were measured on it or on the model that it was pruned from."""

    name: str
    """What the user calls it."""
    own: Fingerprint
    parents: frozenset[str] = field(default_factory=frozenset)
    """Fingerprints of the model that the last plan was carried out on, as far as they are known."""
    plan: Plan | None = None
    """The last plan, if nothing was done after it."""

    def scored(self, scores: Scores, *, label: str) -> Measured:
        """The system of `scores` that is this checkpoint.

        Args:
            scores: what was measured.
            label: the file, for the message.

        Raises:
            UsageError: none is.
        """
        for system in scores.systems:
            if system.model_ref is not None:
                if system.fingerprint and system.fingerprint == self.own(scores.provenance.dtype):
                    return Measured(scores, system)
                continue
            part = "layer" if system.plan is None else system.plan.part
            if self._is(scores, system.removed, part):
                return Measured(scores, system)
        raise self._foreign(scores, label)

    def timed(self, bench: Bench, *, label: str) -> SystemBench:
        """The system of `bench` that is this checkpoint.

        Raises:
            UsageError: none is.
        """
        for system in bench.systems:
            # A bench names the part in the name only, see `Plan.name`.
            part = next((name for name in PARTS if f"-{name}-" in system.name), "layer")
            if self._is(bench, system.removed, part):
                return system
        raise self._foreign(bench, label)

    def checked_audit(self, audit: Audit, *, label: str) -> Audit:
        """`audit`, which must be of this checkpoint or of the model that it was pruned from.

        Raises:
            UsageError: it is not.
        """
        known = self.parents | {self.own(audit.provenance.dtype)}
        if not audit.model.fingerprint or audit.model.fingerprint not in known:
            raise self._foreign(audit, label)
        return audit

    def _is(self, document: Scores | Bench, removed: list[int], part: str) -> bool:
        mark = document.model.fingerprint
        if not mark:
            return False
        if self.plan is not None and mark in self.parents:
            return part == "layer" and removed == self.plan.layers
        return not removed and mark == self.own(document.provenance.dtype)

    def _foreign(self, document: Scores | Bench | Audit, label: str) -> UsageError:
        return UsageError(
            f"this is about another model than {self.name}: {document.model.ref}, in {document.provenance.dtype}, "
            "has other weights",
            where=label,
            fix=f"measure {self.name} itself",
        )


def fingerprints_of(ref: str, *, device: str = "auto", trust_remote_code: bool = False) -> Fingerprint:
    """Loads the model of `ref` when it is first asked for in a dtype; see `CheckpointIdentity.own`."""

    @cache
    def fingerprint(dtype: str) -> str:
        from shoal.models.loading import DTYPES, load_model

        loaded = load_model(
            ref, device=device, dtype=dtype if dtype in DTYPES else "stored", trust_remote_code=trust_remote_code
        )
        return loaded.info().fingerprint

    return fingerprint


def parents_of(plan: Plan | None, source_fingerprint: str) -> frozenset[str]:
    """Fingerprints that the model of a plan is known by: as it was pruned, and as it was audited."""
    if plan is None:
        return frozenset()
    audited = plan.source.model_fingerprint if plan.source is not None else ""
    return frozenset({source_fingerprint, audited} - {""})
