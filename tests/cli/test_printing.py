"""What commands print: tables in four formats, progress in bars and lines, and what an interrupted user is told."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from shoal.cli import main, progress
from shoal.cli.printing import TablePrinting
from shoal.cli.progress import Interrupted, progress_bars
from shoal.tables import Table

TABLE = Table(["system", "WER %", "p"], [["full", "5.0", ""], ["without 3|4", "12.5", ""]])


def test_a_table_is_aligned_and_has_no_empty_column() -> None:
    assert str(TABLE).splitlines() == ["system       WER %", "full           5.0", "without 3|4   12.5"]
    assert str(Table(["a", "b"], [])) == "a  b"


def test_a_table_in_other_formats(capsys) -> None:
    result = {"systems": 2}
    TablePrinting(format="md").show(result, ["title", TABLE, "advice"])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["| system | WER % |", "| --- | ---: |", "| full | 5.0 |", "| without 3\\|4 | 12.5 |"]
    TablePrinting(format="csv").show(result, ["title", TABLE])
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [TABLE.columns, *TABLE.rows]
    for printing in (TablePrinting(format="json"), TablePrinting(as_json=True)):
        printing.show(result, [TABLE])
        assert json.loads(capsys.readouterr().out) == result


def test_a_command_takes_the_format(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path))
    assert main(["weights", "ls", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("name,download,on disk,cached,licence\npkg:")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that have passed; the test turns them on."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_has_a_line_a_stage_and_long_ones_are_not_silent(clock, capsys) -> None:
    with progress_bars() as report:
        for done in range(0, 101, 10):
            clock[0] = 10.0 * done / 10
            report("transcribe", done, 100)
        report("load", 0, 1)
        clock[0] += 12
        report("load", 1, 1)
        report("short", 0, 8)
        report("short", 8, 8)
    lines = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "transcribe: 40 of 100, 40 s, 1.0 s each",
        "transcribe: 80 of 100, 80 s, 1.0 s each",
        "transcribe: 100 of 100, 100 s, 1.0 s each",
        "load: 12 s",
    ]


def test_what_an_earlier_run_has_done_is_said_and_does_not_count_for_the_rate(clock, capsys) -> None:
    with progress_bars(Path("out")) as report:
        report("transcribe", 8, 16)
        clock[0] = 10.0
        report("transcribe", 16, 16)
        report("cells", 4, 4)
    lines = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "transcribe: 8 of 16 found in out",
        "transcribe: 16 of 16, 10 s, 1.2 s each",
        "cells: 4 of 4 found in out, nothing left to do",
    ]


def test_quiet_shows_nothing(clock, capsys) -> None:
    with progress_bars(quiet=True) as report:
        report("load", 0, 1)
        clock[0] = 100.0
        report("load", 1, 1)
        report.say("Loading")
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=screen, force_terminal=True, width=120))
    with progress_bars() as report:
        report("transcribe", 0, 16)
        report("transcribe", 4, 16)
    assert "transcribe" in screen.getvalue()
    assert "4/16" in screen.getvalue()
    assert "/s" in screen.getvalue() or "s each" in screen.getvalue()


def test_a_stage_without_a_total_has_a_moving_bar_and_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=screen, force_terminal=True, width=120))
    with progress_bars() as report:
        report("load MODEL", 0, 1)
        report.bars.refresh()
        report("load MODEL", 1, 1)
    shown = screen.getvalue()
    assert "load MODEL" in shown
    assert "0:00:00" in shown
    assert not re.search(r"\?|0/|1/1|-:--", re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", shown))


@pytest.mark.parametrize(
    ("stages", "resumes", "line"),
    [
        ([("transcribe", 4, 16)], True, "Interrupted: 4 of 16 stored; run the same command to go on"),
        ([("train", 4, 16)], True, "Interrupted during train, 4 of 16; run the same command to go on"),
        ([("time", 4, 16)], False, "Interrupted during time, 4 of 16; run the same command to begin again"),
        ([("load m", 0, 1)], True, "Interrupted during load m; run the same command to go on"),
        ([], True, "Interrupted; run the same command to go on"),
    ],
)
def test_who_presses_ctrl_c_is_told_what_is_stored(stages, resumes, line) -> None:
    def work() -> None:
        with progress_bars(Path("out") if resumes else None) as report:
            for stage in stages:
                report(*stage)
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        work()
    assert str(caught.value) == line
    assert caught.value.exit_code == 130


def test_the_command_ends_with_130_and_says_how_far_it_came(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def read(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shoal.cli.options.read_data", read)
    assert main(["heal", "pruned", "--data", "clips", "--out", "healed"]) == 130
    assert capsys.readouterr().err == "shoal: Interrupted; run the same command to go on\n"


def test_a_command_without_stages_is_interrupted_in_words_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path, capsys
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shoal.cli.options.audit_paths", stopped)
    assert main(["select", str(tmp_path), "--layers", "1"]) == 130
    assert capsys.readouterr().err == "shoal: Interrupted; run the same command to go on\n"
