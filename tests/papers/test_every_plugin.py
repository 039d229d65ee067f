"""What must hold for every plugin that ships: the checks that `readtrack plugins check NAME` runs for any."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import jaxtyping
import pytest

from readtrack.checks.__main__ import checks
from readtrack.home import Home
from readtrack.plugins.find import find

SHIPPED = sorted(name for name, plugin in find(Home()).items() if plugin.origin == "shipped")


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_all_checks_hold(name: str, tmp_path: Path, remembered: Callable[..., Any]) -> None:
    module = importlib.import_module(f"readtrack.papers.{name}")
    remembered(module, tmp_path / "shapes")
    failed = []
    # The smoke run above reaches every line, with its shapes checked; that takes up to ten times as long.
    with shapes_unchecked():
        for what, check in checks(name, tmp_path, remembered):
            try:
                check()
            except AssertionError as error:
                failed.append(f"{what}: {error}")
    assert failed == []


@contextmanager
def shapes_unchecked() -> Iterator[None]:
    """The import hook decorates functions within functions, too, each time that the outer one is called."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with mock.patch.object(jaxtyping, "jaxtyped", return_value=lambda function: function):
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
