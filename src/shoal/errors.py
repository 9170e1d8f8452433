"""The errors Shoal raises, in one tree.

::

    ShoalError
    ├── InputError             the user can fix it: exit code 2, one line
    │   ├── UsageError         a flag or an argument
    │   ├── ManifestError      a manifest or one of its rows
    │   ├── AudioError         an audio file
    │   ├── ModelError         a model folder, id or class
    │   ├── WeightsError       a download, a hash, the cache
    │   ├── PlanError          a plan, or a plan that does not fit the model
    │   └── FileFormatError    an audit, scores, bench … file
    ├── TrainingError          a training run that cannot go on (a loss that is not a number, no memory): exit code 1
    ├── MeasureError           a measurement gave a value that must not be used (NaN, infinity): exit code 1
    └── VerificationError      a pruned checkpoint did not prove equal to the model in memory: exit code 1

Anything that is not a `ShoalError` is our bug and keeps its traceback.
"""

from __future__ import annotations


class ShoalError(Exception):
    """Base of everything Shoal raises on purpose."""

    exit_code = 1


class InputError(ShoalError):
    """Bad input that the user can fix; printed as one line.

    Args:
        what: what is wrong, without a full stop.
        where: the file, row, flag or field it was found at.
        fix: what the user should do.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        line = what if where is None else f"{where}: {what}"
        line = line if fix is None else f"{line}; {fix}"
        super().__init__(" ".join(line.split()))


class UsageError(InputError):
    """A flag or an argument is wrong."""


class ManifestError(InputError):
    """A manifest, or too many of its rows, cannot be used."""


class AudioError(InputError):
    """An audio file cannot be used."""


class ModelError(InputError):
    """A model cannot be found, loaded or handled."""


class WeightsError(InputError):
    """Weights cannot be downloaded, checked, converted or cached."""


class PlanError(InputError):
    """A plan is malformed or does not fit the model."""


class FileFormatError(InputError):
    """A file between the steps (audit, plan, scores, bench …) cannot be read."""


class MeasureError(ShoalError):
    """A measurement produced a value that must not be mistaken for a result."""


class TrainingError(ShoalError):
    """A training run cannot go on; what it has reached is kept."""


class VerificationError(ShoalError):
    """A checkpoint is not what the model in memory was."""
