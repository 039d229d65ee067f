"""The main screen: the checklist on the left, a paper or a run on the right."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Input, Static

from readtrack.practice.sheet import has_exercises
from readtrack.present.actions import Where, key
from readtrack.reading_list.journal import STATES
from readtrack.runs.evidence import best, overall
from readtrack.tui import kept, news
from readtrack.tui.actions import TYPING, bindings, hints
from readtrack.tui.applies import Situation, applies
from readtrack.tui.widgets import header, paper_page
from readtrack.tui.widgets.checklist import Checklist
from readtrack.tui.widgets.filter import Filter
from readtrack.tui.widgets.key_hints import Footer
from readtrack.tui.widgets.line_view import EMPTY, LineView, drawn_line, text
from readtrack.tui.widgets.outline import Entry
from readtrack.tui.widgets.run_view import RunView
from readtrack.tui.widgets.targets import PastRun, Subject

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.reading_list.catalog import Paper
    from readtrack.runs.record import Record, RunSummary
    from readtrack.tui.controllers.runs import RunController
    from readtrack.tui.controllers.search import SearchController
    from readtrack.tui.controllers.sync import SyncController
    from readtrack.tui.shell import Shell

_FILTERS = ("", *(f"state:{state}" for state in STATES), "runnable")
_INCONCLUSIVE = (None, "cancelled", "interrupted")  # outcomes without information about the paper
_MESSAGE_SECONDS = 5.0
_FADING_SECONDS = 2.0
_WIDE = 100  # columns from which list and details are side by side


class LibraryScreen(Screen[None]):
    """Displays list and details. Actions on papers are in the app (`readtrack.tui.app`)."""

    AUTO_FOCUS = "#checklist"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (_WIDE, "-wide")]  # noqa: RUF012 (Textual's own declaration)
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings("library"),
        # While the reader types into the filter, these keys move in the list below.
        Binding("down", "list_down", show=False),
        Binding("up", "list_up", show=False),
    ]

    def __init__(
        self, library: Library, runs: RunController, syncs: SyncController, search: SearchController
    ) -> None:
        super().__init__(classes="-on-left")
        self._library = library
        self._runs = runs
        self._syncs = syncs
        self.search = search
        # Created here, because keys and messages may arrive before the widgets are composed.
        self._head = Static(id="head", markup=False)
        hint = "words, author:hinton, state:reading, tag:gpu"
        self.filter = Filter(self._filter_done, placeholder=hint, id="filter")
        self.checklist = Checklist(library, self._entry_changed, id="checklist")
        self.paper = LineView(self._detail, id="paper")
        self.run_view = RunView(runs.baseline, id="run")
        self._welcome = Static(id="welcome", markup=False)
        self._status = Static(id="status", markup=False)
        self._sync = Static(id="sync", markup=False)
        self._hints = Footer(id="hints", markup=False)
        self._under_cursor: Entry | None = None
        self._elsewhere: Entry | None = None  # a paper without a row, opened by a link
        self._drawn: Entry | None = None
        self._trail: list[str] = []  # subjects from which the reader followed links
        self._results: dict[str, list[RunSummary]] = {}
        self._narrowed_to = ""  # the filter text of the shown list
        self._message: Timer | None = None

    @property
    def shell(self) -> Shell:
        return cast("Shell", self.app)

    @property
    def entry(self) -> Entry | None:
        """The entry that the details show and that keys act on. Read from the list itself, so that a key
        right after a move does not act on the previous line.
        """
        if self.checklist.entry is not self._under_cursor:
            self._under_cursor, self._elsewhere = self.checklist.entry, None
        return self._elsewhere or self._under_cursor

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._welcome
        with Horizontal(id="panes"):
            with Vertical(id="left"):
                yield self.filter
                yield self.checklist
            with Vertical(id="right"):
                yield self.paper
                yield self.run_view
        yield self._status
        yield self._sync
        yield self._hints

    def on_mount(self) -> None:
        library = self._library
        # Textual sets the class only after the screen has been drawn once, with both panes.
        self.set_class(self.app.size.width < _WIDE, "-narrow")
        self.read_library(kept.place(library.home, library.list_path))

    def on_unmount(self) -> None:
        if self.checklist.entry is not None:
            library, here = self._library, self.checklist.entry
            kept.keep_place(library.home, library.list_path, kept.ListPosition(here.key, here.subject))

    def read_library(self, left_at: kept.ListPosition | None = None) -> None:
        """Show the current library, after it was opened or reloaded."""
        library = self._library
        self.checklist.read(library.catalog, library.runnable(), left_at)
        self._narrowed_to = ""
        self._narrow()
        self.paper.rebuild()
        self._refresh_lines()

    # Display

    @on(news.ReadingChanged)
    def refresh_all(self) -> None:
        """Redraw everything that depends on states, tags, notes and results."""
        self.checklist.rebuild()
        self.paper.rebuild()
        self._refresh_lines()

    def _refresh_lines(self) -> None:
        """Redraw the lines around the panes."""
        self._refresh_head()
        self._refresh_welcome()
        self.refresh_hints()
        self.refresh_strip()
        self.refresh_sync()

    @on(news.RowReturned)
    def _row_returned(self, message: news.RowReturned) -> None:
        if self.checklist.found is not None:
            self._clear_filter()
        self.checklist.go_to_row(message.key)

    @on(news.ResultsChanged)
    def _results_changed(self) -> None:
        self._results = {}
        for result in self._runs.results:
            self._results.setdefault(result.paper, []).append(result)
        self.checklist.verdicts = {
            paper: overall(best(ended) or ended[0])
            for paper, found in self._results.items()
            if (ended := [one for one in found if one.outcome not in _INCONCLUSIVE and not one.condition])
        }
        self.refresh_all()

    def _detail(self, width: int) -> list[paper_page.AnyLine]:
        library, entry = self._library, self.entry
        self._drawn = entry
        if entry is None:
            return []
        results = self._results.get(entry.plugin, [])
        if entry.paper is not None:
            return paper_page.paper_page(library, entry, results, width)
        if entry.plugin:
            return paper_page.plugin_page(library, entry.plugin, results, width)
        if entry.section is not None:
            inside = sorted(self.checklist.subjects_of(entry))
            return paper_page.section_page(library, entry.section, inside, width)
        return paper_page.row_page(library, entry, width)

    def _put(self, widget: Static, content: Content) -> None:
        """Update one of the lines around the panes if its content differs."""
        content = content.truncate(max(1, self.size.width - 2), ellipsis=True)
        if not isinstance(widget.content, Content) or not content.is_same(widget.content):
            widget.update(content, layout=False)

    def _refresh_welcome(self) -> None:
        """Show an introduction until the user marks a paper or has their own list."""
        library = self._library
        self._welcome.display = library.shows_shipped_list and library.untouched
        if not self._welcome.display:
            return
        runnable = len(library.listed.keys() & library.runnable().keys())
        self._put(self._welcome, header.welcome(runnable, self.size.width - 2))

    def _refresh_head(self) -> None:
        library = self._library
        runnable = len(library.listed.keys() & library.runnable().keys())
        found = None if self.checklist.found is None else len(self.checklist.found)
        self._put(self._head, header.counts(self.checklist.counts(), runnable, found, self.size.width - 2))

    @on(news.QueueChanged)
    def refresh_hints(self) -> None:
        """Redraw the footer with the most important actions that fit. Help is never dropped."""
        places: set[Where] = {"library", "run" if self.looking else "list"}
        wanted = hints(places, partial(applies, self._situation()))
        self._put(self._hints, self._hints.fitting(wanted, self.size.width - 2))

    def _situation(self) -> Situation:
        entry, record = self.entry, self.run_view.record
        plugin = self._library.runnable().get(entry.plugin) if entry is not None else None
        return Situation(
            entry=entry,
            runnable=plugin is not None,
            exercises=plugin is not None and has_exercises(plugin),
            has_run=self.has_run(),
            edited=record is not None and record.job is not None and bool(record.job.edited),
            on_right=self.on_right,
            on_run=self.on_run,
            filtered=bool(self.filter.value),
            running=self._runs.alive is not None,
            syncing=self._syncs.alive is not None,
            queued=bool(self._runs.waiting),
            folded=entry is not None and self.checklist.is_folded(entry),
        )

    @property
    def looking(self) -> bool:
        """Whether keys go to a run."""
        return self.on_run and self.on_right

    def has_run(self) -> bool:
        plugin, following = self.entry.plugin if self.entry is not None else "", self._runs.alive
        alive = following is not None and following.record.paper == plugin
        return bool(plugin) and (alive or bool(self._newest_run(plugin)))

    @property
    def on_right(self) -> bool:
        return self.has_class("-on-right")

    @property
    def on_run(self) -> bool:
        return self.has_class("-on-run")

    def say(self, message: str | Content) -> None:
        """Show a line above the footer for a few seconds."""
        self.clear_message()
        shown = text(message) if isinstance(message, str) else message
        self._put(self._status, shown)
        self._message = self.set_timer(_MESSAGE_SECONDS, partial(self._fade, shown))

    def _fade(self, message: Content) -> None:
        self._put(self._status, Content.styled(message.plain, "$faint"))
        self._message = self.set_timer(_FADING_SECONDS, self.clear_message)

    def clear_message(self) -> None:
        """Remove the message."""
        if self._message is not None:
            self._message.stop()
            self._message = None
            self.refresh_strip()

    def refresh_strip(self) -> None:
        """Redraw the line above the footer, which shows the run's progress while another page is open."""
        if self._message is not None:
            return
        following = self._runs.alive
        if following is None or self._sees(following.record):
            self._put(self._status, EMPTY)
        else:
            from readtrack.tui.widgets import run_pages

            record, width = following.record, self.size.width - 2
            self._put(self._status, drawn_line(lambda: run_pages.strip(record, width)))

    def refresh_sync(self) -> None:
        """Redraw the line of the running sync."""
        syncing = self._syncs.alive
        self._sync.display = syncing is not None
        if syncing is not None:
            from readtrack.tui.widgets import sync_page

            stop = "" if self._runs.alive is not None else key("cancel")
            line = sync_page.strip(syncing, self.size.width - 2, key=key("sync_page"), cancel_key=stop)
            self._put(self._sync, line)

    @on(news.SyncChanged)
    def _sync_changed(self) -> None:
        self.refresh_sync()
        self.refresh_hints()

    @on(events.Click, "#sync")
    def _sync_clicked(self) -> None:
        self._syncs.show()

    @on(news.PapersChanged)
    def _papers_changed(self, message: news.PapersChanged) -> None:
        if self.entry is not None and self.entry.plugin in message.papers:
            self.paper.rebuild()

    def papers_here(self) -> list[str]:
        """The papers of the selected line (a row or a section), in the list's order."""
        entry = self.entry
        if entry is None:
            return []
        if entry.paper is not None:
            return [entry.paper.id]
        if entry.row is not None:
            return list(entry.row.papers)
        inside = self.checklist.subjects_of(entry)
        return [paper for paper in self._library.catalog.papers if paper in inside]

    def _sees(self, record: Record) -> bool:
        narrow = self.has_class("-narrow") or self.has_class("-zoomed")
        return self.on_run and self.run_view.record is record and (self.on_right or not narrow)

    def on_resize(self) -> None:
        self._refresh_lines()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable letter keys as actions while the reader types into the filter."""
        return not (isinstance(self.focused, Input) and action in TYPING)

    # Panes

    def go_left(self) -> None:
        self.set_class(False, "-on-right")
        self.set_class(True, "-on-left")
        self.set_focus(self.checklist, scroll_visible=False)

    def go_right(self, *, run: bool) -> None:
        self.set_class(run, "-on-run")
        self.set_class(True, "-on-right")
        self.set_class(False, "-on-left")
        # Move the focus now instead of after drawing, because the next key may already be queued.
        self.set_focus(self.run_view.page if run else self.paper, scroll_visible=False)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        right = event.widget in (self.paper, self.run_view.page)
        self.set_class(right, "-on-right")
        self.set_class(not right, "-on-left")
        self.refresh_hints()
        self.refresh_strip()

    def show_run(self, record: Record, folder: Path) -> None:
        """Show a run on the right and move the focus there."""
        self.run_view.show(record, folder, record.paper)
        self.go_right(run=True)
        self.clear_message()

    @on(news.RunChanged)
    def run_changed(self, message: news.RunChanged) -> None:
        shown = self.run_view.record
        if shown is not None and shown.run_id == message.record.run_id and self.on_run:
            self.run_view.record = message.record
            self.run_view.refresh_run()
        self.refresh_strip()

    def action_next_pane(self) -> None:
        if self.on_right:
            self.go_left()
        else:
            self.go_right(run=self.on_run)

    action_previous_pane = action_next_pane

    def action_switch_view(self) -> None:
        entry, following = self.entry, self._runs.alive
        if self.on_run:
            self.go_right(run=False)
        elif entry is None or not entry.plugin:
            self.say("Choose one paper to see its newest run.")
        elif following is not None and following.record.paper == entry.plugin:
            self.show_run(following.record, following.folder)
        elif newest := self._newest_run(entry.plugin):
            self._open_run(newest)
        else:
            more = f" Press {key('run')} to run it." if entry.plugin in self._library.runnable() else ""
            self.say(f"{entry.plugin} has not been run yet.{more}")

    def _newest_run(self, plugin: str) -> str:
        """The id of the newest run. A run that has just ended is not among the results yet."""
        ids = [one.run_id for one in self._results.get(plugin, [])[:1]]
        shown = self.run_view.record
        if shown is not None and shown.paper == plugin:
            ids.append(shown.run_id)
        return max(ids, default="")

    def action_live_run(self) -> None:
        following = self._runs.alive
        if following is None:
            self.say("Nothing is running.")
            return
        if self.entry is None or self.entry.plugin != following.record.paper:
            self._follow(following.record.paper)
        self.show_run(following.record, following.folder)

    def action_zoom(self) -> None:
        # Only the two panes change. By itself, Textual would also apply the style rules to every widget
        # inside them.
        self.set_class(not self.has_class("-zoomed"), "-zoomed", update=False)
        for pane in self.query("#left, #right"):
            self.app.stylesheet.apply(pane)

    def action_back(self) -> None:
        """Go one step back towards the plain list."""
        if self.focused is self.filter:
            self.go_left()
            self._clear_filter()
        elif self.has_class("-zoomed"):
            self.remove_class("-zoomed")
        elif self.on_right:
            self.go_left()
        elif self.filter.value:
            self._clear_filter()
        elif self.on_run:
            self.remove_class("-on-run")
        self.refresh_hints()

    # The list

    @on(LineView.Moved, "#checklist")
    def _cursor_moved(self) -> None:
        self._entry_changed()

    def _entry_changed(self) -> None:
        if self.entry is self._drawn:
            return
        self._drawn = self.entry
        if self.on_run and not self.on_right:
            self.remove_class("-on-run")
            self.refresh_strip()
        self.paper.rebuild(top=True)
        self.refresh_hints()

    def action_list_down(self) -> None:
        self.checklist.action_down()

    def action_list_up(self) -> None:
        self.checklist.action_up()

    def action_filter(self) -> None:
        self.remove_class("-zoomed")
        self.go_left()
        self.filter.display = True  # now, so that the next typed letters go there
        self.set_focus(self.filter, scroll_visible=False)

    def action_state_filter(self) -> None:
        now = self.filter.value if self.filter.value in _FILTERS else ""
        self.filter.value = _FILTERS[(_FILTERS.index(now) + 1) % len(_FILTERS)]
        self._narrow()

    def _clear_filter(self) -> None:
        self.filter.value = ""
        self._narrow()

    @on(Input.Changed, "#filter")
    def _filter_changed(self) -> None:
        self._narrow()

    def _narrow(self) -> None:
        """Apply the filter immediately, because the next key may act on its result."""
        words = self.filter.value.strip()
        self.filter.display = bool(words) or self.focused is self.filter
        if words == self._narrowed_to:
            return
        self._narrowed_to = words
        found, remark = self.search.find(words) if words else (None, "")
        self.checklist.narrow(found, remark)
        self._entry_changed()
        self._refresh_head()
        self.refresh_hints()

    def _filter_done(self) -> None:
        """Handle enter in the filter: return the focus to the list."""
        self.go_left()
        self._narrow()

    # Links

    @on(LineView.Chosen)
    def _chosen(self, event: LineView.Chosen) -> None:
        target = event.target
        if event.page is self.checklist:
            self.go_right(run=False)
        elif isinstance(target, Subject):
            self._follow(target.subject)
        elif isinstance(target, PastRun):
            self._open_run(target.run_id)

    def show_paper(self, subject: str) -> None:
        """Show a paper's details, from any screen."""
        self._follow(subject)
        self.go_right(run=False)

    def _follow(self, subject: str) -> None:
        if self.entry is not None and self.entry.subject:
            self._trail.append(self.entry.subject)
        self._go_to(subject)

    def _go_to(self, subject: str) -> None:
        if self.checklist.found is not None and subject not in self.checklist.found:
            self._clear_filter()
        if self.checklist.go_to_subject(subject):
            self._entry_changed()
            return
        paper = self._library.catalog.papers.get(subject)
        if paper is not None:  # the paper is known, but no row names it
            self._elsewhere = Entry(
                "paper", f"?/{subject}", 0, paper.title, subject=subject, paper=paper, plugin=subject
            )
            self._entry_changed()

    def action_copy_bibtex(self) -> None:
        from readtrack.tui.paper_actions import copy_bibtex

        if (paper := self._one_paper("copy its BibTeX entry")) is not None:
            copy_bibtex(self.shell, paper)

    def action_copy_arxiv(self) -> None:
        from readtrack.tui.paper_actions import copy_arxiv

        if (paper := self._one_paper("copy its arXiv id")) is not None:
            copy_arxiv(self.shell, paper)

    def action_lineage(self) -> None:
        from readtrack.tui.paper_actions import show_lineage

        if (paper := self._one_paper("see its lineage")) is not None:
            show_lineage(self.shell, paper)

    def action_statistics(self) -> None:
        from readtrack.tui.paper_actions import show_statistics

        show_statistics(self.shell)

    def _one_paper(self, doing: str) -> Paper | None:
        if self.entry is None or self.entry.paper is None:
            self.say(f"Choose one paper to {doing}.")
            return None
        return self.entry.paper

    def action_return(self) -> None:
        if self._trail:
            self._go_to(self._trail.pop())

    def open_run(self, run_id: str) -> None:
        """Show a run and select its paper."""
        run = next((one for one in self._runs.results if one.run_id == run_id), None)
        if run is not None and (self.entry is None or self.entry.plugin != run.paper):
            self._follow(run.paper)
        self._open_run(run_id)

    def _open_run(self, run_id: str) -> None:
        following = self._runs.alive
        if following is not None and following.process.run_id == run_id:
            self.show_run(following.record, following.folder)
            return
        folder, entry = self._library.home.runs / run_id, self.entry

        def show(record: Record) -> None:
            if self.entry is entry:  # the reader may have moved on
                self.show_run(record, folder)

        def read() -> None:
            from readtrack.runs.store import load

            self.app.call_from_thread(show, load(folder))

        self.shell.in_background("open the run", read)
