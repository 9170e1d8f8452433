"""The base of all settings: an option is defined once, as the field of a room's settings model.

The field's type says how it is read and what it may be, its docstring is its help, its default the default. The command
line is built from these models (cyclopts), and the public functions take their fields as keywords. A `Parameter` beside
the type says how an option is shown: its group in the help, and its name where that is not the field's own.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from cyclopts import Group, Parameter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from shoal.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound="Settings")

MODEL = Parameter(group=Group("Model", sort_key=1))
DATA = Parameter(group=Group("Data", sort_key=2))
METHOD = Group("Method", sort_key=3)
INTERVALS = Parameter(group=Group("Intervals and random draws", sort_key=4))
SPEED = Parameter(group=Group("Speed and memory", sort_key=5))
OUTPUT = Parameter(group=Group("Output", sort_key=6))
FLAT = Parameter(name="*")
"""Beside a settings model as a parameter or as a field of another: its fields are options under their own names."""
NO_OPTION = Parameter(parse=False)
"""Beside a field that the command line does not set."""

_ADVICE = {
    "greater_than_equal": "give {ge} or more",
    "greater_than": "give a number above {gt}",
    "less_than_equal": "give {le} or less",
    "less_than": "give a number below {lt}",
    "int_parsing": "give a whole number",
    "int_from_float": "give a whole number",
    "float_parsing": "give a number",
    "finite_number": "give a finite number",
    "bool_parsing": "give true or false",
}


class Settings(BaseModel):
    """Base of everything a person sets: an unknown name is a mistake, and nothing changes afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        docstrings = _field_docstrings(cls.__module__).get(cls.__name__, {})
        for name in docstrings.keys() & cls.model_fields.keys():
            cls.model_fields[name].description = docstrings[name]

    @classmethod
    def of(cls, settings: Self | None, options: Mapping[str, Any]) -> Self:
        """`settings`, or the defaults, with `options` in their place.

        Raises:
            UsageError: an option that there is not, or a value that does not fit.
        """
        if settings is not None and not options:
            return settings
        kept = {} if settings is None else {name: getattr(settings, name) for name in settings.model_fields_set}
        try:
            return cls(**{**kept, **options})
        except ValidationError as error:
            raise usage_error(error, cls) from None

    def narrowed_to(self, model: type[S]) -> S:
        """Those of the settings that `model`, a base of this one, has."""
        return model(**{name: getattr(self, name) for name in self.model_fields_set & model.model_fields.keys()})


@cache
def _field_docstrings(module: str) -> dict[str, dict[str, str]]:
    """Class → field → docstring, in one line because help breaks lines by itself.

    Pydantic's `use_attribute_docstrings` reads and parses the source again for every class, which `--help` would feel.
    """
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):  # typed into an interpreter
        return {}
    docstrings: dict[str, dict[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            fields = docstrings[node.name] = {}
            for pair in pairwise(node.body):
                match pair:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        fields[name] = " ".join(text.split())
    return docstrings


class Bootstrap(Settings):
    """How confidence intervals are made."""

    replicates: Annotated[int, INTERVALS] = Field(default=1000, ge=10)
    """Number of bootstrap replicates."""
    level: Annotated[float, INTERVALS] = Field(default=0.95, gt=0, lt=1)
    """Confidence level of the intervals."""
    seed: Annotated[int, INTERVALS] = 0
    """Seed of every random draw."""


class Intervals(Bootstrap):
    """How confidence intervals over clips are made."""

    cluster: Annotated[Literal["speaker", "utterance"], INTERVALS] = "speaker"
    """Unit that the bootstrap draws: speakers with all their utterances, wherever speakers are known, or utterances
    whoever spoke."""


def takes(model: type[Settings]) -> Callable[[F], F]:
    """Show the fields of `model` in the signature and the docstring of a function that takes them as `**options`."""

    def shown(function: F) -> F:
        signature = inspect.signature(function)
        fixed = [
            parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD
        ]
        options = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.is_required() or field.default_factory else field.default,
                annotation=field.annotation,
            )
            for name, field in model.model_fields.items()
        ]
        lines = [f"    {name}: {field.description}" for name, field in model.model_fields.items()]
        title = f"Options, the fields of `{model.__name__}`:"
        function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", title, *lines])
        function.__signature__ = signature.replace(parameters=[*fixed, *options])  # type: ignore[attr-defined]
        return function

    return shown


