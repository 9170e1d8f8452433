"""What an evaluation's folder holds already: scored again with the same settings, extended, and never silently lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from shoal.data_names import DATA, DOMAIN
from shoal.errors import FileFormatError, UsageError
from shoal.evaluation.score_systems import BASELINE, SystemIdentity
from shoal.evaluation.settings import ScoringSettings
from shoal.evaluation.shards import read_whole
from shoal.evaluation.system_outputs import Output
from shoal.schema import DataInfo, Plan, Scores
from shoal.schema.files import holds_another
from shoal.settings import Intervals
from shoal.terms import Control

if TYPE_CHECKING:
    from shoal.evaluation.comet import Comet
    from shoal.tasks import Task

SCORES_FILE = "scores.json"
S = TypeVar("S", bound=ScoringSettings)


Controls = Mapping[Control, Mapping[str, Output]]
"""What one system says under every control: clip id → output."""


class ToScore(NamedTuple):
    """Systems, their outputs, and the clips to score."""

    identities: Sequence[SystemIdentity]
    outputs: Sequence[Mapping[str, Output]]
    ids: Sequence[str]
    data: DataInfo
    controls: Sequence[Controls]


class StoredScores:
    """The `scores.json` of a folder, and the raw outputs that it was made of.

    Args:
        folder: the `out` of an earlier `evaluate`.

    Raises:
        FileFormatError: `scores.json` or an outputs file is missing or broken.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.scores = Scores.load(folder / SCORES_FILE)
        self.identities = [
            SystemIdentity(
                system.name,
                system.model_ref,
                system.plan,
                system.outputs_file,
                system.missing,
                {name: control.outputs_file for name, control in system.controls.items()},
                system.fingerprint,
                system.healed,
            )
            for system in self.scores.systems
        ]

    @classmethod
    def find(cls, folder: Path | None) -> StoredScores | None:
        """Those of `folder`, if there are any with outputs."""
        if folder is None or not (folder / SCORES_FILE).is_file():
            return None
        stored = cls(folder)
        return stored if all(stored._has_outputs(identity) for identity in stored.identities) else None

    def _has_outputs(self, identity: SystemIdentity) -> bool:
        files = [identity.outputs_file, *identity.controls.values()]
        return all(file is not None and (self._folder / file).is_file() for file in files)

    def outputs_of(self, identity: SystemIdentity) -> Mapping[str, Output]:
        """Of one system.

        Raises:
            FileFormatError: they are missing or broken.
        """
        return self._read(identity.outputs_file)

    def controls_of(self, identity: SystemIdentity) -> Controls:
        """Of one system, too.

        Raises:
            FileFormatError: they are missing or broken.
        """
        return {name: self._read(file) for name, file in identity.controls.items()}

    def _read(self, file: str | None) -> Mapping[str, Output]:
        if file is None or not (self._folder / file).is_file():
            raise FileFormatError(
                f"the raw outputs {file or ''} are not there", where=str(self._folder), fix="evaluate again"
            )
        return read_whole(self._folder / file)

    @cached_property
    def outputs(self) -> list[Mapping[str, Output]]:
        """Of every system."""
        return [self.outputs_of(identity) for identity in self.identities]

    @cached_property
    def controls(self) -> list[Controls]:
        """Of every system, too."""
        return [self.controls_of(identity) for identity in self.identities]

    @cached_property
    def ids(self) -> list[str]:
        """Clips that all systems have an output for; asked for before anything is decoded, which adds to the files."""
        return [clip for clip in self.outputs[0] if all(clip in system for system in self.outputs)]

    def inherited(self, settings: S) -> S:
        """The settings that were scored with, and those given in their place."""
        before, given = self.scores, settings.model_fields_set
        kept = [name for name in Intervals.model_fields if name != "cluster" or before.intervals == "studentised"]
        values = {name: getattr(before, name) for name in kept}
        values["out_of_domain"] = tuple(before.out_of_domain)
        if fields := [field for field in before.systems[0].groups if field not in (DATA, DOMAIN)]:
            values["group_by"] = tuple(fields)
        if before.controlled and "controls" in type(settings).model_fields:
            values["controls"] = True
        return settings.model_copy(update={name: value for name, value in values.items() if name not in given})

    def comet(self, task: Task) -> Comet | None:
        """The COMET that was scored with; None without one, and where it cannot be used (see `Comet.again`)."""
        from shoal.evaluation.comet import Comet

        score = self.scores.systems[0].measures.get(Comet.name)
        return None if score is None else Comet.again(score.signature, task)

    def plans(self, fingerprint: str) -> list[Plan]:
        """Of the systems that were scored, if they are of the model with this fingerprint."""
        if self.scores.model.fingerprint != fingerprint:
            return []
        return [identity.plan for identity in self.identities if identity.plan and identity.model_ref is None]

    def extended_by(self, ids: Sequence[str], data: DataInfo) -> bool:
        """Whether the clips are more than those scored before, or the same; False if they are some of them.

        Raises:
            UsageError: they are neither.
        """
        if data.fingerprint == self.scores.data.fingerprint:
            return True
        asked, before = set(ids), set(self.ids)
        if before <= asked:
            return True
        if asked < before:
            return False
        raise self._refusal(f"scores of {len(before - asked)} clips that are not among these {len(asked)}")

    def joined(self, now: ToScore, *, extends: bool) -> ToScore:
        """What was decoded now, with the systems and the clips that were not asked for this time.

        Args:
            now: the systems and clips that were asked for.
            extends: from `extended_by`, asked before anything was decoded.

        Raises:
            UsageError: a checkpoint that was scored before has no output for the clips of now.
        """
        names = {identity.outputs_file for identity in now.identities}
        absent = [identity for identity in self.identities if identity.outputs_file not in names]
        kept = [(identity, self.outputs_of(identity), self.controls_of(identity)) for identity in absent]
        ids, data = (now.ids, now.data) if extends else (self.ids, self.scores.data)
        for identity, outputs, _ in kept:
            if not all(clip in outputs for clip in ids):
                raise self._refusal(f"scores of {identity.model_ref or identity.name}, but on other clips")
        # The baseline stands first.
        first = [system for system in kept if system[0].name == BASELINE]
        last = [system for system in kept if system[0].name != BASELINE]
        identities, answers, controls = zip(
            *first, *zip(now.identities, now.outputs, now.controls, strict=True), *last, strict=True
        )
        return ToScore(identities, answers, ids, data, controls)

    def _refusal(self, what: str) -> UsageError:
        return holds_another(self._folder, what)
