"""Draws the pages of a run: pure functions from its record to lines."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from textual.content import Content

from readtrack import signs
from readtrack.home import modified
from readtrack.present import chart, marks, runs
from readtrack.present.actions import key
from readtrack.present.chart import Series
from readtrack.present.claims import number
from readtrack.runs.events import Artifact
from readtrack.runs.log import tail
from readtrack.runs.record import Record
from readtrack.text import format_duration
from readtrack.tui.widgets import claims_page
from readtrack.tui.widgets.curves import drawn, legend
from readtrack.tui.widgets.line_view import (
    BLANK,
    LazyLine,
    Line,
    Lines,
    beside,
    gradual,
    heading,
    join,
    pair,
    text,
    wrapped,
)
from readtrack.tui.widgets.table import Cell, fits, table, turned
from readtrack.tui.widgets.targets import File

_TEXT_LIMIT = 64 * 1024
_LOG_LINES = 400
_TABLE_ROWS = 500
_TABLE_COLUMNS = 40
_CELL_LIMIT = 1000  # characters
_OPENED = {"image": ".png", "audio": ".wav"}
_BUCKETS = 300  # maximum number of points of a curve; even a wide terminal has fewer dots
_WHOLE = 60  # maximum number of artifacts shown with their content
_WHOLE_LINES = 1000  # stop after this number of lines, so that keys stay fast


# The head: the job and its progress


def title_line(record: Record, name: str, width: int) -> Content:
    job = record.job
    facts = [record.environment.get("device") or (job.device if job else "")]
    if job is not None:
        facts += [job.budget, f"seed {job.seed}", job.only and f"{job.only} only"]
    condition = f"  {job.condition}" if job is not None and job.condition else ""
    known = " · ".join(str(fact) for fact in facts if fact)
    what, state = join(" ", (name, "bold $heading"), (condition, "bold $reading")), state_label(record)
    left = join(what, "  ", (known, "$muted"))
    if left.cell_length + state.cell_length < width:
        return pair(left, state, width)
    # The condition comes before the duration.
    return pair(what, state if what.cell_length + state.cell_length < width else state[:1], width)


def state_label(record: Record) -> Content:
    """The state, such as `▶ running 12 s` or `✓ completed in 14 s`."""
    took = format_duration(record.elapsed)
    if record.outcome is None:
        style = "$bad" if record.state == "not responding" else "$reading"
        left = runs.time_left(record)
        return join(
            (f"{signs.RUNNING} {record.state} {took} ", f"bold {style}"),
            (f" {left} " if left else "", "$muted"),
        )
    good = record.outcome == "completed"
    outcome = runs.outcome(record.outcome)
    words = f"{marks.OUTCOMES[record.outcome]} {outcome}{' in' if good else ' after'} {took} "
    return join((words, "bold $good" if good else "bold $bad"))


def phase_line(record: Record, width: int) -> Content:
    """The phases, such as `✓ import 2.1 s  ▶ train 4.0 s  · evaluate  · benchmark`; without times in a narrow
    window.
    """
    whole = _phases(record, times=True)
    return whole if whole.cell_length <= width else _phases(record, times=False)


def _phases(record: Record, *, times: bool) -> Content:
    failed = marks.OUTCOMES.get(str(record.outcome), "!")
    styled = {
        "done": (signs.PASSED, "$good"),
        "now": (signs.RUNNING, "$reading"),
        "stopped": (failed, "$bad"),
        "to come": (signs.NOTHING, "$faint"),
    }
    quiet = {"now": "", "to come": "$faint"}
    parts: list[Content] = []
    for phase in runs.phases(record):
        took = f" {format_duration(phase.seconds)}" if times and phase.state != "to come" else ""
        name = (phase.name, quiet.get(phase.state, "$muted"))
        parts.append(join(styled[phase.state], " ", name, (took, "$muted")))
    return join(" ", Content("   ").join(parts))


def progress_line(record: Record, width: int) -> Content:
    """A bar with count, speed and load. Without progress, the reason for the end or the current wait."""
    progress = record.progress
    if progress is None or progress.total <= 0:
        return pair(join(" ", _remark(record)), text(runs.load(record), "$muted"), width)
    share = min(1.0, progress.done / progress.total)
    left = f"{progress.done}/{progress.total}  {share:.0%}"
    label = text(progress.label).truncate(max(8, width // 4), ellipsis=True)
    load = f"   {runs.load(record)}" if width >= 90 else ""
    left += load
    room = max(4, width - label.cell_length - len(left) - 6)
    done = round(share * room)
    return join(
        " ", label, "  ", ("━" * done, "$reading"), ("─" * (room - done), "$faint"), "  ", (left, "$muted")
    )


def strip(record: Record, width: int) -> Content:
    """A live run in one line, such as `▶ adam  train 61%  about 4.0 s left`, with the key that shows it."""
    progress = record.progress
    how_far = text(record.phase or "starting", "$reading")
    if progress is not None and progress.total > 0:
        share = min(1.0, progress.done / progress.total)
        how_far = join(how_far, f" {share:.0%}")
    how_far = join(how_far, "  ", (runs.time_left(record), "$muted"))
    return pair(
        join((f"{signs.RUNNING} ", "$reading"), (record.paper, "bold"), "  ", how_far),
        join((key("live_run"), "bold"), (" view   ", "$muted"), (key("cancel"), "bold"), (" stop", "$muted")),
        width,
    )


def ending(record: Record) -> Content:
    """The message that a run has ended, with its verdicts."""
    condition = f"  {record.job.condition}" if record.job is not None and record.job.condition else ""
    news = join(state_label(record), (record.paper, "bold"), (condition, "$reading"))
    if record.outcome != "completed":
        return join(news, "  ", (record.detail, "$muted"))
    return join(news, *(join("  ", verdict) for verdict in claims_page.verdict_marks(record)))


def _remark(record: Record) -> Content:
    if record.outcome == "completed":
        return Content("   ").join(claims_page.verdict_marks(record))
    bad = record.outcome is not None or record.state == "not responding"
    return text(runs.waiting(record), "$bad" if bad else "$muted")


# Overview


def overview(
    record: Record,
    width: int,
    height: int,
    *,
    metric: int,
    log_scale: bool | None,
    all_curves: bool = False,
) -> Lines:
    """The overview: curves, claims and numbers, in two columns if there is room. `all_curves` shows all
    curves as small charts side by side.
    """
    if all_curves and record.curves:
        return _multiples(record, width, height, log_scale)
    if width >= 110 and record.curves:
        left_width = width * 3 // 5
        left = _curves(record, left_width, max(height, 12), metric, log_scale)
        return beside(left, _facts(record, width - left_width - 3), left_width)
    facts = _facts(record, width)
    if not record.curves:
        coming = _nothing_yet(record, width) if record.outcome is None or not facts else []
        return [*coming, *([BLANK] if coming and facts else []), *facts]
    curves = _curves(record, width, min(18, max(10, height - 3)), metric, log_scale)
    return [*curves, BLANK, *facts]


def _facts(record: Record, width: int) -> list[Line]:
    lines: list[Line] = []
    blocks = (error_lines, claims_page.short, _metrics, _times, _machine)
    for block in blocks:
        found = block(record, width)
        lines += ([BLANK] if lines and found else []) + found
    return lines


def _nothing_yet(record: Record, width: int) -> list[Line]:
    if record.outcome is None:
        return wrapped(
            "Curves, claims and numbers appear here as the run reports them.", width, "$muted", indent=1
        )
    return wrapped(
        "This run recorded no metrics and no claims. Its log may say why.", width, "$muted", indent=1
    )


def _curves(record: Record, width: int, height: int, metric: int, log_scale: bool | None) -> list[Line]:
    names = list(record.curves)
    fit = max(1, min(len(names), height // 14))
    each = (height + 1) // fit - 1
    lines: list[Line] = []
    for offset in range(fit):
        index = (metric + offset) % len(names)
        lines += [BLANK] if lines else []
        lines += curve(record, names[index], index, len(names), width, each, log_scale)
    return lines


def curve(
    record: Record, name: str, index: int, count: int, width: int, height: int, log_scale: bool | None
) -> list[Line]:
    """One metric with all its arms in about `height` lines: axis names, chart, legend."""
    series = _series(record, name, min(_BUCKETS, 2 * width))
    log_x, log = chart.wants_log_x(series), chart.wants_log(series) if log_scale is None else log_scale
    reach = None if log else chart.reach_of_most(series)
    scale = {(True, False): "log scale", (False, True): "log x", (True, True): "log scale, log x"}
    notes = [f"{index + 1} of {count}" if count > 1 else "", scale.get((log, log_x), "")]
    notes += ["outliers at the edge"] if reach else []
    x, y = record.axes.get(name, ("", ""))
    named = " over " in name  # the plugin may give the axis a more exact name
    over = f" over {x or 'step'}" if not named and (x or not log_x) else ""
    notes[:0] = [y, f"x: {x}" if named and x and not name.endswith(f" over {x}") else ""]
    title = join(" ", (name, "bold"), (over, "$muted"), "  ", (" · ".join(filter(None, notes)), "$muted"))
    below = legend(series, width, name, x)
    least = 8 if height > _SMALL[1] else 4  # a long legend must not squash the chart
    rows = chart.draw(
        series, width - 2, max(least, height - 1 - len(below)), log_x=log_x, log_y=log, reach=reach
    )
    return [Line(title), *drawn(rows), *below]


_SMALL = (38, 9)  # columns and lines of a small chart


@gradual
def _multiples(record: Record, width: int, height: int, log_scale: bool | None) -> Iterator[Lines]:
    """All curves as small charts, in as many columns as fit. Few curves are made taller to fill the
    height.
    """
    names = list(record.curves)
    columns = max(1, min(len(names), width // _SMALL[0]))
    rows = -(-len(names) // columns)
    each = max(_SMALL[1], (height + 1) // rows - 1)
    room = (width - 2 * (columns - 1)) // columns
    for first in range(0, len(names), columns):
        yield [BLANK] if first else []
        side_by_side: list[Line] = []
        for number_, name in enumerate(names[first : first + columns]):
            drawing = curve(record, name, first + number_, len(names), room, each, log_scale)
            drawing = [Line(line.content.truncate(room, ellipsis=True)) for line in drawing]
            side_by_side = beside(side_by_side, drawing, (room + 2) * number_ - 2, 2) if number_ else drawing
        yield side_by_side


def _series(record: Record, name: str, buckets: int) -> list[Series]:
    """The curves of a metric, downsampled to the number of points that can be shown."""
    return [
        Series(arm or name, chart.decimated(points, buckets)) for arm, points in record.curves[name].items()
    ]


def is_log(record: Record, name: str, log_scale: bool | None) -> bool:
    """Whether to use a log scale: the reader's choice, or the scale that suits the curve."""
    return chart.wants_log(_series(record, name, _BUCKETS)) if log_scale is None else log_scale


