"""The tests shared out among forked processes: `pytest --workers 2`.

What the tests import is imported and collected once, before the fork. pytest-xdist's workers do it once each: 14
seconds of CPU, and 45 where nothing is compiled yet.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from itertools import chain, groupby, pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, NoReturn

import pytest

from forked_processes import WORKER


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--workers", type=int, default=1, help="Processes that share out the test files.")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """In place of pytest's own loop, where there is more than one worker."""
    workers = session.config.getoption("workers")
    if workers < 2 or session.config.option.collectonly or session.testsfailed:
        return None
    # Made here, so that all use the same one.
    session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    files = [list(items) for _, items in groupby(session.items, key=lambda item: item.path)]
    Run(session, files, workers).run()
    return True


class Run:
    """Workers take one file after another; what they report is reported here."""

    def __init__(self, session: pytest.Session, files: list[list[pytest.Item]], workers: int) -> None:
        self._session = session
        self._hook = session.config.hook
        queue, filled = os.pipe()
        os.write(filled, b"".join(index.to_bytes(2, "big") for index in range(len(files))))
        os.close(filled)
        self._processes: dict[Connection, Any] = {}
        self._running: dict[Connection, str] = {}
        for number in range(workers):
            ours, theirs = Pipe(duplex=False)
            process = get_context("fork").Process(target=work, args=(session, files, queue, theirs, number))
            process.start()
            theirs.close()
            self._processes[ours] = process

    def run(self) -> None:
        """Until all have ended, or the session shall stop."""
        try:
            while self._processes:
                for connection in wait(list(self._processes), timeout=5):
                    assert isinstance(connection, Connection)
                    self._pass_on(connection)
                for connection, process in self._processes.items():
                    if not process.is_alive() and not connection.poll():
                        self._lost(connection)
                if self._session.shouldfail:
                    raise self._session.Failed(self._session.shouldfail)
        finally:
            for process in self._processes.values():
                process.terminate()
                process.join()

    def _pass_on(self, connection: Connection) -> None:
        """One message: what a test did, or that there is no more."""
        try:
            kind, message = connection.recv()
        except EOFError:
            self._lost(connection)
        if kind == "start":
            self._running[connection] = message["nodeid"]
            self._hook.pytest_runtest_logstart(**message)
        elif kind == "report":
            report = self._hook.pytest_report_from_serializable(config=self._session.config, data=message)
            self._hook.pytest_runtest_logreport(report=report)
        elif kind == "warning":
            self._hook.pytest_warning_recorded.call_historic(kwargs=message)
        else:
            self._processes.pop(connection).join()

    def _lost(self, connection: Connection) -> NoReturn:
        process = self._processes[connection]
        process.join(5)
        pytest.exit(f"a worker ended with {process.exitcode} in {self._running.get(connection)}", returncode=1)


class Sender:
    """What is reported in a worker is sent."""

    def __init__(self, config: pytest.Config, connection: Connection) -> None:
        self._config = config
        self._connection = connection

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._connection.send(("start", {"nodeid": nodeid, "location": location}))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._connection.send(("report", data))

    def pytest_warning_recorded(self, warning_message: Any, when: str, nodeid: str, location: Any) -> None:
        plain = warnings.WarningMessage(
            str(warning_message.message), warning_message.category, warning_message.filename, warning_message.lineno
        )
        data = {"warning_message": plain, "when": when, "nodeid": nodeid, "location": location}
        self._connection.send(("warning", data))


def work(
    session: pytest.Session, files: list[list[pytest.Item]], queue: int, connection: Connection, number: int
) -> None:
    """Run one file after another, as pytest's own loop does."""
    os.environ[WORKER] = str(number)
    own_streams(session.config)
    session.config.pluginmanager.register(Sender(session.config, connection))
    for item, following in pairwise(chain(taken(files, queue), [None])):
        assert item is not None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    connection.send(("end", None))


def taken(files: list[list[pytest.Item]], queue: int) -> Iterator[pytest.Item]:
    """The tests of the next file that nobody has taken, and so on."""
    while index := os.read(queue, 2):
        yield from files[int.from_bytes(index, "big")]


def own_streams(config: pytest.Config) -> None:
    """The terminal is the first process's; what tests print is caught here in a file of this process's own."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    terminal: Any = config.pluginmanager.getplugin("terminalreporter")
    nothing = Path(os.devnull).open("w")  # noqa: SIM115
    terminal._tw._file = nothing
    capture.stop_global_capturing()
    sys.stdout = sys.stderr = nothing
    capture.start_global_capturing()
