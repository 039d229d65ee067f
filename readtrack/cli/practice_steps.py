"""Steps of `readtrack practice` and of its watch: judge, show, edit, and offer the state "implemented"."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import typer

from readtrack import system
from readtrack.cli import terminal
from readtrack.errors import ReadtrackError
from readtrack.present import practice as present
from readtrack.runs.events import EventReader
from readtrack.runs.record import Record
from readtrack.runs.store import load

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.practice.desk import Desk
    from readtrack.practice.sheet import Sheet
    from readtrack.runs.launcher import Running

STYLES: dict[str, terminal.Style] = {"good": "green", "bad": "red", "doubtful": "yellow", "quiet": "dim"}
_DIFF: dict[str, terminal.Style] = {"+": "green", "-": "red", "@": "cyan"}
_TICK = 0.05  # seconds


def say(line: present.PracticeLine) -> None:
    """Print a line. Sentences are wrapped with a hanging indent; columns of numbers are cut to the terminal's
    width.
    """
    style = STYLES.get(line.tone)
    total, indent = terminal.width(), len(line.text) - len(line.text.lstrip())
    if not style:
        terminal.print_out(terminal.clip(line.text, total))
        return
    for text in terminal.wrap(line.text.strip(), total and total - indent):
        terminal.print_out(terminal.paint(" " * indent + text, style))


def edit(desk: Desk, sheet: Sheet | None) -> None:
    """Open the exercise in the reader's editor. Raises ReadtrackError if the editor cannot be started."""
    editor = system.editor() or system.usual_editor()
    if not editor:
        raise ReadtrackError(f"EDITOR is not set, and no editor was found. Your file is {desk.file}.")
    line = system.at_line(editor, desk.line(sheet)) if sheet is not None else []
    try:
        subprocess.run([*editor, *line, str(desk.file)], check=False)
    except OSError as error:
        raise ReadtrackError(f"could not start {editor[0]!r}: {error.strerror}. Set EDITOR.") from error


def show_solution(desk: Desk, sheet: Sheet) -> None:
    """Print the diff to the paper's code, and record that the reader has seen it."""
    for line in desk.solution(sheet):
        style = _DIFF.get(line[:1])
        terminal.print_out(terminal.paint(line, style) if style else line)


class Followed:
    """A run that is polled by another event loop, which calls `look` a few times a second."""

    def __init__(self, process: Running) -> None:
        self.process, self.record = process, Record.from_job(process.job)
        self._reader = EventReader(process.folder)

    @property
    def ended(self) -> bool:
        return self.record.outcome is not None

    def look(self) -> bool:
        """Apply new events, and return whether there were any."""
        outcome = self.process.poll()  # before reading, so that the last events are not missed
        events = list(self._reader.read_new() if outcome is None else self._reader.read_rest())
        for event in events:
            self.record.apply(event)
        if outcome is not None:
            self.record = load(self.process.folder)
            self.record.outcome = self.record.outcome or outcome
        return bool(events) or outcome is not None

    def stop(self) -> None:
        """Stop the run and wait until it has ended."""
        while self.process.poll() is None:
            self.process.cancel()
            time.sleep(_TICK)

    def discard(self) -> None:
        """Delete the run's folder."""
        shutil.rmtree(self.process.folder, ignore_errors=True)


def judge(library: Library, desk: Desk, names: list[str]) -> Record:
    """Judge the exercises in a separate run and record the results. The run leaves no folder.

    Raises ReadtrackError if the reader's file cannot be loaded.
    """
    from readtrack.practising import codes, job, settle
    from readtrack.runs import launcher

    written = codes(desk, names)
    check = Followed(launcher.start(job(desk, names), library.home))
    try:
        while not check.ended:
            time.sleep(_TICK)
            check.look()
        settle(desk, check.record, written)
        return check.record
    finally:
        check.stop()
        check.discard()


def show(desk: Desk, record: Record) -> bool:
    """Print the verdicts, then details of the current exercise, or else of the first that did not pass.

    Return whether all passed. The hint comes last, because the numbers above it may fill a small screen.
    """
    from readtrack.practising import explained, verdicts

    width = max(map(len, desk.names))
    found = verdicts(record)
    following = desk.current()
    told = explained(desk, found)
    for event in found:
        say(present.verdict(desk.names.index(event["name"]) + 1, event, width))
    lines = [line for event in found if event["name"] == told for line in present.details(event)]
    if lines:
        terminal.print_out()
    for line in sorted(lines, key=lambda line: line.tone == "doubtful"):
        say(line)
    terminal.print_out()
    if len(found) > 1 or len(desk.names) == 1:
        terminal.print_out(f"{desk.paper}: {present.summary(event['outcome'] for event in found)}")
    if following is not None:
        for text in terminal.paragraphs(f"Next: {following.name}. {following.task}"):
            terminal.print_err(text)
    return all(event["outcome"] == "passed" for event in found)


def prove(library: Library, desk: Desk) -> None:
    """Run the benchmark and the experiment with the reader's functions instead of the paper's, and print a
    summary.
    """
    from readtrack.cli.run import follow_in_view
    from readtrack.practising import proof

    terminal.print_err(present.PROVING)
    record = follow_in_view(library, proof(desk))
    terminal.print_out()
    for line in present.at_work(record):
        say(line)


def offer_implemented(library: Library, desk: Desk) -> None:
    """Offer to mark the paper as "implemented"; without a terminal, print the command for it."""
    if desk.paper not in library.catalog.papers or library.state(desk.paper) == "implemented":
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        terminal.print_err(f"Mark it: readtrack mark {desk.paper} implemented")
        return
    if typer.confirm(present.ask_implemented(desk.paper), err=True):
        library.mark(desk.paper, "implemented")
        terminal.print_out(f"{desk.paper}: implemented. `readtrack undo` takes it back.")
