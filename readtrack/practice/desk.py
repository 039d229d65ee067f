"""The reader's file with a paper's exercises. It is never overwritten, but single exercises can be reset."""

from __future__ import annotations

import ast
import difflib
import hashlib
import textwrap
from datetime import datetime
from pathlib import Path

from readtrack.errors import ReadtrackError
from readtrack.home import Home, modified, write_text
from readtrack.plugins.find import PluginRef
from readtrack.practice import skeleton
from readtrack.practice.diary import Diary, PracticeStanding
from readtrack.practice.sheet import Definition, Sheet, chosen, definition, exercises_of, parsed


class Desk:
    """One paper's exercises, the reader's file, and the reader's diary.

    Raises NotAvailableError if the paper has no exercises.
    """

    def __init__(self, home: Home, plugin: PluginRef, title: str) -> None:
        self.home, self.paper, self.title = home, plugin.name, title
        self.sheets = exercises_of(plugin.name, {plugin.name: plugin})
        self.diary = Diary(home)
        self.file = home.practice / f"{plugin.name}.py"

    @property
    def names(self) -> list[str]:
        return [sheet.name for sheet in self.sheets]

    def standings(self) -> dict[str, PracticeStanding]:
        return self.diary.standings(self.paper, self.names)

    @property
    def all_done(self) -> bool:
        """Whether every exercise has been passed or skipped, and at least one has been passed."""
        found = self.standings().values()
        return any(one.passed for one in found) and all(one.passed or one.skipped for one in found)

    def current(self) -> Sheet | None:
        """The exercise to continue with; None if all are done."""
        name = self.diary.chosen(self.paper, self.names)
        return chosen(self.sheets, name) if name is not None else None

    def choose(self, name: str) -> Sheet:
        """Continue with this exercise and reopen it if skipped.

        Raises ReadtrackError if there is no such exercise.
        """
        sheet = chosen(self.sheets, name)
        if self.standings()[sheet.name].skipped:
            self.diary.add(self.paper, sheet.name, "resumed")
        self.diary.add(self.paper, sheet.name, "chosen")
        return sheet

    def following(self, sheet: Sheet) -> Sheet:
        """The next exercise, in cyclic order, that is neither done nor skipped, or this one."""
        found = self.standings()
        at = self.sheets.index(sheet) + 1
        order = [*self.sheets[at:], *self.sheets[:at]]
        return next((o for o in order if found[o.name].passed is None and not found[o.name].skipped), sheet)

    def skip(self, sheet: Sheet) -> None:
        self.diary.add(self.paper, sheet.name, "skipped")

    def write(self) -> bool:
        """Write the file unless it exists. Return whether it was written. Raises ReadtrackError."""
        if self.file.exists():
            return False
        self.home.ensure(self.home.practice)
        try:
            write_text(self.file, skeleton.text(self.title, self.sheets))
        except OSError as error:
            raise ReadtrackError(f"Could not write {self.file}: {error.strerror}.") from error
        return True

    def code(self, name: str) -> str:
        """A digest of the reader's code for an exercise, or "" if the code cannot be read."""
        node = self._own(chosen(self.sheets, name))
        return hashlib.sha256(ast.dump(node).encode()).hexdigest()[:8] if node is not None else ""

    def line(self, sheet: Sheet) -> int:
        """The exercise's line in the reader's file. 1 if it is missing or the file cannot be parsed."""
        node = self._own(sheet)
        return node.lineno if node is not None else 1

    def reset(self, sheet: Sheet) -> Path:
        """Empty the exercise's function, after copying the file. Return the path of the copy.

        Raises ReadtrackError if the file cannot be parsed or written.
        """
        source = self._source()
        kept = self.home.practice / "old" / f"{self.paper}-{datetime.now():%Y%m%d-%H%M%S}.py"
        self.home.ensure(kept.parent)
        node = definition(self._parsed(source), sheet.qualname)
        text = _emptied(source, node, sheet, self.sheets)
        try:
            write_text(kept, source)
            write_text(self.file, text)
        except OSError as error:
            raise ReadtrackError(f"Could not write {error.filename}: {error.strerror}.") from error
        self.diary.add(self.paper, sheet.name, "reset")
        return kept

    @property
    def saved(self) -> int:
        """Modification time of the reader's file in nanoseconds; 0 if there is no file."""
        return modified(self.file)

    def is_current(self, copy: Path) -> bool:
        """Whether the file still equals this copy."""
        try:
            return copy.read_bytes() == self.file.read_bytes()
        except OSError:
            return False

    def hint(self, sheet: Sheet) -> str:
        """The next hint, the last one if there are no more, or "" if there are none. Noted in the diary."""
        opened = self.standings()[sheet.name].hints
        if opened < len(sheet.hints):
            self.diary.add(self.paper, sheet.name, "hint")
        return sheet.hints[min(opened, len(sheet.hints) - 1)] if sheet.hints else ""

    def solution(self, sheet: Sheet) -> list[str]:
        """The lines of a diff from the reader's function to the paper's. Noted in the diary."""
        self.diary.add(self.paper, sheet.name, "solution")
        node = definition(parsed(sheet.file), sheet.qualname)
        assert node is not None  # `sheet.sheets` has checked that it exists
        paper = _text(sheet.file.read_text(encoding="utf-8"), node)
        own = self._own(sheet)
        before = _text(self._source(), own) if own is not None else ""
        lines = difflib.unified_diff(
            before.splitlines(), paper.splitlines(), "yours", "the paper's", lineterm=""
        )
        return list(lines)

    def _source(self) -> str:
        try:
            return self.file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ReadtrackError(f"Could not read {self.file}: {reason}.") from error

    def _parsed(self, source: str) -> ast.Module:
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            raise ReadtrackError(f"{self.file}:{line}: {error}. Fix it first.") from error

    def _own(self, sheet: Sheet) -> Definition | None:
        try:
            return definition(self._parsed(self._source()), sheet.qualname)
        except ReadtrackError:
            return None


def _text(source: str, node: Definition) -> str:
    """A function's source from its first decorator on, without indentation."""
    start = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    return textwrap.dedent("\n".join(source.splitlines()[start - 1 : node.end_lineno])) + "\n"


def _emptied(source: str, node: Definition | None, sheet: Sheet, found: list[Sheet]) -> str:
    """The file with an empty body for this exercise, which is appended if missing."""
    lines = source.splitlines()
    empty = skeleton.empty(sheet)
    if node is None:
        return source.rstrip() + "\n\n\n" + skeleton.block(found, sheet.qualname)
    start = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    lines[start - 1 : node.end_lineno] = empty
    return "\n".join(lines) + "\n"