def _metrics(record: Record, width: int) -> list[Line]:
    rows: list[list[Cell]] = []
    names = dict.fromkeys(name for name, _ in record.values)
    for name in names:
        for arm in [arm for other, arm in record.values if other == name]:
            value = record.values[name, arm]
            rows.append([name, arm, number(value)])
    if not rows:
        return []
    if not any(row[1] for row in rows):
        return [heading("Metrics"), *table(("name", "value"), [[r[0], r[2]] for r in rows], width, indent=1)]
    return [heading("Metrics"), *table(("name", "arm", "value"), rows, width, indent=1)]


def _times(record: Record, width: int) -> list[Line]:
    """Where the times are, for a run without curves."""
    if record.curves or not record.measurements:
        return []
    return wrapped("Times and memory are on the Benchmark tab.", width, "$muted", indent=1)


def _machine(record: Record, width: int) -> list[Line]:
    line = runs.machine(record)
    return [heading("Machine"), *wrapped(line, width, "$muted", indent=1)] if line else []


def error_lines(record: Record, width: int) -> list[Line]:
    """The failure, its reason and the next step; empty without a failure."""
    lines: list[Line] = []
    failure = runs.failure(record)
    if failure is not None:
        lines += wrapped(text(failure.what, "bold $bad"), width, indent=1)
        lines += wrapped(f"Why: {failure.why}", width, indent=1)
        lines += wrapped(f"Next step: {failure.next_step}", width, indent=1)
    for warning in record.warnings:
        lines += wrapped(f"! {warning}", width, "$reading", indent=1)
    return lines


