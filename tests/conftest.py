"""What every test gets: a home of its own, so that none reads or writes the reader's."""

from pathlib import Path

import pytest

from readtrack.home import Home


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The home folder of this test, under `tmp_path`; child processes see it too. It does not exist yet."""
    monkeypatch.setenv("READTRACK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("READTRACK_PLUGIN_PATH", raising=False)
    return Home()
