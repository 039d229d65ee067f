"""Runs the checks of `readtrack plugins check NAME` on every shipped plugin."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from readtrack.checks.__main__ import checks
from readtrack.checks.experiment import Short, run_experiment
from readtrack.home import Home
from readtrack.plugins.find import find

SHIPPED = sorted(name for name, plugin in find(Home()).items() if plugin.origin == "shipped")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_all_checks_hold(
    name: str, tmp_path: Path, remembered: Callable[..., Any], shapes_unchecked: Callable[[], Any]
) -> None:
    module = importlib.import_module(f"readtrack.papers.{name}")
    run_experiment(module, tmp_path / "shapes", kind=Short)
    failed = []
    # The short run above reaches every line with shape checks, which take up to ten times as long.
    with shapes_unchecked():
        for what, check in checks(name, tmp_path, remembered):
            try:
                check()
            except AssertionError as error:
                failed.append(f"{what}: {error}")
    assert failed == []