# Artifacts


@gradual
def artifacts(
    record: Record, folder: Path, width: int, picture: Callable[[Path, int], list[Content] | None]
) -> Iterator[Lines]:
    """Images, sounds, texts and tables one below the other; enter on an image or a sound opens it.

    `picture` gives an image's lines, None while it loads.
    """
    if not record.artifacts:
        waiting = record.outcome is None
        words = "Images, sounds, texts and tables appear here." if waiting else "This run has no artifacts."
        yield wrapped(words, width, "$muted", indent=1)
        return
    home = folder.resolve()
    shown = length = 0
    for event in record.artifacts[:_WHOLE]:
        if length >= _WHOLE_LINES:
            break
        block = _artifact(event, home, width, picture)
        yield [BLANK, BLANK, *block] if shown else block
        shown, length = shown + 1, length + len(block) + 2
    if more := record.artifacts[shown:]:
        yield [BLANK, heading(f"{len(more):,} more in the run's folder")]
        yield [LazyLine(partial(_named, one)) for one in more]


def _artifact(
    event: Artifact, home: Path, width: int, picture: Callable[[Path, int], list[Content] | None]
) -> list[Line | LazyLine]:
    name, caption = str(event.get("name", "")), str(event.get("caption") or "")
    path = (home / str(event.get("path", ""))).resolve()
    inside, kind = path.is_relative_to(home), str(event.get("kind"))
    # Only known kinds of files are opened by the desktop.
    opens = inside and path.suffix == _OPENED.get(kind)
    first, *rest = wrapped(join((name, "bold $link"), "  ", (caption, "$muted")), width, indent=1)
    head: list[Line | LazyLine] = [Line(first.content, File(path) if opens else None), *rest]
    if not inside:
        return head + wrapped("not shown: it is outside the run's folder", width, "$bad", indent=1)
    if path.is_fifo():  # opening it would block
        return head + wrapped("not shown: it is not a file", width, "$bad", indent=1)
    if kind == "image":
        drawn = picture(path, width - 2)
        rows = drawn or [Content.styled("loading ...", "$muted")]
        return head + [LazyLine(partial(join, " ", row)) for row in rows]
    return head + _file(path, kind, modified(path), width)


