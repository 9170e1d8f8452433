"""What pruning saves: time of each step, parameters, checkpoint size and peak memory."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.bundle import Bundle, Named
from shoal.report.parts import Figure, Section, Table
from shoal.schema import Bench, Estimate, SystemBench

ID, TITLE, SHORT = "savings", "What removing layers saves", "Time and memory"
STEPS = {
    "encode": ("encode", figure_style.SKY),
    "prefill": ("prefill", figure_style.ORANGE),
    "decode": ("decode", figure_style.BLUE),
}
RATIOS = {
    "prefill_ratio": ("prefill", figure_style.ORANGE, "square"),
    "decode_ratio": ("decode", figure_style.BLUE, "diamond"),
    "total_ratio": ("whole clip", figure_style.GREEN, "circle"),
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
        "heading": bench.model.ref + (f" · {named.label}" if named.label else ""),
        "lead": _lead(bench),
        "figures": [_times(bench, index), _ratios(bench, index)],
        "time_table": _time_table(bench),
        "size_table": _size_table(bench),
    }


def _lead(bench: Bench) -> str:
    where = bench.provenance
    threads = f", {wording.plural(where.threads, 'thread')}" if where.threads else ""
    return (
        f"Systems took turns on the same {wording.plural(bench.clips or bench.data.clips, 'clip')}, "
        f"{wording.plural(bench.repeats, 'round')}, batch size {bench.batch_size}, always "
        f"{wording.plural(bench.new_tokens, 'new token')}; {where.device}, {where.dtype}{threads}. "
        f"Brackets are {wording.level_name(bench.level)} intervals. "
        "Ratios are pruned over unpruned: below 1 is saved."
    )


def _height(bench: Bench) -> int:
    return 120 + 44 * len(bench.systems)


def _times(bench: Bench, index: int) -> Figure:
    figure = figure_style.new_figure(_height(bench), x="milliseconds for a clip", y="")
    names = [system.name for system in bench.systems]
    for step, (name, colour) in STEPS.items():
        estimates = [_step(system, step) for system in bench.systems]
        values = [estimate.value * (bench.new_tokens if step == "decode" else 1) for estimate in estimates]
        figure.add_bar(
            y=names,
            x=[round(1000 * value, 3) for value in values],
            name=f"{name} ({bench.new_tokens} tokens)" if step == "decode" else name,
            orientation="h",
            marker={"color": colour},
            customdata=[wording.milliseconds(estimate) for estimate in estimates],
            hovertemplate=f"%{{y}}: {name} %{{x:.1f}} ms<br>measured: %{{customdata}}<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.35, legend_traceorder="normal")
    figure.update_yaxes(autorange="reversed", showgrid=False, ticklabelstandoff=6)
    caption = "Encoder and projector, then reading the prompt, then writing. Intervals are in the table."
    return Figure(f"times-{index}", "Time for a clip, step by step", caption, {"": figure})


def _step(system: SystemBench, step: str) -> Estimate:
    times = {
        "encode": system.encode_seconds,
        "prefill": system.prefill_seconds,
        "decode": system.decode_seconds,
    }
    return times[step]


def _ratios(bench: Bench, index: int) -> Figure:
    pruned = [system for system in bench.systems if system.removed]
    caption = "Each step of a pruned model over the same step of the unpruned one, with interval."
    title = "Time against the unpruned model"
    if not any(_ratio(system, key) for system in pruned for key in RATIOS):
        return Figure(f"ratios-{index}", title, caption, {"": "Not measured: no pruned model was benchmarked."})
    figure = figure_style.new_figure(_height(bench), x="pruned over unpruned", y="")
    for offset, (key, (name, colour, symbol)) in enumerate(RATIOS.items(), start=-1):
        _draw_ratio(figure, pruned, key, name, colour, symbol, -0.22 * offset)
    figure.add_vline(x=1, line={"color": figure_style.GREY, "width": 1.5, "dash": "dash"})
    figure.update_yaxes(
        tickvals=list(range(len(pruned))),
        ticktext=[system.name for system in pruned],
        range=[len(pruned) - 0.5, -0.5],
        showgrid=False,
        ticklabelstandoff=6,
    )
    return Figure(f"ratios-{index}", title, caption, {"": figure})


def _ratio(system: SystemBench, key: str) -> Estimate | None:
    ratios = {
        "prefill_ratio": system.prefill_ratio,
        "decode_ratio": system.decode_ratio,
        "total_ratio": system.total_ratio,
    }
    return ratios[key]


def _draw_ratio(
    figure: go.Figure, pruned: list[SystemBench], key: str, name: str, colour: str, symbol: str, offset: float
) -> None:
    points = [(row, system, ratio) for row, system in enumerate(pruned) if (ratio := _ratio(system, key))]
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


def _time_table(bench: Bench) -> Table:
    rows = [
        [
            system.name,
            wording.milliseconds(system.encode_seconds, ""),
            wording.milliseconds(system.prefill_seconds, ""),
            wording.milliseconds(system.decode_seconds, ""),
            wording.milliseconds(system.total_seconds, ""),
            *(_ratio_cell(_ratio(system, key), system) for key in RATIOS),
        ]
        for system in bench.systems
    ]
    columns = [
        "System",
        "Encode",
        "Prefill",
        "Decode a token",
        "Whole clip",
        "Prefill ratio",
        "Decode ratio",
        "Whole ratio",
    ]
    return Table("Time for a clip, in milliseconds, and ratios", columns, rows, highlight=frozenset({0}))


def _ratio_cell(estimate: Estimate | None, system: SystemBench) -> str:
    return wording.ratio_estimate(estimate) if estimate or system.removed else "–"


def _size_table(bench: Bench) -> Table:
    rows = [
        [
            system.name,
            f"{system.parameters:,}",
            f"{system.decoder_parameters:,}",
            wording.mebibytes(system.checkpoint_bytes),
            wording.mebibytes(system.peak_memory_bytes),
            *(
                wording.ratio(value) if value is not None or system.removed else "–"
                for value in (system.parameter_ratio, system.checkpoint_ratio, system.peak_memory_ratio)
            ),
        ]
        for system in bench.systems
    ]
    columns = [
        "System",
        "Parameters",
        "of them decoder",
        "Checkpoint",
        "Peak memory",
        "Parameters ratio",
        "Checkpoint ratio",
        "Peak memory ratio",
    ]
    return Table("Size and memory", columns, rows, highlight=frozenset({0}))
