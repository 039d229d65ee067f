"""The terminal app: owns the library and the current run, and handles the reader's actions on papers."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual import events
from textual.app import App
from textual.binding import Binding, BindingType
from textual.filter import LineFilter
from textual.screen import Screen
from textual.widgets import Input

from readtrack import system
from readtrack.errors import ReadtrackError
from readtrack.home import modified
from readtrack.library import Library
from readtrack.present.actions import key
from readtrack.tui.actions import TYPING, read_keys
from readtrack.tui.controllers.adding import ListController
from readtrack.tui.controllers.notes import NotesController
from readtrack.tui.controllers.options import OptionsController
from readtrack.tui.controllers.reading import ReadingController
from readtrack.tui.controllers.report import ReportController
from readtrack.tui.controllers.runs import RunController
from readtrack.tui.controllers.search import SearchController
from readtrack.tui.controllers.sync import SyncController
from readtrack.tui.screens.library import LibraryScreen
from readtrack.tui.theme import (
    THEMES,
    Ascii,
    no_colours,
    other_theme,
    starting_theme,
    wants_ascii,
)
from readtrack.tui.widgets.line_view import LineView, join
from readtrack.tui.widgets.outline import Entry
from readtrack.tui.widgets.targets import File, Web

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.command import Provider
    from textual.message import Message

    from readtrack.claims import Break
    from readtrack.home import Home
    from readtrack.reading_list.journal import State
    from readtrack.runs.job import Job
    from readtrack.tui.controllers.bets import BetController
    from readtrack.tui.controllers.breaks import BreakController
    from readtrack.tui.controllers.importing import ImportController
    from readtrack.tui.controllers.practice import PracticeController
    from readtrack.tui.run_follower import RunFollower
    from readtrack.tui.screens.run_options import Options

T = TypeVar("T")
_LOOK = 1.0  # seconds between two checks for marks and runs of other processes


def _papers() -> type[Provider]:
    from readtrack.tui.palette import Papers

    return Papers


def _actions() -> type[Provider]:
    from readtrack.tui.palette import Actions

    return Actions


class ReadtrackApp(App[int], inherit_bindings=False):
    """The app. It has one library, one main screen and at most one run in progress."""

    # Textual reads a screen's own style sheet only when the screen is pushed. This screen is the first.
    CSS_PATH: ClassVar = ["app.tcss", "screens/library.tcss"]
    TITLE = "readtrack"
    COMMANDS: ClassVar = {_papers, _actions}
    # These keys work everywhere, including dialogs. The palette has its own key.
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+q,ctrl+c", "leave", priority=True, show=False)]

    def __init__(self, library: Library) -> None:
        super().__init__()
        for theme in THEMES.values():
            self.register_theme(theme)
        # Set here, without the watcher, because a later change of theme reads all style sheets again.
        self.set_reactive(ReadtrackApp.theme, starting_theme())
        self.stylesheet.set_variables(self.get_css_variables())
        self.set_class(self.current_theme.dark, "-dark-mode")
        self.set_class(not self.current_theme.dark, "-light-mode")
        self.set_class(no_colours(), "-no-colours")
        self.library = library
        self.runs = RunController(self)
        self.search = SearchController(self)
        self.syncs = SyncController(self, self.search)
        self._adding = ListController(self, self.action_import_list)
        self._reading = ReadingController(self)
        self._report = ReportController(self)
        self.notes = NotesController(self, self.search)
        self._run_options = OptionsController(self, self._start)
        self._left = threading.Event()
        self._seen = modified(library.catalog.path)
        self._ascii = [Ascii()] if wants_ascii() else []

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return THEMES["ink"].variables

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), *self._ascii]

    def get_default_screen(self) -> Screen[None]:
        return LibraryScreen(self.library, self.runs, self.syncs, self.search)

    @property
    def main(self) -> LibraryScreen:
        screen = self.screen_stack[0]
        assert isinstance(screen, LibraryScreen)
        return screen

    @property
    def entry(self) -> Entry | None:
        return self.main.entry

    @cached_property
    def _breaks(self) -> BreakController:
        from readtrack.tui.controllers.breaks import BreakController

        return BreakController(self, self._choose_break)

    @cached_property
    def _bets(self) -> BetController:
        from readtrack.tui.controllers.bets import BetController

        return BetController(self, self.runs, self._start_job)

    @cached_property
    def _lists(self) -> ImportController:
        from readtrack.tui.controllers.importing import ImportController

        return ImportController(self)

    @cached_property
    def practice(self) -> PracticeController:
        from readtrack.tui.controllers.practice import PracticeController

        return PracticeController(self)

    def on_mount(self) -> None:
        self._read_keys()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        loop.add_signal_handler(signal.SIGTSTP, self._stop)
        loop.add_signal_handler(signal.SIGCONT, self._continued)
        self.call_after_refresh(self._painted)
        for problem in self.library.problems[:3]:
            self.fail("read the whole journal", problem, "fix that line; all other lines were read.")

    def _read_keys(self) -> None:
        keymap, problems = read_keys(self.library.home)
        self.set_keymap(keymap)
        for problem in problems:
            self.fail("use a line of keys.yaml", problem, "`readtrack keys` lists actions and keys.")

    async def on_event(self, event: events.Event) -> None:
        """Drop keys that are still queued when the app closes, because there is no screen for them."""
        if self.screen_stack or not isinstance(event, events.Key):
            await super().on_event(event)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable letter keys as actions while the reader types into the filter."""
        return not (isinstance(self.focused, Input) and action in TYPING)

    def _painted(self) -> None:
        """Called after the first paint."""
        gc.enable()
        gc.freeze()  # exclude modules and list from collections, which would delay keys by 50 ms
        gc.set_threshold(700, 10, 100)  # makes full collections ten times rarer than by default
        self.runs.look()
        self.search.refresh()
        self._adding.offer_list()
        self.set_interval(_LOOK, self._look)

    def _look(self) -> None:
        self._reading.look()
        self.runs.look_for_changes()

    @property
    def following(self) -> RunFollower | None:
        """The run in progress, or None."""
        return self.runs.alive

    # Messages

    def say(self, *parts: object) -> None:
        self.main.say(join(*parts))  # type: ignore[arg-type]

    def warn(self, message: str) -> None:
        self.notify(message, severity="warning", timeout=12, markup=False)

    def post(self, news: Message) -> None:
        for screen in self.screen_stack:
            screen.post_message(news)

    def ask(self, dialog: Screen[T], answered: Callable[[T | None], None] | None = None) -> None:
        self.push_screen(dialog, answered)

    def show_paper(self, subject: str) -> None:
        self.main.show_paper(subject)

    def fail(self, what: str, why: object, next_step: str) -> None:
        message = f"Could not {what}.\nWhy: {str(why).rstrip('.')}.\nNext step: {next_step}"
        self.notify(message, severity="error", timeout=12, markup=False)

    def in_background(self, what: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread and show its errors."""

        def guarded() -> None:
            from readtrack.fulltext import pdf

            try:
                with pdf.cancelled_by(self._left):  # so that a slow PDF cannot block the exit
                    work()
            except pdf.ExtractionCancelled:
                return
            except Exception as error:
                self.call_from_thread(self.fail, what, error, "run `readtrack doctor` to find the cause.")

        self.run_worker(guarded, thread=True, exclusive=True, group=what, exit_on_error=False)

    # States, tags, ratings and notes

    def action_mark(self, state: State) -> None:
        self._reading.mark(state)

    def action_tick(self) -> None:
        if self.entry is not None:
            self._reading.mark("todo" if self.main.checklist.state(self.entry) == "read" else "read")

    def action_redo(self) -> None:
        self._reading.redo()

    def action_undo(self) -> None:
        self._reading.undo()

    def action_tags(self) -> None:
        self._reading.ask_for_tags()

    def action_rating(self) -> None:
        self._reading.ask_for_rating()

    def action_note(self) -> None:
        subject = self._reading.subject("write a note")
        if subject is not None:
            self.notes.write(subject)

    # Adding, importing, and opening sources

    def action_add(self) -> None:
        self._adding.ask_for_paper()

    def action_put_on_list(self) -> None:
        self._adding.put_on_list(self.entry)

    def action_attach(self) -> None:
        entry = self.entry
        if entry is None or entry.paper is None:
            self.say("Choose one paper to attach a PDF to.")
        else:
            self._adding.ask_for_pdf(entry.paper.id)

    def action_own_list(self) -> None:
        self._adding.ask_for_list()

    def action_import_list(self) -> None:
        self._lists.ask()

    def action_link(self) -> None:
        self._lists.ask_for_link()

    def action_remove_row(self) -> None:
        self._lists.ask_to_remove()

    def action_report(self) -> None:
        self._report.write()

    def action_export(self) -> None:
        from readtrack.tui.controllers.exporting import ExportController

        ExportController(self).ask()

    def action_source(self) -> None:
        if found := self._address():
            self.open_address(found)

    def action_copy_abstract(self) -> None:
        from readtrack.tui.paper_actions import copy_abstract

        copy_abstract(self)

    def action_copy(self) -> None:
        selected = self.screen.get_selected_text()
        if selected:
            self.copy_to_clipboard(selected)
            self.screen.clear_selection()
            self.say("Copied the selection.")
            return
        if found := self._address():
            self.copy_to_clipboard(found)
            self.say("Copied ", (found, "$link"))

    def _address(self) -> str | None:
        from readtrack.tui.paper_actions import address

        found = address(self.entry)
        if found is None:
            self.say("This line has no link.")
        return found

    def action_pdf(self) -> None:
        from readtrack.tui.paper_actions import open_pdf

        open_pdf(self)

    def on_line_view_chosen(self, event: LineView.Chosen) -> None:
        """Open a link to another program or an editor. Screens handle the other links."""
        match event.target:
            case Web(url):
                self.open_address(url)
            case File(path):
                from readtrack.tui.widgets import iterm

                if not iterm.show(path, self):
                    self.open_address(path)
            case NotesController():
                self.action_note()

    def open_address(self, address: str | Path) -> None:
        entry = self.entry
        if system.open_with_system(address):
            unread = entry is not None and entry.subject and self.library.state(entry.subject) == "todo"
            more = f"   {key('mark_reading')} marks it as reading" if unread else ""
            self.say("Opening ", (address, "$link"), (more, "$muted"))
        else:
            self.copy_to_clipboard(str(address))
            self.say("There is no desktop here, so the address is on your clipboard: ", (address, "$link"))

    # The run

    def action_run(self) -> None:
        from readtrack.tui.screens.run_options import Options

        paper = self._runnable()
        if paper is not None:
            self._start(paper, Options().checked())

    def action_run_options(self) -> None:
        if (paper := self._runnable()) is not None:
            self._run_options.ask(paper)

    def action_bet(self) -> None:
        if (paper := self._runnable("bet on")) is not None:
            self._bets.bet(paper)

    def action_break(self) -> None:
        paper = self._runnable()
        if paper is not None:
            self._breaks.choose(paper)

    def _choose_break(self, paper: str, breaks: tuple[Break, ...]) -> None:
        from readtrack.tui.screens.choose_break import BreakChoice, ChooseBreak
        from readtrack.tui.screens.run_options import Options

        def chosen(answer: BreakChoice | None) -> None:
            if answer is not None:
                self._start(paper, Options(fields={"broken": answer.name, "budget": answer.budget}))

        if self.screen is self.main and self.entry is not None and self.entry.plugin == paper:
            plain = self.runs.plain_run(paper)
            budget = plain.budget if plain is not None else "quick"
            self.push_screen(ChooseBreak(paper, breaks, budget), chosen)

    def action_runs(self) -> None:
        from readtrack.runs.job import Job
        from readtrack.tui.screens.runs import RunsScreen

        def chosen(answer: str | Job | None) -> None:
            if isinstance(answer, Job):
                self._start_job(answer)
            elif answer is not None:
                self.main.open_run(answer)

        self.push_screen(RunsScreen(self.runs), chosen)
        self.runs.look_again()

    def action_code(self) -> None:
        """Show the code of the selected paper."""
        from readtrack.tui.paper_actions import show_code

        plugin = self._runnable("read its code")
        if plugin is not None:
            show_code(self, plugin, self.notes)

    def action_practice(self) -> None:
        """Show the exercises of the selected paper."""
        from readtrack.tui.paper_actions import show_practice

        plugin = self._runnable("practise")
        if plugin is not None:
            show_practice(self, plugin, self.practice, self.runs, self.notes)

    def action_show_edits(self) -> None:
        """Show how the code of the run on screen differs from the shipped code."""
        from readtrack.tui.paper_actions import show_edits

        record = self.main.run_view.record
        if record is not None and not show_edits(self, record.run_id):
            self.say("This run used the shipped code.")

    def _runnable(self, doing: str = "run") -> str | None:
        entry = self.entry
        if entry is not None and entry.row is not None and not entry.row.papers:
            self.say(f"This row isn't linked to a paper. {key('link')} links it.")
        elif entry is None or not entry.plugin:
            self.say(f"Choose one paper to {doing}.")
        elif entry.plugin not in self.library.runnable():
            new = f"`readtrack plugins new {entry.plugin}` starts one."
            self.fail(f"run {entry.plugin}", "it has no plugin yet", new)
        else:
            return entry.plugin
        return None

    def _start(self, paper: str, options: Options) -> None:
        from readtrack.runs.job import new_job

        self._start_job(new_job(paper, **options.fields))

    def _start_job(self, job: Job) -> None:
        started = self.runs.start(job)
        if started is not None:
            self.main.show_run(started.record, started.folder)

    def action_cancel(self) -> None:
        if self.runs.alive is None:
            self.action_cancel_sync()
        else:
            self.runs.cancel()

    def action_queue(self) -> None:
        from readtrack.tui.screens.queue import QueueScreen

        self.push_screen(QueueScreen(self.runs))

    # The sync

    def action_sync(self) -> None:
        otherwise = f"This row isn't linked to a paper. {key('link')} links it."
        self.syncs.start(self.main.papers_here(), otherwise)

    def action_sync_all(self) -> None:
        self.syncs.start(list(self.library.listed), "The list has no papers yet.")

    def action_sync_page(self) -> None:
        self.syncs.show()

    def action_cancel_sync(self) -> None:
        self.syncs.cancel()

    def on_unmount(self) -> None:
        self._left.set()
        self.syncs.leave()
        if "practice" in vars(self):
            self.practice.leave()
        self._run_options.leave()
        self._report.leave()

    # The app

    def action_theme(self) -> None:
        self.theme = other_theme(self.theme)

    def action_command_palette(self) -> None:
        from readtrack.tui.palette import Palette

        # Otherwise each press would open one more dialog, until drawing them exceeds the recursion limit.
        if not any(isinstance(screen, Palette) for screen in self.screen_stack):
            self.push_screen(Palette())

    def action_help(self) -> None:
        from readtrack.tui.screens.help import Help

        self.push_screen(Help(words_first=self.focused is not self.main.checklist))

    def reload(self) -> None:
        try:
            self.library.reload()
        except ReadtrackError as error:
            self.fail(
                "read the list again",
                error,
                f"fix it, then press {key('reload')}. Until then the old list stays.",
            )
            return
        self._seen = modified(self.library.list_path)
        self._read_keys()
        self.search.refresh()
        self.main.read_library()
        self.runs.look_again()
        self.say(f"Reloaded {self.library.catalog.path.name}.")

    action_reload = reload

    def on_app_focus(self) -> None:
        """Look for changes by other programs: states, ended runs, or an edited list."""
        self.runs.look_again()
        self._reading.look()
        if modified(self.library.list_path) != self._seen:
            self.say(f"papers.yaml has changed on disk. Press {key('reload')} to reload it.")

    def action_leave(self) -> None:
        from readtrack.tui.screens.ask import Choice, ChoiceDialog
        from readtrack.tui.screens.note import NoteScreen

        if isinstance(self.screen, NoteScreen):
            self.screen.action_keep()
        elif self.runs.alive is None:
            self.exit(0)
        elif self.runs.leaving:
            self.action_cancel()
        elif not isinstance(self.screen, ChoiceDialog):
            question = f"A run of {self.runs.alive.record.paper} is still running. {self.runs.kept_queue}"
            answers = [
                Choice("k", "keep it running", "without the app; the next start shows it"),
                Choice("s", "stop it", "and quit; it is kept in the results"),
                Choice("x", "stay here"),
            ]
            self.push_screen(ChoiceDialog(question.rstrip(), answers), self._leave)

    def _leave(self, answer: str | None) -> None:
        if answer in (None, "x"):
            return
        if self.runs.alive is None:
            self.exit(0)
            return
        if answer == "k":
            self.runs.keep_running()
        else:
            self.runs.leaving = True
            self.action_cancel()

    def _hang_up(self) -> None:
        self.runs.leave_alone()
        self.exit(128 + signal.SIGHUP)

    def _stop(self) -> None:
        """Handle SIGTSTP: return the terminal and stop the process. Textual's own handler can interrupt
        drawing, and then waits forever for a lock that the drawing code holds.
        """
        if self._driver is not None and self._driver._auto_restart:
            self._driver.suspend_application_mode()
        os.kill(os.getpid(), signal.SIGSTOP)

    def _continued(self) -> None:
        """Handle SIGCONT: take the terminal again, unless it was closed or an editor has it. Textual's own
        handler would start another key-reading thread each time, and one of them outlives the app.
        """
        if self._driver is not None and self._driver._auto_restart and os.isatty(sys.stdin.fileno()):
            self._driver.suspend_application_mode()
            self._driver.resume_application_mode()
            self.refresh()


def run(home: Home | None = None, papers_yaml: Path | None = None) -> int:
    """Open the app and return the exit code. An unreadable list is reported on stderr (exit code 2)."""
    try:
        library = Library.open(home, papers_yaml)
    except ReadtrackError as error:
        sys.stderr.write(f"Could not open the reading list.\nWhy: {error}\n")
        sys.stderr.write("Next step: fix it and start readtrack again.\n")
        return error.exit_code
    app = ReadtrackApp(library)
    try:
        code = app.run()
    finally:
        app.runs.leave_alone()
    for sentence in app.runs.left():
        sys.stdout.write(f"{sentence}\n")
    return code if code is not None else app.return_code or 0
