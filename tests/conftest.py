"""Common set-up of all tests: a separate home, so that no test touches the reader's; one thread for torch."""

import gc
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

from readtrack.home import Home
from readtrack.reading_list import load
from readtrack.reading_list.catalog import Catalog, Paper

# Set before torch is imported, also for child processes. Tests run in parallel, and threads that wait for
# busy cores make a test a hundred times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Under nohup or in the background of a shell these signals are ignored, and child processes would inherit
# that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

_OF_PAPER = re.compile(r"tests/papers/test_(?:every_(?:plugin|exercise)\.py::.*\[(\w+)\]|(\w+)\.py)")
# These tests share the shipped report, a browser, a wheel or an environment without torch in one process.
_TOGETHER = re.compile(r"tests/(?:report/test_(?:browser|site)|test_packaging|cli/test_without_torch)\b")
_numbers = count()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run all tests of a paper in one process, where they share its runs. The tests of `_TOGETHER` run in one
    process, too, and all other tests in any process.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByPaper(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            found = _OF_PAPER.match(nodeid)
            if found:
                return found[1] or found[2]
            together = _TOGETHER.match(nodeid)
            return together[0] if together else nodeid

    return ByPaper(config, log)


def pytest_collection_finish() -> None:
    """Exclude imported modules from garbage collection, which took 12 % of the time of BERT's tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _read_once_and_never_flushed() -> Iterator[None]:
    """Parse the shipped list once instead of in every test, and flush no files: no test cuts the power."""
    real = load.load

    @lru_cache(maxsize=1)
    def shipped_list(path: Path, status: tuple[int, ...]) -> Catalog:
        return real(path)

    def once(path: Path, known: Mapping[str, Paper] | None = None) -> Catalog:
        return shipped_list(path, load._status(path)) if path == load.shipped() else real(path, known)

    patch = pytest.MonkeyPatch()
    patch.setattr(load, "load", once)
    patch.setattr(os, "fsync", lambda descriptor: None)
    yield
    patch.undo()


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Replaces pytest's fixture, which searches the folders of all tests before it creates a new one."""
    name = re.sub(r"\W", "_", request.node.name)[:27]
    folder = tmp_path_factory.getbasetemp() / f"{name}{next(_numbers):04d}"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The home folder of this test, under `tmp_path`, which child processes use as well. It does not exist
    yet.
    """
    monkeypatch.setenv("READTRACK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # stores the request times of the throttle
    monkeypatch.delenv("READTRACK_PYTHON", raising=False)
    monkeypatch.delenv("READTRACK_PLUGIN_PATH", raising=False)
    return Home()


@pytest.fixture
def dies() -> Callable[[int], bool]:
    """Whether a process ends by itself within ten seconds, because a killed one may need a moment."""

    def ended(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def wait(pid: int) -> bool:
        end = time.monotonic() + 10
        while not ended(pid) and time.monotonic() < end:
            time.sleep(0.02)
        return ended(pid)

    return wait
