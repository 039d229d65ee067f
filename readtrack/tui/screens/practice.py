"""A paper's exercises: their state on the left; task, hints and the last check on the right."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Static

from readtrack.errors import ReadtrackError
from readtrack.practising import is_proof, proof, proven
from readtrack.present import practice as present
from readtrack.present.actions import key
from readtrack.runs.store import load
from readtrack.tui import news
from readtrack.tui.actions import bindings
from readtrack.tui.screens.dialog import Answering
from readtrack.tui.widgets import practice_page
from readtrack.tui.widgets.key_hints import key_hints
from readtrack.tui.widgets.line_view import Line, Lines, LineView, text
from readtrack.tui.widgets.practice_page import PracticeTarget, Proof

if TYPE_CHECKING:
    from collections.abc import Callable

    from readtrack.practice.sheet import Sheet
    from readtrack.runs.record import Record
    from readtrack.tui.controllers.notes import NotesController
    from readtrack.tui.controllers.practice import PracticeController, PracticeDesk
    from readtrack.tui.controllers.runs import RunController
    from readtrack.tui.shell import Shell

_LOOK = 0.3  # seconds between two checks of the file's modification time


class PracticeScreen(Answering[None]):
    """Shows the exercises. Checks continue after the screen is closed, and the controller keeps their
    results.
    """

    CSS_PATH: ClassVar = "practice.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012 (Textual's own declaration)
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings("practice"),
        Binding("escape,q", "back", show=False),
    ]

    def __init__(
        self, bench: PracticeDesk, practice: PracticeController, runs: RunController, notes: NotesController
    ) -> None:
        super().__init__()
        self.bench, self.desk = bench, bench.desk
        self._practice, self._runs, self._notes = practice, runs, notes
        self._watching = True
        self._proof: Proof | None = None
        self._tried = 0  # modification time of the file for which the run was last started automatically
        self._head = Static(id="practice-head", markup=False)
        self.list = LineView(self._exercises, id="practice-list")
        self.page = LineView(self._page, id="practice-page")
        self._status = Static(id="practice-status", markup=False)
        self._hints = Static(id="practice-hints", markup=False)

    @property
    def shell(self) -> Shell:
        return cast("Shell", self.app)

    def compose(self) -> ComposeResult:
        yield self._head
        with Horizontal():
            yield self.list
            yield self.page
        yield self._status
        yield self._hints

    def on_mount(self) -> None:
        self.bench.shown = True
        current = self.desk.current()
        self.list.focus()
        self.list.rebuild(target=PracticeTarget(current.name if current is not None else ""))
        self._refresh_lines()
        self._find_proof()
        self._look()
        self.set_interval(_LOOK, self._look)

    def on_unmount(self) -> None:
        self.bench.shown = False

    def on_resize(self) -> None:
        self._refresh_lines()

    # Display

    @property
    def sheet(self) -> Sheet | None:
        """The selected exercise; None on the last line (speed and claims)."""
        target = self.list.target
        name = target.name if isinstance(target, PracticeTarget) else ""
        return next((sheet for sheet in self.desk.sheets if sheet.name == name), None)

    def _refresh_lines(self) -> None:
        self._head.update(practice_page.head(self.bench, self.size.width, self._watching))
        self._hints.update(key_hints("practice", self.size.width - 2))

    def _rebuild(self) -> None:
        self._refresh_lines()
        self.list.rebuild()
        self.page.rebuild()

    def _exercises(self, width: int) -> list[Line]:
        return practice_page.exercises(self.bench, self._proof, width)

    def _page(self, width: int) -> Lines:
        sheet = self.sheet
        if sheet is None:
            return practice_page.at_work(self.bench, self._proof, width)
        return practice_page.exercise(self.bench, sheet, self.desk.standings()[sheet.name], width)

    def _say(self, words: str) -> None:
        self._status.update(text(words))

    def _do(self, change: Callable[[], object]) -> None:
        """Perform the reader's action, or report why it failed."""
        try:
            change()
        except ReadtrackError as error:
            self._say(str(error))
        self._rebuild()

    def _go_to(self, name: str) -> None:
        self.list.rebuild(target=PracticeTarget(name))
        self.page.rebuild(top=True)

    # Saving, checking

    def _look(self) -> None:
        """Check the file if it was saved after the last check."""
        if self._watching and self.desk.saved not in (0, self.bench.checked):
            self._practice.check(self.bench)

    @on(news.PracticeChanged)
    def _changed(self, event: news.PracticeChanged) -> None:
        if event.paper != self.desk.paper:
            return
        self._rebuild()
        self._status.update(text(self.bench.problem))
        if self.bench.check is not None or self.bench.problem:
            return
        current = self.desk.current()
        here = self.sheet
        if here is not None and self.desk.standings()[here.name].passed:
            self._go_to(current.name if current is not None else "")
        if self._proof is not None:
            self._proof = self._proof._replace(current=self._is_current(self._proof.record))
        if self.desk.all_done and self._watching and self.bench.checked == self.desk.saved:
            self._prove_once()

    # Runs with the reader's code

    def _folder(self, record: Record) -> Path:
        return self.shell.library.home.runs / record.run_id

    def _is_current(self, record: Record) -> bool:
        return proven(self.desk, self._folder(record))

    def _find_proof(self) -> None:
        """Find the newest run with the reader's code."""
        alive = self._runs.alive
        if alive is not None and is_proof(alive.record.job, self.desk.paper):
            self._take(alive.record)
            return
        condition = present.CONDITION
        for run in self._runs.results:
            if run.paper == self.desk.paper and run.condition.startswith(condition) and run.outcome:
                self._take(load(self.shell.library.home.runs / run.run_id))
                return

    def _take(self, record: Record) -> None:
        self._proof = Proof(record, self._is_current(record))

    @on(news.RunChanged)
    def _run_changed(self, event: news.RunChanged) -> None:
        if not is_proof(event.record.job, self.desk.paper):
            return
        self._take(event.record)
        self.list.rebuild()
        if self.sheet is None:
            self.page.rebuild()
        if event.record.outcome == "completed" and self.desk.all_done:
            self._offer_implemented()

    def _prove_once(self) -> None:
        """Start the run with the reader's code automatically, once for each saved version of the file, and
        not while another run is in progress.
        """
        if (self._proof is not None and self._proof.current) or self._tried == self.desk.saved:
            return
        self._tried = self.desk.saved
        if self._runs.alive is None:
            self.action_prove()
        else:
            self._say(present.PROVES.format(key=key("practice_prove")))

    def action_prove(self) -> None:
        if not self.desk.all_done:
            self._say(present.NOT_ALL_PASS)
            return
        before = self._runs.alive
        started = self._runs.start(proof(self.desk))
        if started is not None:
            self._take(started.record)
            self._say(present.PROVING)
        elif before is not None:
            self._say(present.QUEUED.format(paper=before.record.paper))
        self._rebuild()
        self._go_to("")

    # Keys

    @on(LineView.Moved, "#practice-list")
    def _moved(self) -> None:
        self.page.rebuild(top=True)

    @on(LineView.Chosen, "#practice-list")
    def _chosen(self) -> None:
        self.action_edit()

    def on_key(self, event: events.Key) -> None:
        number = event.character or ""
        if number.isdecimal() and 1 <= int(number) <= len(self.desk.sheets):
            event.stop()
            self._choose(number)

    def _choose(self, name: str) -> None:
        sheet = self.desk.choose(name)
        self._say(present.chosen(sheet))
        self._rebuild()
        self._go_to(sheet.name)

    def _here(self) -> Sheet | None:
        if (sheet := self.sheet) is None:
            self._say("Choose an exercise first.")
        return sheet

    def action_edit(self) -> None:
        if (sheet := self._here()) is not None:
            self._do(lambda: self._edit(sheet))

    def _edit(self, sheet: Sheet) -> None:
        self.desk.write()
        self.desk.choose(sheet.name)
        self.desk.diary.add(self.desk.paper, sheet.name, "opened")
        self._notes.edit_file(self.desk.file, self.desk.line(sheet))

    def action_check(self) -> None:
        if not self.desk.file.exists():
            self._say(f"There is no file yet. {key('practice_edit')} writes it and opens your editor.")
        elif self.bench.check is not None:
            self._say(f"A check is running. {key('practice_stop')} stops it.")
        else:
            self._practice.check(self.bench)

    def action_watch(self) -> None:
        self._watching = not self._watching
        self._refresh_lines()
        self._look()

    def action_hint(self) -> None:
        if (sheet := self._here()) is not None:
            self._do(lambda: self.desk.hint(sheet))
            self._say(present.hint(sheet, self.desk.standings()[sheet.name].hints))

    def action_next(self) -> None:
        if self.desk.current() is None:
            self._say(present.ALL_DONE)
        else:
            here = self.sheet or self.desk.sheets[-1]
            self._choose(self.desk.following(here).name)

    def action_skip(self) -> None:
        if (sheet := self._here()) is not None:
            self._do(lambda: self.desk.skip(sheet))
            self._say(present.was_skipped(sheet))

    def action_reset(self) -> None:
        sheet = self._here()
        if sheet is None or not self.desk.file.exists():
            return

        def answered(answer: str | None) -> None:
            if answer == "r":
                self.bench.verdicts.pop(sheet.name, None)
                self._do(lambda: self._say(present.was_reset(sheet, self.desk.reset(sheet))))

        self._ask(present.ask_reset(sheet), ("r", "clear it"), answered)

    def action_solution(self) -> None:
        if (sheet := self._here()) is None:
            return

        def answered(answer: str | None) -> None:
            if answer == "o":
                self._show_solution(sheet)

        self._ask(present.ask_solution(sheet), ("o", "show it"), answered)

    def _show_solution(self, sheet: Sheet) -> None:
        from readtrack.tui.screens.paged import Paged
        from readtrack.tui.widgets import edits_page

        build = partial(edits_page.diff, self.desk.solution(sheet))
        self._rebuild()
        self.app.push_screen(Paged(f"{sheet.name}: yours and the paper's", build, "esc closes", wide=True))

    def action_stop(self) -> None:
        alive = self._runs.alive
        if self.bench.check is not None:
            self._practice.stop(self.bench)
            self._say("Asked the check to stop.")
        elif alive is not None and is_proof(alive.record.job, self.desk.paper):
            self._runs.cancel()
            self._say("Asked the run with your code to stop.")
        else:
            self._say("Nothing is running for this paper.")

    def _offer_implemented(self) -> None:
        library = self.shell.library
        listed = self.desk.paper in library.catalog.papers
        if listed and library.state(self.desk.paper) != "implemented" and not self.bench.asked:
            self.bench.asked = True
            self._ask(
                present.ask_implemented(self.desk.paper), ("i", "implemented"), self._answered_implemented
            )

    def _answered_implemented(self, answer: str | None) -> None:
        if answer == "i":
            self.action_implemented()

    def action_implemented(self) -> None:
        library = self.shell.library
        if self.desk.paper not in library.catalog.papers:
            self._say(f"{self.desk.paper} is a plugin without a paper, so it has no state.")
        elif not self.desk.all_done:
            self._say(present.NOT_ALL_PASS)
        else:
            self._do(lambda: library.mark(self.desk.paper, "implemented"))
            self.shell.post(news.ReadingChanged())
            self._say(f"{self.desk.paper} is implemented. {key('practice_undo')} undoes it.")

    def action_undo(self) -> None:
        self._do(lambda: self._say(self.shell.library.undo() or "There is nothing to undo."))
        self.shell.post(news.ReadingChanged())

    def action_pane(self) -> None:
        (self.page if self.list.has_focus else self.list).focus()

    def action_back(self) -> None:
        if self.bench.check is not None:
            self.shell.say(f"The check of {self.desk.paper} continues. {key('practice')} shows it.")
        self.dismiss(None)

    def _ask(self, question: str, yes: tuple[str, str], answered: Callable[[str | None], None]) -> None:
        from readtrack.tui.screens.ask import Choice, ChoiceDialog

        self.app.push_screen(ChoiceDialog(question, [Choice(*yes), Choice("x", "no")]), answered)
