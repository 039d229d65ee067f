"""The three hooks of a plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pluggy

from readtrack.bench.case import Bench, Case

hookspec = pluggy.HookspecMarker("readtrack")


@hookspec(firstresult=True)
def implementation() -> Callable[..., Any]:  # type: ignore[empty-body]
    """The object to import in a notebook: the module class or function that implements the paper."""


@hookspec(firstresult=True)
def experiment(run: Any) -> bool | None:
    """Train and evaluate in miniature, with a `readtrack.runs.run.Run`.

    Log at least one training curve (`run.metric` with a step) and one evaluation metric, and state at least
    one claim (`run.claim`).
    """


@hookspec(firstresult=True)
def benchmark(bench: Bench) -> Iterator[Case]:  # type: ignore[empty-body]
    """Yield the cases to measure. The core does the timing."""