def usage_error(error: ValidationError, model: type[BaseModel]) -> UsageError:
    """The first of the problems that pydantic found, in one line: which option, what is wrong, what to do."""
    option = option_name(model, [part for part in error.errors()[0]["loc"] if isinstance(part, str)])
    what, fix = first_problem(error, "option", model, value=option.strip("-").replace("-", " "))
    return UsageError(what, where=option, fix=fix)


def first_problem(
    error: ValidationError, key: str, model: type[BaseModel] | None = None, *, value: str = "value"
) -> tuple[str, str | None]:
    """The first of the problems that pydantic found, and what to do, without pydantic's words.

    Args:
        error: what pydantic found.
        key: what a name stands for, such as `option`.
        model: whose names may have been meant where one is unknown.
        value: what a value stands for.
    """
    first = error.errors()[0]
    kind, context, message = first["type"], first.get("ctx", {}), first["msg"].removeprefix("Value error, ")
    shown = repr(first.get("input"))
    match kind:
        case "extra_forbidden":
            names = list(model.model_fields) if model else []
            near = get_close_matches(str(first["loc"][-1]), names, 1)
            return f"there is no such {key}", f"did you mean {near[0]}?" if near else None
        case "missing":
            return "is missing", None
        case "literal_error":
            return f"unknown {value} {shown}", use_one_of(first["input"], re.findall(r"'([^']*)'", context["expected"]))
        case "string_type":
            return f"{shown} is no text", "write it in quotes"
        case "value_error":
            return message, None
    advice = _ADVICE.get(kind, message[:1].lower() + message[1:])
    return f"{shown if len(shown) <= 80 else 'it'} does not fit", advice.format(**context)


def use_one_of(value: object, choices: Sequence[str]) -> str:
    """What to do about a value that is not among `choices`."""
    listed = "use " + " or ".join(part for part in (", ".join(choices[:-1]), choices[-1]) if part)
    return did_you_mean(value, choices) + listed


def did_you_mean(value: object, choices: Iterable[str]) -> str:
    """`did you mean X? ` if one of `choices` is like `value`, else nothing."""
    near = get_close_matches(str(value), list(choices), 1)
    return f"did you mean {near[0]}? " if near else ""


def option_name(model: type[BaseModel], path: list[str]) -> str:
    """What the field at `path`, of `model` or of a model inside it, is called on the command line."""
    name = path[0] if path else ""
    field = model.model_fields.get(name)
    if field is None:
        return name or model.__name__
    for part in (field.annotation, *get_args(field.annotation)):
        if len(path) > 1 and isinstance(part, type) and issubclass(part, BaseModel):
            return option_name(part, path[1:])
    names = [next(iter(item.name)) for item in field.metadata if isinstance(item, Parameter) and item.name]
    return names[0] if names else f"--{name.replace('_', '-')}"


def comma_separated(value: object) -> object:
    """`"1,2"`, or what the command line makes of it, `["1,2"]` → `["1", "2"]`; anything else as it is."""
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts):
        return [part.strip() for text in texts for part in text.split(",")]
    return value


def _share(value: object) -> object:
    if not isinstance(value, str):
        return value
    percent = value.endswith("%")
    try:
        number = float(value.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ValueError(f"{value!r} is not a share; write 25% or 0.25")
    if number >= 1 and not percent:
        raise ValueError(f"{value!r} is not a share; {one_or_more(number)}")
    return number / 100 if percent else number


def one_or_more(number: float) -> str:
    """What to write instead of a share of 1 or more without a per cent sign: `5` may mean 5 % or 500 %."""
    return f"write {number:g}% or {number / 100:g}, or {100 * number:g}% if that is meant"


CommaSeparated = BeforeValidator(comma_separated)
"""Beside the type of a list that is written `1,2,4`."""
Share = Annotated[float, BeforeValidator(_share), Field(ge=0)]
"""`25%` or `0.25`; as text, a number of 1 or more without a per cent sign is refused."""
SHARE = Parameter(metavar="SHARE", allow_leading_hyphen=True)
"""Beside a share, so that a negative one is refused as what it is and not as an option."""
