"""The checklist as a tree, in the reader's order, wording and nesting, with the state of every line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType
from textual.content import Content

from readtrack import signs
from readtrack.library import Library
from readtrack.present import marks, wording
from readtrack.present.actions import key
from readtrack.reading_list.catalog import Catalog
from readtrack.reading_list.journal import State, finished
from readtrack.tui.actions import bindings
from readtrack.tui.theme import state_mark, verdict_mark
from readtrack.tui.widgets.line_view import BLANK, LazyLine, Line, LineView, join, pair, text, wrapped
from readtrack.tui.widgets.outline import (
    OFF_LIST,
    Entry,
    EntryPlaces,
    outline,
    subjects,
    visible,
)

if TYPE_CHECKING:
    from readtrack.fulltext.searching import RankedMatch
    from readtrack.tui.kept import ListPosition

_MOST = 300  # maximum number of matches shown
_NOTHING = "No paper found. Try fewer or shorter words, or state:todo, tag:gpu, runnable."


class Checklist(LineView):
    """The tree. `found` narrows it to some subjects, best first. `verdicts` marks papers with past results.

    moved  called as soon as the cursor has moved, before the message arrives, to draw the details in the
           same frame
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings("checklist")

    def __init__(self, library: Library, moved: Callable[[], None], *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(self._lines, id=id)
        self._library = library
        self._moved = moved
        self._runnable: set[str] = set()
        self._folded: set[str] = set()
        self._entries: list[Entry] = []
        self._by_key: dict[str, Entry] = {}
        self._below: dict[str, set[str]] = {"": set()}
        self._counted: tuple[int, dict[str, Counter[State]]] = (0, {})  # cached for a revision of the library
        self._places = EntryPlaces([])
        self.found: Mapping[str, RankedMatch] | None = None
        self._remark = ""
        # The lines without a filter: thousands, which take long to make and to free.
        self._all_lines: list[Line | LazyLine] = []
        self._all_made_for: tuple[object, ...] = ()  # the width and the folds
        self._here = ""  # the cursor's position before a search without matches
        self.verdicts: dict[str, str] = {}

    def _put_cursor(self, index: int) -> None:
        super()._put_cursor(index)
        self._moved()

    def read(self, catalog: Catalog, runnable: Iterable[str], left_at: ListPosition | None = None) -> None:
        """Show a new catalog. Cursor and folds are kept if their keys still exist. The first time, the cursor
        goes to `left_at`, or to the first row.
        """
        fresh = not self._entries
        self._runnable = set(runnable)
        self._entries, self._all_made_for = outline(catalog, self._runnable), ()
        self._by_key = {entry.key: entry for entry in self._entries}
        self._below, self._counted = subjects(self._entries), (0, {})
        self._places = EntryPlaces(self._entries)
        self._folded &= self._by_key.keys() | {OFF_LIST}  # this section may be missing temporarily
        if fresh:
            self._folded.add(OFF_LIST)
        first = next((entry.key for entry in self._entries if entry.kind == "row"), None)
        self.rebuild(target=first if fresh else None)
        if fresh and left_at is not None:
            self._return_to(left_at)

    def _return_to(self, place: ListPosition) -> None:
        """Return to a line, or to its subject if the list has changed."""
        entry = self._by_key.get(place.key)
        if entry is None or entry.subject != place.subject:
            entry = next((one for one in self._entries if one.subject == place.subject != ""), None)
        if entry is not None and entry.selectable:
            self._folded -= set(entry.parents)
            self.rebuild(target=entry.key)

    @property
    def entry(self) -> Entry | None:
        """The selected entry."""
        return self._by_key.get(str(self.target)) if self.target is not None else None

    def subjects_of(self, entry: Entry) -> set[str]:
        """The subjects in a section, or of a row with several papers."""
        return self._below[entry.key]

    def counts(self, entry: Entry | None = None) -> Counter[State]:
        """The number of subjects in each state, in a section or in the whole list."""
        if self._counted[0] != self._library.revision:
            self._counted = self._library.revision, {}
        key, known = entry.key if entry is not None else "", self._counted[1]
        if key not in known:
            known[key] = Counter(map(self._library.state, self._below[key]))
        return known[key]

    def narrow(self, found: Mapping[str, RankedMatch] | None, remark: str = "") -> None:
        """Show only these subjects with their context, or everything if None. The cursor goes to the best
        match.

        remark  text below the matches, or in their place if there are none
        """
        self.found, self._remark = found, remark
        self._here = str(self.target or self._here)
        target = self._best() or self._here
        entry = self._by_key.get(target) if found is None else None
        folded = [key for key in entry.parents if key in self._folded] if entry is not None else []
        self.rebuild(target=folded[0] if folded else target)

    def _best(self) -> str:
        """The key of the best match; "" if the filter has no words that rank matches, so that the cursor
        stays.
        """
        if not self.found:
            return ""
        from readtrack.fulltext.words import spans

        subject, match = next(iter(self.found.items()))
        wordless = not match.words and not match.note
        if wordless and self.entry is not None and self.entry.subject in self.found:
            return ""
        entries = [self._entries[index] for index in self._places.by_subject.get(subject, ())]
        # A paper may be in several rows. Choose the row that contains the typed words.
        told = [entry for entry in entries if spans(entry.text, match.words)]
        return next((entry.key for entry in [*told, *entries]), "")

    def go_to_subject(self, subject: str) -> bool:
        """Move the cursor to a paper, or to a plugin without a paper, and unfold its parents."""
        entry = next((entry for entry in self._entries if subject in (entry.subject, entry.plugin)), None)
        if entry is None:
            return False
        self._folded -= set(entry.parents)
        if self.found is not None and subject not in self.found:
            self.found = None
        self.rebuild()
        return self.go_to(entry.key)

    def go_to_row(self, key: str) -> None:
        """Move the cursor to a row of the list and unfold its parents."""
        entry = next(
            (one for one in self._entries if one.kind == "row" and one.row and one.row.key == key), None
        )
        if entry is not None:
            self._folded -= set(entry.parents)
            self.rebuild(target=entry.key)

    # Folding

    def action_fold(self) -> None:
        entry = self.entry
        if entry is None:
            return
        if self._children(entry) and entry.key not in self._folded and self.found is None:
            self._folded.add(entry.key)
            self.rebuild()
        elif entry.parents:
            self.go_to(entry.parents[-1])

    def action_unfold(self) -> None:
        entry = self.entry
        if entry is not None and entry.key in self._folded:
            self._folded.discard(entry.key)
            self.rebuild()
        elif entry is not None:
            self.action_choose()

    def _children(self, entry: Entry) -> bool:
        return any(entry.key in other.parents for other in self._entries)

    def action_next_section(self) -> None:
        self._to_section(1)

    def action_previous_section(self) -> None:
        self._to_section(-1)

    def _to_section(self, direction: int) -> None:
        at = self.cursor or 0
        sections = [i for i in self._stops if self._by_key[str(self.lines[i].target)].kind == "section"]
        beyond = [i for i in sections if (i > at if direction > 0 else i < at)]
        if beyond:
            self._move_to(beyond[0] if direction > 0 else beyond[-1])

    # Drawing

    def _lines(self, width: int) -> list[Line | LazyLine]:
        if self.found is not None:
            return self._made_lines(width)
        made_for = (width, frozenset(self._folded))
        if made_for == self._all_made_for:
            self._all_lines = [
                line.undrawn() if isinstance(line, LazyLine) else line for line in self._all_lines
            ]
        else:
            self._all_lines, self._all_made_for = self._made_lines(width), made_for
        return self._all_lines

    def _made_lines(self, width: int) -> list[Line | LazyLine]:
        lines: list[Line | LazyLine] = []
        found = None if self.found is None else list(islice(self.found, _MOST))
        for entry in visible(self._entries, found, self._folded, self._places):
            context = self.found is not None and entry.subject not in self.found
            if entry.kind == "title":
                lines += wrapped(text(entry.text, "bold $heading"), width, indent=1)
            elif entry.kind == "note":
                lines += wrapped(entry.text, width, "$muted italic", indent=1 + 2 * entry.depth)
            else:
                if entry.kind == "section" and lines:
                    lines.append(BLANK)
                draw = partial(self._quiet_line if context else self._line, entry, width)
                lines.append(LazyLine(draw, None if context else entry.key))
        if self.found is None and not any(entry.row for entry in self._entries):
            ways = f"{key('add')} to add a paper, or {key('import_list')} to import a list"
            words = f"The list is empty. Press {ways}."
            lines += [BLANK, *wrapped(words, width, "$muted", indent=1)]
        if self.found is not None and len(self.found) > _MOST:
            words = f"The best {_MOST:,} of {len(self.found):,} matches. Type more to narrow the list."
            lines += [BLANK, *wrapped(words, width, "$muted", indent=1)]
        if self.found and self._remark:
            lines += [BLANK, *wrapped(self._remark, width, "$muted", indent=1)]
        if not lines:
            words = self._remark or _NOTHING
            lines = [BLANK, *wrapped(f"{words} esc clears the filter.", width, "$muted", indent=1)]
        return lines

    def _quiet_line(self, entry: Entry, width: int) -> Content:
        """A dimmed line for a row that is shown only as context of a match."""
        return Content.styled(self._line(entry, width).plain, "$muted")

    def _line(self, entry: Entry, width: int) -> Content:
        if entry.kind == "section":
            left = join(self._arrow(entry), (entry.text, "bold $link"), self._hidden(entry))
            return pair(left, self._count(entry), width)
        if entry.kind == "plugin":
            left = join(" ", (marks.RUNNABLE, "$muted"), " ", entry.plugin)
            return pair(left, self._sign(entry), width)
        match = self.found.get(entry.subject) if self.found is not None else None
        state = self.state(entry)
        shown = self._library.shown_state(entry.subject) if entry.subject else state
        mark = join(state_mark(shown))
        quiet = "$muted" if state == "skipped" else ""
        if entry.kind == "paper" and entry.paper is not None:
            words = join((entry.paper.id, quiet or "$foreground"), "  ", (entry.text, "$muted"))
        else:
            pieces = wording.shown(entry.text, entry.paper)
            words = join(*((piece, "$link underline" if link else quiet) for piece, link in pieces))
        sign = self._sign(entry)
        if match is not None:
            words = _pointed_out(words, match)
            # Placed before the sign, so that a long title does not push it out.
            note = text(match.note, "$muted italic").truncate(width // 2, ellipsis=True)
            sign = join(note, "  ", sign) if note else sign
        indent = join("  " * entry.depth, self._arrow(entry))
        return pair(join(indent, mark, " ", words, self._hidden(entry)), sign, width)

    def state(self, entry: Entry) -> State:
        if entry.subject:
            return self._library.state(entry.subject)
        return self._library.row_state(entry.row) if entry.row is not None else "todo"

    def is_folded(self, entry: Entry) -> bool:
        return entry.key in self._folded and self.found is None

    def _arrow(self, entry: Entry) -> Content:
        return Content.styled(signs.FOLDED, "$muted") if self.is_folded(entry) else Content(" ")

    def _hidden(self, entry: Entry) -> Content:
        """The number of lines that a folded entry hides."""
        if not self.is_folded(entry) or entry.key == OFF_LIST:  # that section shows its count on the right
            return Content("")
        hidden = [other for other in self._entries if entry.key in other.parents]
        return Content.styled(f"  … {len(hidden)}", "$muted")

    def _count(self, section: Entry) -> Content:
        if section.key == OFF_LIST:
            return Content.styled(f"{sum(OFF_LIST in one.parents for one in self._entries)} ", "$muted")
        states = self.counts(section)
        done, total = finished(states)
        return Content.styled(f"{done}/{total} ", "$muted") if states else Content("")

    def _sign(self, entry: Entry) -> Content:
        """The sign at the right edge: the verdict of the most informative run, or the mark for runnable
        papers.
        """
        verdict = self.verdicts.get(entry.plugin)
        if verdict in marks.VERDICTS:
            return join(verdict_mark(verdict), " ")
        if verdict == "completed":  # a run without verdicts, for example a benchmark only
            return join(verdict_mark("not judged"), " ")
        if verdict:
            return Content.styled("! ", "$bad")
        if entry.plugin in self._runnable and entry.kind != "plugin":
            return Content.styled(f"{marks.RUNNABLE} ", "$muted")
        return Content("")


def _pointed_out(words: Content, match: RankedMatch) -> Content:
    """`words` with the matches highlighted."""
    from readtrack.fulltext.words import spans

    for start, end in spans(words.plain, match.words):
        words = words.stylize("bold $reading", start, end)
    return words
