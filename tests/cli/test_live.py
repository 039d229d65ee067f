"""The live view, drawn into a string."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from readtrack.claims import Bound, Claim, Figure
from readtrack.cli.live import LiveView
from readtrack.present.sparkline import Axes, sparkline
from readtrack.runs.job import new_job
from readtrack.runs.record import Record


class Stage:
    """Feeds events to a view on a terminal of this size. `frame` is the current region."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.written = io.StringIO()
        console = Console(
            file=self.written,
            force_terminal=True,
            width=columns,
            height=lines,
            color_system=None,
            markup=False,
        )
        self.view = LiveView(console)
        self.console = console
        self.record = Record.from_job(new_job("toy"))

    def event(self, kind: str, /, **fields: Any) -> None:
        event = {"event": kind, "t": 1.0, "seq": 0, **fields}
        self.record.apply(event)
        self.view.event(event, self.record)

    def frame(self) -> str:
        with self.console.capture() as captured:
            self.console.print(self.view._region(self.record))
        return captured.get()


@pytest.fixture
def stage() -> Stage:
    return Stage()


CLAIM = Claim(
    name="[b]falls[/b]",
    sentence="s",
    paper=Figure("from 1 to 0.1.", read="table"),
    rule=(Bound("loss", "<=", 0.5),),
).to_json()
MEASUREMENT = {
    "case": "attention",
    "axes": {"tokens": 128},
    "mode": "forward",
    "dtype": "float32",
    "variant": "ours",
    "role": "paper",
    "t_ns": {"p50": 1500.0},
    "ok": {"passed": True},
}


def test_the_region_shows_phases_progress_and_curves(stage: Stage) -> None:
    stage.event("phase", name="import", t=0.0)
    stage.event("phase", name="train", t=2.0)
    stage.event("progress", label="training", done=3, total=12, eta=75.0)
    for step, loss in enumerate((8.0, 4.0, math.nan, 1.0)):
        stage.event("metric", name="loss", value=loss, step=step, arm="adam")
    frame = stage.frame()
    assert "✓ import 2.0 s" in frame
    assert "▶ train" in frame
    assert "3/12  1 min 15 s left in this loop" in frame
    assert "adam  █▄ ▁  1" in frame


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_the_region_fits_the_terminal(columns: int) -> None:
    stage = Stage(columns, lines=20)
    for index in range(9):
        stage.event("phase", name=f"phase{index}", t=float(index))
    stage.event("progress", label="a very long label " * 9, done=1, total=2, eta=1.0)
    for arm in range(60):
        stage.event("metric", name="a long name of a metric " * 3, value=1.0, step=0, arm=f"arm {arm}")
    lines = stage.frame().splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= columns
    assert "▶ phase8" in lines[1]  # the current phase is never cut


def test_results_stay_on_the_screen_and_are_not_markup(stage: Stage) -> None:
    with stage.view:
        stage.event("claim", claim=CLAIM, values={"loss": 0.1}, verdict="held", ours="loss 0.1", seed=0)
        stage.event("log", text="[red]\x1b[31mtext")
        stage.event("measurement", **MEASUREMENT)
        stage.event(
            "measurement", **{**MEASUREMENT, "variant": "theirs", "t_ns": None, "skipped": "needs triton"}
        )
        stage.event("end", outcome="completed", detail="")
        stage.view.end(stage.record, Path("/runs/1"))
    said = stage.written.getvalue()
    assert "✓ held  [b]falls[/b]" in said
    assert "loss  0.1  ≤ 0.5" in said
    assert re.search(
        r"^ +paper: from 1 to 0\.1 *$", said.replace("\x1b[2K", "").replace("\r", ""), re.MULTILINE
    )
    assert "[red]text" in said
    assert said.count("attention, tokens 128, forward, float32") == 1
    assert "skipped: needs triton" in said
    assert "1.5 µs" in said
    assert "\x1b[31m" not in said
    assert "/runs/1" in said


def test_stopping_shows_its_level(stage: Stage) -> None:
    stage.view.stopping("asked")
    assert "stopping (asked)" in stage.frame()


def test_curves_of_one_metric_share_their_axes() -> None:
    short, long = [(0, 1.0), (1, 2.0)], [(0, 1.0), (7, 8.0)]
    axes = Axes.around([short, long])
    assert sparkline(short, axes, 8) == "▁▂"
    assert sparkline(long, axes, 8) == "▁▁▁▁▁▁▁█"
    assert sparkline(long, axes, 4) == "▁▁▁█"


def test_a_curve_over_decades_is_logarithmic() -> None:
    points = [(step, 10.0**-step) for step in range(8)]
    assert sparkline(points, Axes.around([points]), 8) == "█▇▆▅▄▃▂▁"


def test_a_curve_may_be_anything() -> None:
    for points in ([(0, math.nan)], [(5, 0.0)], [(0, -1.0), (1, math.inf), (2, -1.0)]):
        row = sparkline(points, Axes.around([points]), 10)
        assert len(row) <= len(points)
