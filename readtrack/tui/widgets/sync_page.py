"""Draws a live or finished sync: pure functions from its reports to lines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from textual.content import Content

from readtrack import signs
from readtrack.sync.report import State, SyncProgress, SyncSummary
from readtrack.text import format_bytes, format_duration, one_line
from readtrack.tui.sync_task import Syncing
from readtrack.tui.widgets.line_view import BLANK, EMPTY, Line, join, pair, text, wrapped
from readtrack.tui.widgets.targets import Subject

_BAR = 16  # columns
_NAME = 20
_TOLD = 5  # maximum number of reasons in the final notification

# In the order of the page: active and failed downloads first.
_GROUPS: tuple[tuple[str, tuple[State, ...], str, str], ...] = (
    ("Downloading", ("metadata", "downloading"), signs.FETCHING, "$reading"),
    ("Failed", ("failed", "not found"), signs.ERROR, "$bad"),
    ("Cancelled", ("cancelled",), signs.STOPPED, "$muted"),
    ("Waiting", ("waiting",), signs.NOTHING, "$faint"),
    ("Arrived", ("done",), signs.PASSED, "$good"),
    ("Withdrawn by the authors", ("withdrawn",), "-", "$muted"),
    ("Web only", ("web only",), signs.CURRENT, "$muted"),
    ("No source to fetch from", ("no source",), "-", "$muted"),
    ("Up to date", ("up to date",), signs.PASSED, "$muted"),
)


def strip(syncing: Syncing, width: int, *, key: str, cancel_key: str) -> Content:
    """A live sync in one line, such as `↓ sync 12/60  about 2 min 30 s left  adam 1.2 MiB of 3.0 MiB`.

    `cancel_key` is "" if that key currently stops something else.
    """
    keys = join((key, "bold"), (" view", "$muted"))
    if cancel_key:
        keys = join(keys, "   ", (cancel_key, "bold"), (" stop", "$muted"))
    return pair(join(_count(syncing), "  ", _doing(syncing)), keys, width)


def _count(syncing: Syncing) -> Content:
    total = len(syncing.papers)
    return join(
        (f"{signs.FETCHING} ", "$reading"), ("sync ", "bold"), f"{syncing.done}/{total}", _left(syncing)
    )


def _left(syncing: Syncing) -> Content:
    if syncing.eta is None or syncing.stopping or syncing.notice:
        return EMPTY
    return text(f"  about {format_duration(round(max(10, syncing.eta)))} left", "$muted")


def _doing(syncing: Syncing) -> Content:
    now = syncing.now
    if syncing.stopping:
        return text("stopping ...", "$reading")
    if syncing.notice:
        return text(one_line(syncing.notice), "$reading")
    if now is None:
        return text("checking which files are here" if not syncing.done else "", "$muted")
    if now.state == "metadata":
        return text("asking arXiv for abstracts", "$muted")
    if now.state == "waiting":
        return text("3 seconds between two requests", "$muted")
    return join((now.paper, "bold"), " ", (_bytes(now), "$muted"))


def _bytes(progress: SyncProgress) -> str:
    return format_bytes(progress.bytes) + (f" of {format_bytes(progress.total)}" if progress.total else "")


def title(syncing: Syncing) -> Content:
    """A title such as `Sync of 60 papers` or `Sync of adam`."""
    count = len(syncing.papers)
    return text(f"Sync of {syncing.papers[0]}" if count == 1 else f"Sync of {count} papers", "bold $heading")


def headline(syncing: Syncing, width: int) -> list[Line]:
    """The progress; after the end, the result and the time from which arXiv accepts requests again."""
    if syncing.error is not None:
        return wrapped(str(syncing.error), width, "$bad")
    summary = syncing.summary
    if summary is None:
        share = syncing.done / len(syncing.papers)
        filled = round(_BAR * share)
        bar = join(("━" * filled, "$good"), ("─" * (_BAR - filled), "$faint"))
        downloads = syncing.now is not None and syncing.now.state == "downloading"
        doing = EMPTY if downloads and not syncing.notice and not syncing.stopping else _doing(syncing)
        return [Line(pair(join(_count(syncing), "  ", doing), bar, width))]
    lines = wrapped(summary.headline, width, "bold")
    if summary.stopped and not summary.offline:
        lines += wrapped(f"Stopped: {summary.stopped}.", width, "$reading")
    if words := ask_again(summary):
        lines += wrapped(words, width, "$reading")
    return lines


def ask_again(summary: SyncSummary) -> str:
    """A sentence on when to try again; "" if everything was fetched."""
    if summary.not_before:
        at = datetime.fromisoformat(summary.not_before)
        return f"No requests to arXiv before {at:%H:%M on %d %B}. A later sync continues from here."
    if summary.offline:
        return "The next sync continues from here once there is a network."
    return "The next sync continues from here." if summary.cancelled else ""


def page(syncing: Syncing, width: int) -> list[Line]:
    """Every paper grouped by state, with the reason if it could not be fetched."""
    width -= 1  # one column of padding before the scroll bar
    lines = headline(syncing, width)
    states: dict[str, SyncProgress] = {
        paper: syncing.states.get(paper) or SyncProgress(paper=paper, state="waiting")
        for paper in syncing.papers
    }
    summary = syncing.summary
    known = summary.stopped if summary is not None else ""  # already shown above
    for words, group, mark, style in _GROUPS if syncing.error is None else ():
        found = [states[paper] for paper in syncing.papers if states[paper].state in group]
        if found:
            calm = summary is not None and summary.offline and style == "$bad"
            sign = (signs.NOTHING, "$muted") if calm else (mark, style)
            lines += [BLANK, Line(join((words, "bold $link"), (f"  {len(found)}", "$muted")))]
            lines += _papers(found, sign, known, width)
    if summary is not None and summary.notes:
        lines += [BLANK, Line(text("Notes", "bold $link"))]
        lines += [line for note in summary.notes for line in wrapped(one_line(note), width, indent=2)]
    return lines


def _papers(found: Sequence[SyncProgress], mark: tuple[str, str], known: str, width: int) -> list[Line]:
    lines: list[Line] = []
    for progress in found:
        words = _bytes(progress) if progress.state == "downloading" else one_line(progress.message)
        words = "" if words == known else words
        name = text(progress.paper).truncate(_NAME, ellipsis=True, pad=True)
        first, *more = wrapped(text(words, "$muted"), width - _NAME - 3)
        lines.append(Line(join(mark, " ", name, " ", first.content), Subject(progress.paper)))
        lines += [Line(line.content.pad_left(_NAME + 3)) for line in more]
    return lines


def news(summary: SyncSummary) -> str:
    """Text of a notification: the papers that failed, the reasons, and when to try again."""
    by_reason: dict[str, list[str]] = {}
    for paper, reason in summary.failed.items():
        by_reason.setdefault(reason, []).append(paper)
    told = [f"{_names(papers)}: {one_line(why)}" for why, papers in list(by_reason.items())[:_TOLD]]
    if len(by_reason) > _TOLD:
        told.append(f"... and {len(by_reason) - _TOLD} more reasons")
    again = ask_again(summary)
    return "\n".join(["Some papers could not be fetched.", *told, *([again] if again else [])])


def _names(papers: Sequence[str]) -> str:
    shown = ", ".join(papers[:4])
    return f"{shown} and {len(papers) - 4} more" if len(papers) > 4 else shown