def _named(artifact: Artifact) -> Content:
    return text(f" {artifact.get('name')}  {artifact.get('path')}", "$muted")


@lru_cache(maxsize=256)
def _file(path: Path, kind: str, changed: int, width: int) -> list[Line]:
    """A table, a sound or a text. Cached, because the page of a live run is drawn several times a second."""
    if kind == "table":
        return _table_file(path, width)
    if kind == "audio":
        return wrapped(_sound(path), width, "$muted", indent=1)
    return wrapped(_read(path, _TEXT_LIMIT), width, indent=1)


def _sound(path: Path) -> str:
    import wave

    try:
        with wave.open(str(path)) as sound:
            seconds, rate = sound.getnframes() / sound.getframerate(), sound.getframerate()
    except (OSError, EOFError, wave.Error, ZeroDivisionError) as error:
        return f"cannot be read: {str(error) or 'it is cut short'}"
    return f"{seconds:.1f} s of sound at {rate:,} Hz (enter plays it)"


def _table_file(path: Path, width: int) -> list[Line]:
    try:
        body = json.loads(path.read_bytes())
        columns = [str(name) for name in body["columns"][:_TABLE_COLUMNS]]
        rows = [[_cell(value) for value in row[:_TABLE_COLUMNS]] for row in _first_rows(body["rows"])]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return wrapped(f"cannot be shown: {error}", width, "$bad", indent=1)
    if any(len(row) != len(columns) for row in rows):
        return wrapped("cannot be shown: its rows differ in length", width, "$bad", indent=1)
    if columns and rows and not fits(columns, rows, width, indent=1):
        other_columns, other_rows = turned(columns, rows)
        if fits(other_columns, other_rows, width, indent=1):
            return table(other_columns, other_rows, width, indent=1)
    return table(columns, rows, width, indent=1)


def _first_rows(rows: list[list[Any]]) -> Iterator[list[Any]]:
    """The first rows of a table, up to the limit that also applies to texts."""
    length = 0
    for row in rows[:_TABLE_ROWS]:
        length += sum(min(len(str(value)), _CELL_LIMIT) for value in row[:_TABLE_COLUMNS])
        if length > _TEXT_LIMIT:
            return
        yield row


def _cell(value: Any) -> str | int | float | None:
    """A cell of a plugin's table. Everything except numbers and None becomes text."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))[:_CELL_LIMIT]


def _read(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError as error:
        return f"cannot be read: {error.strerror}"


# Log


def log(record: Record, folder: Path, width: int) -> list[Line]:
    """The plugin's log, the traceback, and the tail of the printed output."""
    lines = _last_lines(record.logs, width)
    if record.error is not None:
        lines += [*([BLANK] if lines else []), heading("Traceback")]
        lines += wrapped(str(record.error.get("traceback") or record.error.get("message")), width, indent=1)
    printed = tail(folder, 32 * 1024).strip()
    if printed:
        lines += [*([BLANK] if lines else []), heading("Printed")]
        lines += _last_lines(printed.split("\n"), width, "$muted")
    return lines or wrapped("The log is empty.", width, "$muted", indent=1)


def _last_lines(entries: Sequence[str], width: int, style: str = "") -> list[Line]:
    """The last lines of `entries`. Earlier entries are not even wrapped."""
    lines: deque[Line] = deque(maxlen=_LOG_LINES)
    for entry in reversed(entries):
        lines.extendleft(reversed(_entry(entry, width, style)[-(_LOG_LINES - len(lines)) :]))
        if len(lines) == _LOG_LINES:
            break
    return list(lines)


@lru_cache(maxsize=4096)
def _entry(entry: str, width: int, style: str) -> list[Line]:
    """The lines of one entry. Cached, because a growing page is drawn several times a second."""
    return wrapped(entry[-_TEXT_LIMIT:], width, style, indent=1)
