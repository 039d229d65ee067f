"""A sync stops within a second of real time at any point, and leaves nothing incomplete."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import loopback
import pytest
from loopback import Server, status

from readtrack.home import Home
from readtrack.sync.clock import Clock
from readtrack.sync.engine import Sync
from readtrack.sync.report import SyncProgress, SyncSummary

COMMAND = Path(sys.executable).with_name("readtrack")
LISTED = {"one": '- arxiv: "2001.00001"', "two": '- arxiv: "2001.00002"'}


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        monkeypatch.setenv("READTRACK_ARXIV_API", f"{server.base}/api/query")
        monkeypatch.setenv("READTRACK_ARXIV_PDF", f"{server.base}/pdf")
        yield server


def name_service_hangs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = socket.getaddrinfo

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(3)
        return asked(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)


SPOTS: dict[str, tuple[Callable[[Server, pytest.MonkeyPatch], Any], Callable[[SyncProgress], bool]]] = {
    "looking up the name": (name_service_hangs, lambda p: p.state == "metadata"),
    "waiting for an answer": (
        lambda server, patch: server.fail("/api/query", loopback.hang()),
        lambda p: p.state == "metadata",
    ),
    "between two requests": (lambda server, patch: None, lambda p: p.state == "waiting"),
    "in mid-file": (
        lambda server, patch: server.fail("00001v1", loopback.drip()),
        lambda p: p.state == "downloading" and p.bytes > 3,
    ),
    "while arXiv wants peace": (
        lambda server, patch: server.fail("/api/query", status(429, Retry_After="60")),
        lambda p: "trying again in 1 min" in p.message,
    ),
}


@pytest.mark.timing
@pytest.mark.parametrize("spot", SPOTS)
def test_cancel(spot: str, real: Server, papers: Any, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up, reached = SPOTS[spot]
    set_up(real, monkeypatch)
    cancel, there = threading.Event(), threading.Event()
    outcome: list[SyncSummary] = []

    def report(progress: SyncProgress) -> None:
        if reached(progress):
            there.set()

    job = Sync(papers(LISTED), report=report, cancel=cancel, clock=Clock())
    thread = threading.Thread(target=lambda: outcome.append(job.run()))
    thread.start()
    assert there.wait(20)
    time.sleep(0.2)
    began = time.monotonic()
    cancel.set()
    thread.join(5)
    assert time.monotonic() - began < 1.0
    (summary,) = outcome
    assert summary.cancelled
    assert summary.exit_code == 130
    assert summary.headline == "Cancelled; 0 of 2."
    assert set(summary.states.values()) == {"cancelled"}
    assert not list(home.root.rglob("*.part"))
    assert not list(home.pdfs.glob("*.pdf"))
    real.scripts.clear()
    monkeypatch.undo()
    time.sleep(0.2)
    assert not any(map(loopback.is_open, real.open_connections))


def test_a_sync_continues_after_it_was_cancelled(real: Server, papers: Any, home: Home) -> None:
    cancel = threading.Event()

    def report(progress: SyncProgress) -> None:
        if progress.state == "done":
            cancel.set()

    first = Sync(papers(LISTED), report=report, cancel=cancel).run()
    assert first.headline == "Cancelled; 1 of 2."
    second = Sync(papers(LISTED)).run()
    assert second.headline == "2 papers: 1 fetched, 1 up to date."
    assert [path for path in real.paths() if "pdf" in path] == ["/pdf/2001.00001v1", "/pdf/2001.00002v1"]
    assert min(real.gaps()) > 2.999


@pytest.mark.timing
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_stops_at_a_signal(number: int, code: int, real: Server, papers: Any, home: Home) -> None:
    papers(LISTED)
    real.fail("00001v1", loopback.drip())
    with subprocess.Popen(
        [COMMAND, "sync"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        end = time.monotonic() + 30
        while len(real.requests) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.3)
        began = time.monotonic()
        process.send_signal(number)
        printed, told = process.communicate(timeout=20)
        assert time.monotonic() - began < 1.5  # includes the interpreter's exit
    assert process.returncode == code
    assert printed.splitlines()[-1] == "Cancelled; 0 of 2."
    assert told == ""
    assert not list(home.root.rglob("*.part"))
