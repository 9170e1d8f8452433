"""What pruning saves: time of each step, parameters, checkpoint size and peak memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.bundle import UNPRUNED, Bundle, Named
from shoal.report.parts import Figure, Section
from shoal.schema import Bench, Estimate, SystemBench
from shoal.tables import NONE, Table

ID, TITLE, SHORT = "savings", "What removing layers saves", "Time and memory"
STEPS: dict[str, tuple[str, Callable[[SystemBench], Estimate]]] = {
    "encode": (figure_style.SKY, lambda system: system.encode_seconds),
    "prefill": (figure_style.ORANGE, lambda system: system.prefill_seconds),
    "decode": (figure_style.BLUE, lambda system: system.decode_seconds),
}
RATIOS: dict[str, tuple[str, str, Callable[[SystemBench], Estimate | None]]] = {
    "prefill": (figure_style.ORANGE, "square", lambda system: system.prefill_ratio),
    "decode": (figure_style.BLUE, "diamond", lambda system: system.decode_ratio),
    "whole clip": (figure_style.GREEN, "circle", lambda system: system.total_ratio),
}


def build(bundle: Bundle) -> Section:
    """One article for each bench."""
    if not bundle.benches:
        missing = "Not measured: no bench was given. “shoal bench” makes one."
        return Section(ID, TITLE, SHORT, missing=missing)
    articles = [_article(named, index) for index, named in enumerate(bundle.benches)]
    return Section(ID, TITLE, SHORT, template="bench.html", view={"articles": articles}, draws=True)


def _article(named: Named[Bench], index: int) -> dict[str, Any]:
    bench = named.document
    return {
        "heading": named.heading,
        "lead": _lead(bench),
        "figures": [_times(bench, index), _ratios(bench, index)],
        "time_table": Table.of(TIMES_TITLE, TIMES, bench.systems, highlight=[0]),
        "size_table": Table.of("Size and memory", SIZES, bench.systems, highlight=[0]),
    }


def _lead(bench: Bench) -> str:
    where, first = bench.provenance, bench.systems[0]
    threads = f", {wording.plural(where.threads, 'thread')}" if where.threads else ""
    return (
        f"Systems took turns on the same {wording.plural(bench.clips or bench.data.clips, 'clip')}, "
        f"{wording.plural(bench.repeats, 'round')}, batch size {bench.batch_size}, always "
        f"{wording.plural(bench.new_tokens, 'new token')}; {where.device}, {where.dtype}{threads}. "
        f"Brackets are {wording.level_name(bench.level)} intervals. "
        f"Ratios are {'over ' + first.name if first.missing else 'pruned over unpruned'}: below 1 is saved."
    )


def _height(bench: Bench) -> int:
    return 120 + 44 * len(bench.systems)


def _times(bench: Bench, index: int) -> Figure:
    figure = figure_style.new_figure(_height(bench), x="milliseconds for a clip", y="")
    names = [system.name for system in bench.systems]
    for name, (colour, seconds) in STEPS.items():
        estimates = [seconds(system) for system in bench.systems]
        values = [estimate.value * (bench.new_tokens if name == "decode" else 1) for estimate in estimates]
        figure.add_bar(
            y=names,
            x=[round(1000 * value, 3) for value in values],
            name=f"{name} ({bench.new_tokens} tokens)" if name == "decode" else name,
            orientation="h",
            marker={"color": colour},
            customdata=[wording.milliseconds(estimate) for estimate in estimates],
            hovertemplate=f"%{{y}}: {name} %{{x:.1f}} ms<br>measured: %{{customdata}}<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.35, legend_traceorder="normal")
    figure.update_yaxes(autorange="reversed", showgrid=False, ticklabelstandoff=6)
    caption = "Encoder and projector, then reading the prompt, then writing. Intervals are in the table."
    return Figure(f"times-{index}", "Time for a clip, step by step", caption, {"": figure})


def _ratios(bench: Bench, index: int) -> Figure:
    pruned = [system for system in bench.systems if system.removed]
    caption = (
        f"Each step of a pruned model over the same step of the first one, with interval: {wording.MEAN_OF_RATIOS}."
    )
    title = f"Time against {bench.systems[0].name if bench.systems[0].missing else UNPRUNED}"
    if not any(ratio(system) for system in pruned for _, _, ratio in RATIOS.values()):
        return Figure(f"ratios-{index}", title, caption, {"": "Not measured: no pruned model was benchmarked."})
    figure = figure_style.new_figure(_height(bench), x="pruned over unpruned", y="")
    for number, name in enumerate(RATIOS):
        _draw_ratio(figure, pruned, name, -0.22 * (number - 1))
    figure.add_vline(x=1, line={"color": figure_style.GREY, "width": 1.5, "dash": "dash"})
    figure.update_yaxes(
        tickvals=list(range(len(pruned))),
        ticktext=[system.name for system in pruned],
        range=[len(pruned) - 0.5, -0.5],
        showgrid=False,
        ticklabelstandoff=6,
    )
    return Figure(f"ratios-{index}", title, caption, {"": figure})


def _draw_ratio(figure: go.Figure, pruned: list[SystemBench], name: str, offset: float) -> None:
    colour, symbol, ratio_of = RATIOS[name]
    points = [(row, system, ratio) for row, system in enumerate(pruned) if (ratio := ratio_of(system))]
    figure.add_scatter(
        x=[ratio.value for _, _, ratio in points],
        y=[row + offset for row, _, _ in points],
        mode="markers",
        name=name,
        marker={"color": colour, "symbol": symbol, "size": 9},
        error_x=figure_style.error_bars([ratio for _, _, ratio in points]) | {"color": colour},
        customdata=[[system.name, wording.ratio_estimate(ratio)] for _, system, ratio in points],
        hovertemplate=f"%{{customdata[0]}}: {name} %{{customdata[1]}}<extra></extra>",
    )


TIMES_TITLE = f"Time for a clip, and ratios (each {wording.MEAN_OF_RATIOS})"
TIMES: dict[str, Callable[[SystemBench], str]] = {
    "System": lambda system: system.name,
    "Encode, ms": lambda system: wording.milliseconds(system.encode_seconds, ""),
    "Prefill, ms": lambda system: wording.milliseconds(system.prefill_seconds, ""),
    "Decode a token, ms": lambda system: wording.milliseconds(system.decode_seconds, ""),
    "Whole clip, ms": lambda system: wording.milliseconds(system.total_seconds, ""),
    "Prefill, mean ratio": lambda system: _ratio_text(system, system.prefill_ratio),
    "Decode, mean ratio": lambda system: _ratio_text(system, system.decode_ratio),
    "Whole, mean ratio": lambda system: _ratio_text(system, system.total_ratio),
}
SIZES: dict[str, Callable[[SystemBench], str]] = {
    "System": lambda system: system.name,
    "Parameters": lambda system: f"{system.parameters:,}",
    "of them decoder": lambda system: f"{system.decoder_parameters:,}",
    "Checkpoint": lambda system: wording.mebibytes(system.checkpoint_bytes),
    "Peak memory": lambda system: wording.mebibytes(system.peak_memory_bytes),
    "Parameters ratio": lambda system: _ratio_text(system, system.parameter_ratio),
    "Checkpoint ratio": lambda system: _ratio_text(system, system.checkpoint_ratio),
    "Peak memory ratio": lambda system: _ratio_text(system, system.peak_memory_ratio),
}


def _ratio_text(system: SystemBench, ratio: Estimate | float | None) -> str:
    """The unpruned model is not compared with itself."""
    if ratio is None and not system.removed:
        return NONE
    return wording.ratio_estimate(ratio) if isinstance(ratio, Estimate) else wording.ratio(ratio)
