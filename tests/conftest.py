"""What every test gets: a home of its own, so that none touches the reader's; one thread for torch."""

import os
from pathlib import Path

import pytest

from readtrack.home import Home

# Before torch is imported, and for child processes too: the tests run beside each other, and threads that
# wait for each other's cores make a test a hundred times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The home folder of this test, under `tmp_path`; child processes see it too. It does not exist yet."""
    monkeypatch.setenv("READTRACK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("READTRACK_PLUGIN_PATH", raising=False)
    return Home()
