"""How `readtrack run` shows a run on a terminal.

Finished claims, measurements and messages are printed and scroll up. A small region below them shows phases,
progress and curves, and is redrawn ten times a second.
"""

from __future__ import annotations

import time
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from readtrack import signs
from readtrack.present import benchmarks, claims, marks, runs
from readtrack.present.sparkline import Axes, sparkline
from readtrack.text import format_duration, one_line

if TYPE_CHECKING:
    from readtrack.runs.events import Event
    from readtrack.runs.record import Record

_LABEL = 9
_SPARK = 24
_COLOURS = {"good": "green", "doubtful": "yellow", "bad": "red", "quiet": "dim"}


class LiveView:
    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._began = time.monotonic()
        self._stop_level = ""
        self._case = ""

    def __enter__(self) -> None:
        self._live.start()
        # If the process is killed while the region is shown, the terminal must keep its cursor.
        self._console.show_cursor(True)

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def event(self, event: Event, record: Record) -> None:
        if event["event"] == "hello":
            budget = f"{record.job.budget} budget, seed {record.job.seed}" if record.job else ""
            self._say("run", Text(f"{record.paper}, {budget}", style="bold"))
        elif event["event"] == "environment":
            self._say("device", Text(runs.environment(event)))
        elif event["event"] == "claim":
            self._claim(claims.judged(event), control=record.job is not None and record.job.control)
        elif event["event"] == "measurement" and (measured := benchmarks.measured(event)).last_round:
            self._measurement(measured)
        elif event["event"] == "log":
            self._say("log", Text(runs.message(event["text"])))
        elif event["event"] == "warning":
            self._say("warning", Text(runs.message(event["text"]), style="yellow"))
        elif event["event"] == "artifact":
            caption = event.get("caption") or event["name"]
            self._say("file", Text.assemble(one_line(event["path"]), (f"  {one_line(caption)}", "dim")))

    def stopping(self, stop_level: str) -> None:
        self._stop_level = stop_level

    def tick(self, record: Record) -> None:
        self._live.update(self._region(record), refresh=True)

    def end(self, record: Record, folder: Path | None) -> None:
        self._live.update(Text(""), refresh=True)
        if folder is None:
            return
        metrics = list(runs.metrics(record))
        column = min(40, max((len(name) for name, _ in metrics), default=0))
        for name, value in metrics:
            self._say("metric", Text.assemble(f"{name:<{column}}  ", (value, "bold")))
        style = "green" if record.outcome == "completed" else "red"
        self._say("end", Text(runs.end(record), style=style))
        self._say("record", Text(str(folder), style="dim", overflow="fold"))

    def _claim(self, claim: claims.StatedClaim, *, control: bool) -> None:
        """Print the verdict, then a row for each number with its bounds."""
        sign, tone = marks.verdict("not judged" if control else claim.shown_verdict)
        verdict = (f"{sign} {claim.shown_verdict}", _COLOURS[tone])
        self._say("claim", Text.assemble(verdict, "  ", (claim.name, "bold")))
        numbers = Table.grid(padding=(0, 2))
        for metric, ours, bounds, held in claim.numbers:
            style = "bold" if held or control or claim.verdict == "not judged" else "red"
            numbers.add_row(Text(metric), Text(ours, style=style), Text(bounds, style="dim"))
        self._say("", numbers, indent=2)
        self._say("", Text(f"paper: {claim.paper}", style="dim"), indent=2)

    def _measurement(self, one: benchmarks.VariantView) -> None:
        if one.point != self._case:
            self._case = one.point
            self._say("measure", Text(one.point))
        name, role, span, more = one.name, one.role, one.time or "-", one.line()
        row = Table.grid(padding=(0, 2))
        for width in (20, 8):
            row.add_column(width=width)
        row.add_column(width=8, justify="right")
        row.add_column(style="" if role == "paper" else "dim")
        style = "bold" if role == "paper" else ""
        row.add_row(Text(name, style=style), Text(role, style=style), Text(span, style=style), Text(more))
        self._say("", row, indent=2)

    def _say(self, label: str, content: RenderableType, *, indent: int = 0) -> None:
        """Print above the region, with long text wrapped next to its label."""
        grid = Table.grid()
        grid.add_column(width=_LABEL, style="dim")
        grid.add_column()
        grid.add_row(label, Padding(content, (0, 0, 0, indent)))
        self._console.print(grid)

    def _region(self, record: Record) -> RenderableType:
        rows: list[RenderableType] = [Text(""), self._phases(record)]
        progress = record.progress
        if progress is not None and progress.total:
            count = f"  {progress.done}/{progress.total}  {runs.time_left(record)}"
            line = Table.grid()
            line.add_column(width=_LABEL + 12, no_wrap=True)
            line.add_column(width=20)
            line.add_column(no_wrap=True)
            bar = ProgressBar(total=progress.total, completed=progress.done, width=20)
            line.add_row(Text(one_line(progress.label)), bar, Text(count))
            rows.append(line)
        rows += self._curves(record)
        if record.state == "not responding":
            silence = format_duration(record.silence())
            rows.append(Text(f"not responding for {silence}; Ctrl+C stops the run", style="yellow"))
        if self._stop_level:
            rows.append(
                Text(f"stopping ({self._stop_level}). Press Ctrl+C again to force it", style="yellow")
            )
        return Group(*rows)

    def _phases(self, record: Record) -> Text:
        """The finished phases with their times, and the current phase. The oldest are dropped if there is no
        room.
        """
        # The experiment may name a phase that the worker has already begun.
        phases = [next(same) for _, same in groupby(record.phases, key=itemgetter(0))] or [("starting", 0.0)]
        name, start = phases[-1]
        so_far = max(0.0, time.monotonic() - self._began - start)
        current = f"{signs.RUNNING} {name} {format_duration(so_far)}"
        done = []
        for (earlier, began), (_, ended) in pairwise(phases):
            took = ended - began
            time_taken = f" {format_duration(took)}" if took >= 0.1 else ""
            done.append(f"{signs.PASSED} {earlier}{time_taken}   ")
        while done and len("".join(done)) + len(current) > self._console.width:
            done.pop(0)
        return Text.assemble(("".join(done), "dim"), (current, "cyan"), no_wrap=True, overflow="ellipsis")

    def _curves(self, record: Record) -> list[RenderableType]:
        """The curves that fit, with a row for each arm: its name, a sparkline, its last value."""
        table = Table.grid(padding=(0, 2))
        rows = 0
        room = max(3, self._console.height - 8)
        for name, arms in record.curves.items():
            axes = Axes.around(arms.values())
            for index, (arm, points) in enumerate(arms.items()):
                rows += 1
                if rows > room:
                    return [table, Text("...", style="dim")]
                spark = sparkline(points, axes, _SPARK)
                last = claims.number(points[-1][1])
                scale = " (log)" if axes.logarithmic else ""
                label = Text(one_line(name) + scale if index == 0 else "")
                table.add_row(label, Text(one_line(arm)), Text(spark, style="cyan"), Text(last))
        return [table] if rows else []
