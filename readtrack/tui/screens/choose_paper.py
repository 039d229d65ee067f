"""Dialog to choose a paper by typing some of its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, Static

from readtrack.reading_list.catalog import Paper
from readtrack.transfer.matching import alike
from readtrack.tui.screens.dialog import Dialog
from readtrack.tui.widgets.line_view import Line, LineView, join, text

_MOST = 100  # maximum number of papers listed
_LINES = 10
_PLACEHOLDERS = {
    False: "words of a title, an author, a year",
    True: "words of a known paper; or a new one's arXiv id, DOI, link or title",
}


class PaperChoice(NamedTuple):
    """The papers that the row means from now on; without papers it stays a plain row. `new` is the title, id
    or link of a paper that readtrack does not know.
    """

    papers: tuple[str, ...]
    new: str = ""


class ChoosePaper(Dialog[PaperChoice | None]):
    """Returns the choice, or None on escape. Before the reader types, the order is: the row's papers,
    candidates, no paper, guesses by single words. Therefore enter never accepts a guess.
    """

    CSS_PATH: ClassVar = "choose_paper.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", show=False)]

    def __init__(
        self,
        row: str,
        papers: Mapping[str, Paper],
        means: Sequence[str],
        maybe: Sequence[str],
        *,
        new: bool = False,
    ) -> None:
        """new: whether to offer a new paper made from the typed text or the row's words, too."""
        super().__init__()
        self._new = new
        self._row = row
        self._papers = papers
        self._first = [id_ for id_ in dict.fromkeys((*means, *maybe)) if id_ in papers]
        self._remarks = {id_: "maybe" for id_ in self._first if id_ not in means}
        for id_, shared in alike(row, papers).items():
            if id_ not in self._first:
                self._remarks[id_] = f"a guess: {', '.join(shared)}"
        self._words = {id_: _words(paper) for id_, paper in papers.items()}
        self._input = Input(placeholder=_PLACEHOLDERS[new])
        self._page = LineView(self._lines)
        self._page.can_focus = False  # the input has the focus; it passes arrows and enter on
        self._page.styles.height = _LINES

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(text(f"Which paper is this row?  {self._row}"), classes="question", markup=False)
            yield self._input
            yield self._page
            hint = "type to search all papers, enter links the row, ↑ ↓ move, esc goes back"
            yield Static(hint, classes="hint", markup=False)

    def on_mount(self) -> None:
        self._input.focus()
        self._narrow()

    @property
    def _typed(self) -> str:
        """The search text. A single letter does not count, because j and k move the cursor in other lists."""
        typed = self._input.value.strip()
        return typed if len(typed) > 1 else ""

    def _found(self) -> list[str]:
        wanted = self._typed.casefold().split()
        if not wanted:
            return [*dict.fromkeys((*self._first, *self._remarks, *self._papers))][:_MOST]
        found = [id_ for id_, words in self._words.items() if all(word in words for word in wanted)]
        # Papers with this name come before papers that only mention it.
        return sorted(found, key=lambda id_: self._words[id_].find(" ".join(wanted)) % 10_000)[:_MOST]

    def _lines(self, width: int) -> list[Line]:
        lines = []
        for id_ in self._found():
            paper, remark = self._papers[id_], "" if self._typed else self._remarks.get(id_, "")
            lines.append(
                Line(
                    join(
                        (id_, "bold"),
                        (f"  {remark}" if remark else "", "$reading"),
                        f"  {paper.title}",
                        (f" · {paper.year}" if paper.year else "", "$muted"),
                    ),
                    PaperChoice((id_,)),
                )
            )
        if not self._typed:
            none = Line(text("no paper: keep as a plain row", "$muted"), PaperChoice(()))
            lines.insert(len(self._first), none)
        if self._new:
            words = self._typed or self._row
            label = join(("a new paper", "$muted"), f"  {words}")
            at = len(self._first) + 1 if words == self._row else len(lines)
            lines.insert(at, Line(label, PaperChoice((), words)))
        return lines or [Line(text("No paper matches these words.", "$muted"))]

    @on(Input.Changed)
    def _narrow(self) -> None:
        first = next((line.target for line in self._lines(self.size.width)), None)
        self._page.rebuild(target=first, top=True)

    def on_key(self, event: events.Key) -> None:
        if event.key in ("down", "up", "pagedown", "pageup"):
            event.stop()
            event.prevent_default()
            moves = {
                "down": self._page.action_down,
                "up": self._page.action_up,
                "pagedown": self._page.action_page_down,
                "pageup": self._page.action_page_up,
            }
            moves[event.key]()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self._choose(self._page.target)

    @on(LineView.Chosen)
    def _clicked(self, event: LineView.Chosen) -> None:
        self._choose(event.target)

    def _choose(self, target: object) -> None:
        if isinstance(target, PaperChoice):
            self.dismiss(target)


def _words(paper: Paper) -> str:
    return " ".join((paper.id, *paper.aliases, paper.title, *paper.authors, str(paper.year or ""))).casefold()
