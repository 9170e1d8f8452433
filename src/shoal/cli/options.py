"""Arguments that several commands share, and how settings become options.

A command is a function with plain parameters for its arguments and files, and one parameter for each settings model,
marked `Flat`: the fields of the model are then options of the command.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, ArgumentCollection, Parameter

import shoal
from shoal.progress import Progress, stage
from shoal.settings import DATA, FLAT, MODEL

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.data.settings import DataSettings
    from shoal.models.loading import LoadedModel
    from shoal.models.settings import ModelSettings

DepthCheck = Callable[[int], object]
CHECK_FAILED = 4
"""Exit code where a check that was asked for did not hold."""
Flat = FLAT
Model = Annotated[str, MODEL, Parameter(help="A folder, a Hugging Face Hub id or pkg:NAME (see shoal weights ls).")]
Data = Annotated[
    list[str],
    DATA,
    Parameter(
        metavar="MANIFEST",
        help="Clips: a manifest (NeMo JSONL), a folder of audio and .txt files, or hf:NAME. Repeatable.",
    ),
]
TaskName = Annotated[
    str,
    DATA,
    Parameter(
        help="Task: asr (recognition), ast (translation), ser (emotion), sqa (spoken questions), lm (text alone), "
        "tts (speech), or a YAML file of your own (docs/tasks.md)."
    ),
]
Scores = Annotated[
    tuple[Path, ...],
    DATA,
    Parameter(name="--scores", metavar="FILE", help="A scores.json of the checkpoint. Repeatable."),
]
Benches = Annotated[
    tuple[Path, ...],
    DATA,
    Parameter(name="--bench", metavar="FILE", help="A bench.json of the checkpoint. Repeatable."),
]
Plans = Annotated[
    tuple[Path, ...],
    MODEL,
    Parameter(metavar="FILE", help="A plan.json to compare with the unpruned model. Repeatable."),
]


class Command(App):
    """A command whose help is its docstring, and that of its options in settings models.

    So cyclopts need not look for help in the sources of all classes, which takes 0.5 s.
    """

    _assembled: ArgumentCollection | None = None

    def assemble_argument_collection(
        self, *, default_parameter: Parameter | None = None, parse_docstring: bool = False
    ) -> ArgumentCollection:
        """The arguments. Help asks twice, for the line of usage and then with docstrings, and gets the same ones."""
        if self._assembled is None or not parse_docstring:
            self._assembled = super().assemble_argument_collection(default_parameter=default_parameter)
        return self._assembled

    @property
    def help(self) -> str:
        """What the command does."""
        return super().help

    @help.setter
    def help(self, line: str) -> None:
        """A line in the list of commands does not replace a docstring, which may say more."""
        self._help = self._help or line


def command(function: Callable[..., object]) -> Command:
    """The command that calls `function`."""
    made = Command(function.__name__.replace("_", "-"), help=inspect.getdoc(function))
    made.default(function)
    return made


def shown_default(value: Any) -> str | None:
    """A default as the help shows it; none where the help says what happens, or nothing does."""
    if value is None or value is False or value in ((), [], {}, ""):
        return None
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def read_data(
    sources: list[str] | None,
    settings: DataSettings,
    task: str,
    seed: int,
    progress: Progress | None = None,
    *,
    answers: bool = True,
) -> Dataset:
    """The data set that a command's options name.

    Args:
        sources: manifests, folders or data sets.
        settings: which of their rows.
        task: its name, or its YAML file.
        seed: where the even spacing of `--limit` starts.
        progress: told while audio is looked at.
        answers: rows must hold the right answer; it is looked for in the first, before a model is loaded.

    Raises:
        InputError: rows that cannot be used.
    """
    from shoal import tasks

    asked = tasks.get(task)
    data = shoal.read_manifests(
        sources or [],
        settings,
        needs_text=asked.needs_text,
        label_field=asked.label_field,
        progress=progress,
        seed=seed,
    )
    if answers:
        asked.target(data.rows[0])
    return data


def read_other(
    option: str,
    sources: Sequence[str],
    rows: DataSettings,
    limit: int | None,
    where: Mapping[str, str],
    task: str,
    seed: int,
    progress: Progress | None = None,
) -> Dataset | None:
    """The data set of another data option, if it was given; `--limit` and `--where` hold unless it has its own."""
    own: dict[str, object] = {"limit": limit, "limit_option": f"{option}-limit"} if limit else {}
    own |= {"where": where} if where else {}
    return read_data([*sources], rows.model_copy(update=own), task, seed, progress) if sources else None


def load(
    model: str, settings: ModelSettings, progress: Progress, depth_checks: Iterable[DepthCheck] = ()
) -> LoadedModel:
    """Load a model, as a stage of its own.

    Args:
        model: the user's name for it.
        settings: how it is loaded.
        progress: told when that begins and ends.
        depth_checks: refuse a number of decoder layers.

    Raises:
        ModelError: it is not there, or not one.
    """
    with stage(progress, f"load {model}"):
        check_depth(model, depth_checks)
        return shoal.load(model, settings)


def check_depth(model: str, checks: Iterable[DepthCheck]) -> None:
    """Refuse a wrong name, and what does not fit the depth if the files say it, before torch is imported."""
    from shoal.models import weights
    from shoal.models.stated_depth import stated_depth

    depth = stated_depth(weights.resolve(model).path)
    if depth is not None:
        for check in checks:
            check(depth)


def audit_paths(paths: list[Path]) -> list[Path]:
    """Audits that are named by their file or by its folder."""
    return [path / "audit.json" if path.is_dir() else path for path in paths]
