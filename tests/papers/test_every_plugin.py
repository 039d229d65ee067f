"""What must hold for every plugin that ships: the checks that `readtrack plugins check NAME` runs for any."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from readtrack.checks.__main__ import checks
from readtrack.home import Home
from readtrack.plugins.find import find

SHIPPED = sorted(name for name, plugin in find(Home()).items() if plugin.origin == "shipped")


@pytest.mark.parametrize("name", SHIPPED)
def test_all_checks_hold(name: str, tmp_path: Path, remembered: Callable[..., Any]) -> None:
    importlib.import_module(f"readtrack.papers.{name}")
    failed = []
    for what, check in checks(name, tmp_path, remembered):
        try:
            check()
        except AssertionError as error:
            failed.append(f"{what}: {error}")
    assert failed == []
