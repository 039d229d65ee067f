"""What every test gets: a home of its own, so that none touches the reader's; one thread for torch."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from readtrack.home import Home

# Before torch is imported, and for child processes too: the tests run beside each other, and threads that
# wait for each other's cores make a test a hundred times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Under nohup or in a shell's background these come ignored, and child processes would inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

_OF_PAPER = re.compile(r"tests/papers/test_(?:every_(?:plugin|exercise)\.py::.*\[(\w+)\]|(\w+)\.py)")
_IN_BROWSER = "tests/report/test_browser.py"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """All tests of a paper run in one process, where they share its runs, and those of the browser share one;
    any other test runs in any.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByPaper(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            found = _OF_PAPER.match(nodeid)
            if found:
                return found[1] or found[2]
            return _IN_BROWSER if nodeid.startswith(_IN_BROWSER) else nodeid

    return ByPaper(config, log)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The home folder of this test, under `tmp_path`; child processes see it too. It does not exist yet."""
    monkeypatch.setenv("READTRACK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # where the pace of requests is kept
    monkeypatch.delenv("READTRACK_PYTHON", raising=False)
    monkeypatch.delenv("READTRACK_PLUGIN_PATH", raising=False)
    return Home()


@pytest.fixture
def dies() -> Callable[[int], bool]:
    """Whether a process ends by itself within ten seconds: one that was killed may take a moment."""

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
