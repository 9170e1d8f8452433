"""Settings models: what they take, how they refuse in one line, and what functions show of them."""

from __future__ import annotations

import inspect
from typing import Annotated, Literal

import pytest
import torch
from cyclopts import Parameter
from pydantic import Field

import shoal
from shoal.errors import UsageError
from shoal.measurement.settings import AuditSettings
from shoal.models import loading
from shoal.settings import CommaSeparated, Settings, Share, takes


class Inner(Settings):
    steps: int = Field(default=5, ge=1)
    """Steps of the run."""


class Example(Settings):
    colours: Annotated[tuple[Literal["red", "green"], ...], Parameter(name="--colour")] = ("red",)
    """Colour to paint with."""
    sizes: Annotated[tuple[int, ...] | None, CommaSeparated] = None
    """Sizes of the brushes."""
    share: Share = 0.5
    """Share of the wall."""
    max_layers: int | None = Field(default=None, ge=1)
    """Most layers."""
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"colours": ["gren"]}, "--colour: unknown colour 'gren'; did you mean green? use red or green"),
        ({"colour": ["red"]}, "colour: there is no such option; did you mean colours?"),
        ({"sizes": "1,x"}, "--sizes: 'x' does not fit; give a whole number"),
        ({"share": "some"}, "--share: 'some' is not a share; write 25% or 0.25"),
        ({"share": "5"}, "--share: '5' is not a share; write 5% or 0.05, or 500% if that is meant"),
        ({"share": "1"}, "--share: '1' is not a share; write 1% or 0.01, or 100% if that is meant"),
        ({"share": float("nan")}, "--share: nan does not fit; give a finite number"),
        ({"max_layers": 0}, "--max-layers: 0 does not fit; give 1 or more"),
        ({"inner": {"steps": 0}}, "--steps: 0 does not fit; give 1 or more"),
    ],
)
def test_what_does_not_fit_is_one_line(options: dict[str, object], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        Example.of(None, options)
    assert str(caught.value) == line


def test_what_a_person_writes_is_read() -> None:
    settings = Example.of(None, {"colours": ["green", "red"], "sizes": ["1,2", "4"], "share": "25%"})
    assert (settings.colours, settings.sizes, settings.share) == (("green", "red"), (1, 2, 4), 0.25)


def test_options_go_before_settings() -> None:
    settings = Example(sizes=(1,), share=0.1)
    assert Example.of(settings, {}) is settings
    assert Example.of(settings, {"share": 0.2}) == Example(sizes=(1,), share=0.2)


def test_a_function_shows_the_fields_it_takes() -> None:
    @takes(Example)
    def paint(wall: str, settings: Example | None = None, **options: object) -> None:
        """Paint a wall."""

    assert list(inspect.signature(paint).parameters) == ["wall", "settings", *Example.model_fields]
    assert "max_layers: Most layers." in (paint.__doc__ or "")


def test_public_functions_take_today_s_keywords_and_name_the_nearest() -> None:
    assert {"metrics", "block_sizes", "replicates", "out"} <= set(inspect.signature(shoal.audit).parameters)
    with pytest.raises(UsageError, match="did you mean metrics"):
        shoal.audit(None, None, metric=["ablation"])  # type: ignore[arg-type]


def test_only_ablation_races() -> None:
    with pytest.raises(UsageError, match=r"--race: only ablation does that; add --metric ablation"):
        AuditSettings.of(None, {"race": True})


@pytest.mark.parametrize(("cuda", "mps", "device"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    chosen = loading.find_device("auto")
    assert chosen.type == device
    dtype = loading._dtype("auto", chosen)
    assert dtype == (torch.float32 if device == "cpu" else "auto"), "the dtype follows the device"
