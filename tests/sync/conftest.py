"""A virtual clock, arXiv on the loopback address, and a list of a few papers in a separate home."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from readtrack.home import Home
from readtrack.library import Library
from readtrack.sync.client import Endpoints
from readtrack.sync.clock import Clock, SyncCancelled
from readtrack.sync.engine import Sync
from readtrack.sync.report import SyncProgress, SyncSummary

sys.path.insert(0, str(Path(__file__).parent))  # makes loopback.py importable for the tests here

from loopback import Server


class VirtualClock(Clock):
    """A clock whose `sleep` returns immediately and advances the time. `hurrying` makes real time count
    multiple times.
    """

    def __init__(self) -> None:
        self._skipped = 0.0
        self._rate = 1.0
        self._hurries = 0
        self._since = time.monotonic()
        self._wall = time.time()
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        with self._lock:
            return self._skipped + self._rate * (time.monotonic() - self._since)

    def wall(self) -> float:
        return self._wall + self.now()

    def sleep(self, seconds: float, cancel: threading.Event) -> None:
        if cancel.is_set():
            raise SyncCancelled
        if seconds > 0:
            self.slept.append(seconds)
            self.skip(seconds)

    def skip(self, seconds: float) -> None:
        with self._lock:
            self._skipped += seconds

    @contextmanager
    def hurrying(self, rate: float = 500.0) -> Iterator[None]:
        """Within this context, real time counts `rate` times."""
        self._hurry(rate, 1)
        yield
        self._hurry(rate, -1)

    def _hurry(self, rate: float, change: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._skipped += self._rate * (now - self._since)
            self._hurries += change  # one context may begin before the last has ended
            self._since, self._rate = now, rate if self._hurries else 1.0


@pytest.fixture(autouse=True)
def _no_surprises(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test contacts a real host or uses the machine's proxy."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("READTRACK_ARXIV_API", "READTRACK_ARXIV_PDF", "READTRACK_DOI"):
        monkeypatch.setenv(name, "http://nowhere.invalid/api")
    monkeypatch.delenv("READTRACK_CONTACT", raising=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    clock = VirtualClock()
    monkeypatch.setattr("readtrack.sync.engine.Clock", lambda: clock)
    monkeypatch.setattr("readtrack.sync.add.Clock", lambda: clock)
    return clock


@pytest.fixture
def server(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """arXiv, at the addresses in the environment variables."""
    with Server(clock.now) as server:
        monkeypatch.setenv("READTRACK_ARXIV_API", f"{server.base}/api/query")
        monkeypatch.setenv("READTRACK_ARXIV_PDF", f"{server.base}/pdf")
        monkeypatch.setenv("READTRACK_DOI", f"{server.base}/doi")
        yield server


@pytest.fixture
def elsewhere(clock: VirtualClock) -> Iterator[Server]:
    """A host other than arXiv."""
    with Server(clock.now) as server:
        yield server


PaperList = Callable[[dict[str, str]], Library]


@pytest.fixture
def papers(home: Home) -> PaperList:
    """Writes the reader's list: ids with their sources (`arxiv: "2001.00001"`, several on several lines)."""

    def write(sources: dict[str, str]) -> Library:
        lines = ["title: A list", "checklist:", "  - section: All", "    rows:"]
        for id_ in sources:
            lines += [f"      - text: {id_}", f"        papers: [{id_}]"]
        lines.append("papers:")
        for id_, source in sources.items():
            lines += [
                f"  {id_}:",
                f"    title: The paper {id_}",
                "    authors: [Ada Example]",
                "    year: 2020",
            ]
            lines += ["    sources:", *(f"      {line}" for line in source.splitlines())]
        home.ensure()
        home.papers_yaml.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return Library.open(home)

    return write


@pytest.fixture
def sync(home: Home, clock: VirtualClock) -> Callable[..., SyncSummary]:
    """Runs one sync of the current list, with the options of Sync. `sync.seen` has the last events."""

    def run(*ids: str, **options: object) -> SyncSummary:
        run.seen = []  # type: ignore[attr-defined]
        options.setdefault("endpoints", Endpoints.from_environment())
        job = Sync(Library.open(home), ids or None, clock=clock, report=run.seen.append, **options)  # type: ignore
        return job.run()

    run.seen = list[SyncProgress]()  # type: ignore[attr-defined]
    return run
