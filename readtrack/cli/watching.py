"""`readtrack practice PAPER --watch`: exercises are checked on saving, on a clear screen, keys in view."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from readtrack.cli import practice_steps, terminal
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.practising import to_judge
from readtrack.present import practice as present

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.practice.desk import Desk
    from readtrack.practice.sheet import Sheet

_TICK = 0.2  # seconds
_CLEAR = "\x1b[2J\x1b[3J\x1b[H"
_KEYS = "e edit  c check  h hint  o solution  n next  1-9 choose  s skip  r reset  l list  p prove  q quit"


class Watch:
    """Updates the verdicts whenever the reader's file is saved. Nothing closes when all is done."""

    def __init__(self, library: Library, desk: Desk) -> None:
        self._library, self._desk = library, desk
        self._seen = 0  # when the file was changed, in nanoseconds
        self._proven = 0  # the same, of the file with which the claims were tested last

    def run(self) -> None:
        """Until q or Ctrl+C. Raises ReadtrackError without a terminal."""
        if not (sys.stdin.isatty() and terminal.on_terminal()):
            raise ReadtrackError("--watch needs a terminal. Use --check.")
        self._desk.write()
        actions = {
            "e": self._edit,
            "c": self._check,
            "h": self._hint,
            "o": self._solution,
            "n": self._next,
            "s": self._skip,
            "r": self._reset,
            "l": self._list,
            "p": self._prove,
        }
        while True:
            if self._desk.saved != self._seen:
                self._check()
            key = _key(_TICK)
            if key in ("q", "\x04"):
                return
            try:
                if key in actions:
                    actions[key]()
                elif key.isdecimal() and key != "0":
                    self._choose(key)
            except ReadtrackError as error:
                self._say(str(error))

    def _check(self) -> None:
        self._seen = self._desk.saved
        self._head("checking …")
        try:
            record = practice_steps.judge(self._library, self._desk, to_judge(self._desk))
        except ReadtrackError as error:
            self._head("")
            self._say(str(error))
            self._foot()
            return
        self._head("")
        practice_steps.show(self._desk, record)
        if self._desk.all_done:
            if self._proven != self._seen:
                self._prove()
                return
            terminal.print_out("All done. Press p to measure again, q to leave.")
        self._foot()

    def _prove(self) -> None:
        """The speed, then the claims, with the reader's code."""
        if not self._desk.all_done:
            self._say(present.NOT_ALL_PASS)
            return
        self._proven = self._seen
        try:
            practice_steps.prove(self._library, self._desk)
        except typer.Exit:
            terminal.print_out("The run did not end well; see above.")
        practice_steps.offer_implemented(self._library, self._desk)
        self._foot()

    def _head(self, more: str) -> None:
        """A clear screen with the progress."""
        found = self._desk.standings().values()
        done, total = sum(one.passed is not None for one in found), len(found)
        filled = present.BAR * done // total
        sys.stdout.write(_CLEAR)
        bar = terminal.paint("█" * filled, "green") + "░" * (present.BAR - filled)
        terminal.print_out(
            f"{terminal.paint(self._desk.paper, 'bold')}  {bar}  {done} of {total}  {more}".rstrip()
        )
        terminal.print_out()
        terminal.flush()

    def _foot(self) -> None:
        terminal.print_out()
        for line in terminal.wrap(_KEYS, terminal.width()):
            terminal.print_out(terminal.paint(line, "dim"))
        terminal.flush()

    @staticmethod
    def _say(text: str) -> None:
        for line in terminal.paragraphs(text):
            terminal.print_out(line)
        terminal.flush()

    def _current(self) -> Sheet:
        sheet = self._desk.current()
        if sheet is None:
            raise NotAvailableError(f"{present.ALL_DONE} Choose one by its number.")
        return sheet

    def _edit(self) -> None:
        practice_steps.edit(self._desk, self._desk.current())
        self._seen = 0

    def _hint(self) -> None:
        sheet = self._current()
        self._desk.hint(sheet)
        self._say(present.hint(sheet, self._desk.standings()[sheet.name].hints))

    def _solution(self) -> None:
        sheet = self._current()
        if self._asked(present.ask_solution(sheet)):
            practice_steps.show_solution(self._desk, sheet)

    def _next(self) -> None:
        """The next exercise that is neither done nor skipped, after the current one."""
        self._choose(self._desk.following(self._current()).name)

    def _choose(self, name: str) -> None:
        self._say(present.chosen(self._desk.choose(name)))

    def _skip(self) -> None:
        sheet = self._current()
        self._desk.skip(sheet)
        self._say(present.was_skipped(sheet))

    def _reset(self) -> None:
        sheet = self._current()
        if self._asked(present.ask_reset(sheet)):
            self._say(present.was_reset(sheet, self._desk.reset(sheet)))

    def _list(self) -> None:
        found = self._desk.standings()
        width = max(map(len, self._desk.names))
        for number, sheet in enumerate(self._desk.sheets, start=1):
            practice_steps.say(present.standing(number, sheet, found[sheet.name], width))
        terminal.flush()

    @staticmethod
    def _asked(question: str) -> bool:
        terminal.print_out(f"{question} [y/N]")
        terminal.flush()
        return _key(None) in ("y", "Y")


def _key(seconds: float | None) -> str:
    """One key, or "" if none was pressed in that time."""
    with _single_keys() as descriptor:
        if not select.select([descriptor], [], [], seconds)[0]:
            return ""
        data = os.read(descriptor, 32)
    if not data:
        return "\x04"  # the terminal is gone
    return "" if data[:1] == b"\x1b" else data.decode("utf-8", "replace")[:1]


@contextmanager
def _single_keys() -> Iterator[int]:
    """Keys arrive without Enter and are not shown; only while waiting: an editor wants its own terminal."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor, termios.TCSANOW)
    try:
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
