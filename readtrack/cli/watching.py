"""`readtrack practice PAPER --watch`: checks exercises whenever the file is saved, on a screen with progress
and keys.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from readtrack import signs
from readtrack.cli import practice_steps, terminal
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.places.launch import start
from readtrack.practising import codes, job, proof, settle, to_judge, verdicts
from readtrack.present import practice as present
from readtrack.present.practice import PracticeLine
from readtrack.runs import launcher

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.practice.desk import Desk
    from readtrack.practice.sheet import Sheet
    from readtrack.runs.events import ExerciseJudged

_TICK = 0.2  # seconds
# Switch to the terminal's alternate screen, which keeps the reader's own text.
_OPEN, _CLOSE = "\x1b[?1049h\x1b[2J", "\x1b[?1049l"
_TOP, _REST, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"  # first line; clear to end of line; clear below
_KEYS = (
    "e edit", "c check", "h hint", "o solution", "n next", "1-9 choose", "s skip", "r reset",
    "p speed, claims", "x stop", "i implemented", "j k scroll", "q quit",
)  # fmt: skip


class Watch:
    """A screen with progress, exercises, the results of the last check, and keys. It stays open when all
    exercises are done.
    """

    def __init__(self, library: Library, desk: Desk) -> None:
        self._library, self._desk = library, desk
        self._seen = 0  # modification time in ns of the file that was checked last
        self._proven = 0  # modification time of the file with which the claims were last tested
        self._check: practice_steps.Followed | None = None
        self._written: dict[str, str] = {}  # the code of the exercises that are being checked
        self._proof: practice_steps.Followed | None = None
        self._found: dict[str, ExerciseJudged] = {}
        self._page: list[PracticeLine] = []  # details of the failed exercise, a diff, or the claims
        self._top = 0  # first visible line of the details
        self._message: list[PracticeLine] = []
        self._yes: Callable[[], object] | None = None  # the action if the reader answers yes
        self._usual: list[Any] = []  # the terminal's own settings
        self._drawn: object = None

    def run(self) -> None:
        """Run until q or Ctrl+C. Raises ReadtrackError without a terminal."""
        if not (sys.stdin.isatty() and terminal.on_terminal()):
            raise ReadtrackError("--watch needs a terminal. Use --check.")
        self._desk.write()
        with self._single_keys():
            try:
                self._loop()
            finally:
                for followed in (self._check, self._proof):
                    if followed is not None:
                        followed.stop()
                if self._check is not None:
                    self._check.discard()
        said = present.summary("passed" if one.passed else "" for one in self._desk.standings().values())
        terminal.print_out(f"{self._desk.paper}: {said}")

    def _loop(self) -> None:
        while True:
            self._follow()
            if self._check is None and self._desk.saved != self._seen:
                self._do(self._start_check)
            self._draw()
            for key in _keys_pressed(_TICK):
                if key in ("q", "\x04") and self._yes is None:
                    return
                self._do(partial(self._pressed, key))

    def _pressed(self, key: str) -> None:
        yes, self._yes, self._message = self._yes, None, []
        if yes is not None:
            if key in ("y", "Y"):
                yes()
            return
        actions: dict[str, Callable[[], None]] = {
            "e": self._edit,
            "c": self._start_check,
            "h": self._hint,
            "o": self._solution,
            "n": lambda: self._choose(self._desk.following(self._current()).name),
            "s": self._skip,
            "r": self._reset,
            "p": self._start_proof,
            "x": self._stop,
            "i": self._implemented,
            "j": lambda: self._scroll(1),
            "k": lambda: self._scroll(-1),
        }
        if key in actions:
            actions[key]()
        elif key.isdecimal() and key != "0":
            self._choose(key)

    def _do(self, change: Callable[[], object]) -> None:
        """Perform the action of a key, or show why it failed."""
        try:
            change()
        except ReadtrackError as error:
            self._say(str(error), "bad")

    # Checks, and the run with the reader's code

    def _follow(self) -> None:
        """Read new results of the runs."""
        check, proving = self._check, self._proof
        if check is not None and check.look():
            self._found |= {event["name"]: event for event in check.record.exercises}
            if check.ended:
                self._check = None
                self._do(lambda: self._checked(check))
        if proving is not None and not proving.ended and proving.look():
            if self._desk.all_done:
                self._show(present.at_work(proving.record))
            if proving.record.outcome == "completed":
                self._implemented()

    def _start_check(self) -> None:
        if self._check is not None:
            return
        self._seen = self._desk.saved
        names = to_judge(self._desk)
        if not names:
            raise NotAvailableError("All exercises are skipped. Choose one by its number.")
        self._message, self._page, self._found = [], [], {}
        self._written = codes(self._desk, names)
        self._check = practice_steps.Followed(launcher.start(job(self._desk, names), self._library.home))

    def _checked(self, check: practice_steps.Followed) -> None:
        try:
            told = settle(self._desk, check.record, self._written)
        finally:
            check.discard()
        self._found = {event["name"]: event for event in verdicts(check.record)}
        if told:
            self._show(present.details(self._found[told]))
        if self._desk.all_done and self._proven != self._seen:
            self._start_proof()

    def _start_proof(self) -> None:
        if not self._desk.all_done:
            raise NotAvailableError(present.NOT_ALL_PASS)
        if self._proof is not None and not self._proof.ended:
            return
        self._proven = self._seen
        self._proof = practice_steps.Followed(start(proof(self._desk), self._library))
        self._say(present.PROVING)

    def _stop(self) -> None:
        followed = self._check or self._proof
        if followed is None or followed.ended:
            raise NotAvailableError("Nothing is running for this paper.")
        followed.process.cancel()

    # The screen

    def _draw(self) -> None:
        """Redraw the whole screen if something has changed."""
        size = shutil.get_terminal_size()
        standings = self._desk.standings()
        current = self._desk.current()
        head = [self._head(sum(one.passed is not None for one in standings.values())), ""]
        for number, sheet in enumerate(self._desk.sheets, 1):
            here = signs.CURRENT if current is not None and sheet.name == current.name else " "
            line = self._row(number, sheet)
            facts = present.facts(standings[sheet.name])
            told = _painted(line, size.columns - len(facts) - 6)
            head.append(f"{here} {told}{terminal.paint(f'  {facts}', 'dim') if facts else ''}")
        head += [f"  {_painted(self._proof_row(), size.columns - 3)}", ""]
        foot = ["", *(terminal.paint(line, "dim") for line in _keys(size.columns - 1))]
        foot = [*(one for line in self._message for one in _wrapped(line, size.columns - 1)), *foot]
        page = [one for line in self._page for one in _wrapped(line, size.columns - 1)]
        room = max(1, size.lines - 1 - len(head) - len(foot))
        self._top = max(0, min(self._top, len(page) - room))
        below = len(page) - self._top - room
        page = page[self._top : self._top + room]
        if below > 0:
            page[-1] = terminal.paint(f"    … {below + 1} more lines: j", "dim")
        lines = [*head, *page, *foot]
        if self._drawn == (size, lines):
            return
        self._drawn = size, lines
        sys.stdout.write(_TOP)
        for text in lines[: size.lines - 1]:
            sys.stdout.write(_REST)
            terminal.print_out(text)
        sys.stdout.write(_BELOW)
        terminal.flush()

    def _head(self, done: int) -> str:
        total = len(self._desk.sheets)
        filled = present.BAR * done // total
        bar = terminal.paint("█" * filled, "green") + "░" * (present.BAR - filled)
        doing = "  checking …" if self._check is not None else ""
        return f"{terminal.paint(self._desk.paper, 'bold')}  {bar}  {done} of {total}{doing}"

    def _row(self, number: int, sheet: Sheet) -> PracticeLine:
        width = max(map(len, self._desk.names))
        if event := self._found.get(sheet.name):
            return present.verdict(number, event, width)
        shown = present.mark(self._desk.standings()[sheet.name])
        return PracticeLine(f"{shown.sign} {number} {sheet.name:<{width}}", shown.tone)

    def _proof_row(self) -> PracticeLine:
        record = self._proof.record if self._proof is not None else None
        shown = present.proof_mark(record, current=self._proven == self._seen)
        state = present.proof_state(record) if record is not None else ""
        return PracticeLine(f"{shown.sign}   speed and claims  {state}".rstrip(), shown.tone)

    def _show(self, lines: Iterator[PracticeLine]) -> None:
        """Show these lines as the page below the exercises."""
        self._page = list(lines)

    def _scroll(self, by: int) -> None:
        self._top += by * max(1, shutil.get_terminal_size().lines // 3)

    def _say(self, text: str, tone: str = "plain") -> None:
        self._message = [PracticeLine(line, tone) for line in terminal.paragraphs(text)]

    def _ask(self, question: str, yes: Callable[[], object]) -> None:
        self._say(f"{question} [y/N]", "doubtful")
        self._yes = yes

    # Keys

    def _current(self) -> Sheet:
        sheet = self._desk.current()
        if sheet is None:
            raise NotAvailableError(f"{present.ALL_DONE} Choose one by its number.")
        return sheet

    def _edit(self) -> None:
        sys.stdout.write(_CLOSE)
        terminal.flush()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._usual)
        try:
            practice_steps.edit(self._desk, self._desk.current())
        finally:
            tty.setcbreak(sys.stdin, termios.TCSANOW)
            sys.stdout.write(_OPEN)
            self._drawn = None

    def _hint(self) -> None:
        sheet = self._current()
        self._desk.hint(sheet)
        self._say(present.hint(sheet, self._desk.standings()[sheet.name].hints))

    def _solution(self) -> None:
        sheet = self._current()
        self._ask(present.ask_solution(sheet), lambda: self._show_solution(sheet))

    def _show_solution(self, sheet: Sheet) -> None:
        self._top = 0
        self._show(PracticeLine(line, _DIFF.get(line[:1], "plain")) for line in self._desk.solution(sheet))

    def _choose(self, name: str) -> None:
        sheet = self._desk.choose(name)
        self._say(present.chosen(sheet))
        self._show_current()

    def _show_current(self) -> None:
        sheet = self._desk.current()
        event = self._found.get(sheet.name) if sheet is not None else None
        self._top = 0
        self._show(present.details(event) if event is not None else iter(()))

    def _skip(self) -> None:
        sheet = self._current()
        self._desk.skip(sheet)
        self._found.pop(sheet.name, None)
        self._say(present.was_skipped(sheet))
        self._show_current()

    def _reset(self) -> None:
        sheet = self._current()
        self._ask(present.ask_reset(sheet), lambda: self._empty(sheet))

    def _empty(self, sheet: Sheet) -> None:
        self._say(present.was_reset(sheet, self._desk.reset(sheet)))
        self._found.pop(sheet.name, None)

    def _implemented(self) -> None:
        paper = self._desk.paper
        if paper not in self._library.catalog.papers:
            return
        if self._library.state(paper) == "implemented":
            self._say(f"{paper} is implemented. `readtrack undo` takes it back.")
        else:
            self._ask(present.ask_implemented(paper), self._mark)

    def _mark(self) -> None:
        self._library.mark(self._desk.paper, "implemented")
        self._say(f"{self._desk.paper}: implemented. `readtrack undo` takes it back.", "good")

    @contextmanager
    def _single_keys(self) -> Iterator[None]:
        """Within this context, use the alternate screen and read single keys without echo."""
        self._usual = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin, termios.TCSANOW)
        sys.stdout.write(_OPEN)
        try:
            yield
        finally:
            sys.stdout.write(_CLOSE)
            terminal.flush()
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._usual)


_DIFF = {"+": "good", "-": "bad", "@": "quiet"}


def _painted(line: PracticeLine, columns: int) -> str:
    style = practice_steps.STYLES.get(line.tone)
    text = terminal.clip(line.text, columns)
    return terminal.paint(text, style) if style else text


def _wrapped(line: PracticeLine, columns: int) -> list[str]:
    """The line as terminal lines: sentences are wrapped, columns of numbers and code are cut."""
    if line.tone not in ("doubtful", "quiet"):
        return [_painted(line, columns)]
    indent = len(line.text) - len(line.text.lstrip())
    texts = terminal.wrap(line.text.strip(), columns - indent)
    return [_painted(line._replace(text=" " * indent + text), columns) for text in texts]


def _keys(columns: int) -> list[str]:
    lines = [_KEYS[0]]
    for one in _KEYS[1:]:
        longer = f"{lines[-1]}  {one}"
        lines[-1:] = [longer] if len(longer) <= columns else [lines[-1], one]
    return lines


def _keys_pressed(seconds: float) -> str:
    """The keys pressed within `seconds`; "" if there were none."""
    if not select.select([sys.stdin], [], [], seconds)[0]:
        return ""
    data = os.read(sys.stdin.fileno(), 32)
    if not data:
        return "\x04"  # the terminal was closed
    return "" if data[:1] == b"\x1b" else data.decode("utf-8", "replace")
