"""Every action of the app: the source of bindings, palette, help, footer and `readtrack keys`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

Group = Literal[
    "Move", "Reading", "Notes and sources", "Import", "Run", "All runs", "Code", "Practice", "View", "App"
]
Where = Literal["list", "checklist", "run", "library", "code", "runs", "import", "practice"]

GROUPS: tuple[Group, ...] = (
    "Reading", "Run", "All runs", "Code", "Practice", "Notes and sources", "Import", "View", "Move", "App",
)  # fmt: skip

# Widgets whose keys are active at the same time, so a key must be unique within each group.
PLACES: tuple[frozenset[Where], ...] = (
    frozenset({"library", "list", "checklist"}),
    frozenset({"library", "list", "run"}),
    frozenset({"list", "code"}),
    frozenset({"list", "runs"}),
    frozenset({"list", "import"}),
    frozenset({"list", "practice"}),
)

_remapped: dict[str, tuple[str, ...]] = {}  # keys by action, from `keys.yaml` of the open home


class Action(NamedTuple):
    """An action of the app.

    id       unique; the default name of the method `action_<id>`, and its name in `keys.yaml`
    default  Textual's key names or single characters, separated by spaces; the first one is shown
    label    two or three words, for the footer and the palette
    help     one sentence
    where    where the keys are active: any "list", the "checklist", the "run" view, the whole "library"
             screen, or the screens of a paper's "code", of all "runs", of an "import", of a paper's
             "practice"
    call     the method's name for Textual, if it differs from the id: the app's, or with an argument
    cli_command     the equivalent on the command line, if any
    footer_rank     actions with low ranks stay longest in a narrow footer; None: never shown
    precedes_typing   the reader types text next, so the key is handled before later keys are dispatched
    """

    id: str
    default: str
    label: str
    help: str
    group: Group
    where: Where = "library"
    call: str = ""
    cli_command: str = ""
    footer_rank: int | None = None
    precedes_typing: bool = False

    @property
    def default_keys(self) -> tuple[str, ...]:
        return tuple(self.default.split())

    @property
    def keys(self) -> tuple[str, ...]:
        return _remapped.get(self.id, self.default_keys)

    @property
    def shown_keys(self) -> str:
        """The keys as the help screen prints them: `j ↓`."""
        return " ".join(shown_key(key) for key in self.keys)


# fmt: off
ACTIONS: tuple[Action, ...] = (
    Action("down", "j down", "Down", "Move to the next line.", "Move", where="list"),
    Action("up", "k up", "Up", "Move to the previous line.", "Move", where="list"),
    Action("first", "g home", "Top", "Move to the first line.", "Move", where="list"),
    Action("last", "G end", "Bottom", "Move to the last line.", "Move", where="list"),
    Action("page_down", "ctrl+f pagedown", "Page down", "Scroll one screen down.", "Move", where="list"),
    Action("page_up", "ctrl+b pageup", "Page up", "Scroll one screen up.", "Move", where="list"),
    Action("half_down", "ctrl+d", "Half down", "Scroll half a screen down.", "Move", where="list"),
    Action("half_up", "ctrl+u", "Half up", "Scroll half a screen up.", "Move", where="list"),
    Action("next_section", "}", "Next section", "Move to the next section of the list.", "Move",
           where="checklist"),
    Action("previous_section", "{", "Previous section", "Move to the previous section of the list.", "Move",
           where="checklist"),
    Action("fold", "h left", "Fold", "Fold this row or section. Again: move to the one that contains it.",
           "Move", where="checklist"),
    Action("unfold", "l right", "unfold", "Unfold this row or section. If it is open, go to its details.",
           "Move", where="checklist", footer_rank=6),
    Action("choose", "enter", "open", "Go to the details. There, open the selected link, paper or run.",
           "Move", where="list", footer_rank=5),
    Action("next_pane", "tab", "Next pane", "Switch between the list and the details.", "Move"),
    Action("previous_pane", "shift+tab", "Previous pane", "Switch panes in the other direction.", "Move"),
    Action("return", "backspace", "Return", "Return to the paper you followed a link from.", "Move"),
    Action("back", "escape", "back", "Clear the filter, leave the pane, or return to the list.", "Move",
           footer_rank=1),
    Action("mark_todo", "1", "todo", "Mark as not read yet.", "Reading", call="app.mark('todo')",
           cli_command="readtrack mark PAPER todo"),
    Action("mark_reading", "2", "reading", "Mark as being read.", "Reading", call="app.mark('reading')",
           cli_command="readtrack mark PAPER reading"),
    Action("mark_read", "3", "read", "Mark as read.", "Reading", call="app.mark('read')",
           cli_command="readtrack mark PAPER read"),
    Action("mark_implemented", "4", "implemented", "Mark as read and implemented.", "Reading",
           call="app.mark('implemented')", cli_command="readtrack mark PAPER implemented"),
    Action("mark_skipped", "5", "skipped", "Mark as skipped.", "Reading", call="app.mark('skipped')",
           cli_command="readtrack mark PAPER skipped"),
    Action("tick", "space", "tick", "Tick the box (read) or clear it (todo).", "Reading", call="app.tick",
           footer_rank=4),
    Action("undo", "u", "undo", "Undo the last change: a state, tag, rating, row or import.", "Reading",
           call="app.undo", cli_command="readtrack undo", footer_rank=7),
    Action("redo", "U", "redo", "Redo the last change that was undone.", "Reading", call="app.redo",
           cli_command="readtrack redo"),
    Action("tags", "t", "Tags", "Edit the paper's tags.", "Reading", call="app.tags",
           cli_command="readtrack tag PAPER TAG...", precedes_typing=True),
    Action("rating", "*", "Stars", "Rate with 1 to 5 stars; 0 removes the rating.", "Reading",
           call="app.rating", cli_command="readtrack rate PAPER STARS"),
    Action("note", "n", "note", "Edit the note, in $EDITOR if it is set.", "Notes and sources",
           call="app.note", cli_command="readtrack note PAPER", footer_rank=8, precedes_typing=True),
    Action("add", "a", "add a paper", "Put a paper on your list, by title, arXiv id, DOI or link.",
           "Notes and sources", call="app.add", cli_command="readtrack add PAPER", precedes_typing=True),
    Action("put_on_list", "+", "put on my list",
           "Put the selected paper on your list, if it is not there yet.", "Notes and sources",
           call="app.put_on_list", cli_command="readtrack add PAPER", footer_rank=3),
    Action("attach", "A", "Attach a PDF", "Attach a PDF that you downloaded.", "Notes and sources",
           call="app.attach", cli_command="readtrack attach PAPER FILE", precedes_typing=True),
    Action("own_list", "I", "Your own list",
           "Choose your list: the shipped one, a copy of it, an import, or an empty one.",
           "Notes and sources", call="app.own_list"),
    Action("import_list", "ctrl+o", "Import a list",
           "Import a Markdown or BibTeX file or pasted text, after a preview.", "Import",
           call="app.import_list", cli_command="readtrack import FILE", precedes_typing=True),
    Action("link", "K", "link to a paper", "Link this row of the list to a paper.", "Import",
           call="app.link", cli_command="readtrack link ROW PAPER", footer_rank=2, precedes_typing=True),
    Action("remove_row", "d", "remove", "Remove this row from your list, after confirmation.", "Import",
           call="app.remove_row", cli_command="readtrack remove ROW"),
    Action("import_row", "n", "no paper",
           "In an import: link no paper; a BibTeX entry becomes a new paper. Again: undo.", "Import",
           where="import"),
    Action("import_skip", "x", "leave out", "In an import: leave the row out, or include it again.",
           "Import", where="import"),
    Action("import_pdfs", "p", "PDFs", "In an import: attach the PDFs that the list mentions, or not.",
           "Import", where="import"),
    Action("import_write", "w", "write", "In an import: write the rows into your list.", "Import",
           where="import"),
    Action("source", "o", "Open source", "Open the paper's page in a browser.", "Notes and sources",
           call="app.source"),
    Action("pdf", "p", "Open PDF", "Open the PDF, or its link if it has not been fetched.",
           "Notes and sources", call="app.pdf", cli_command="readtrack open PAPER"),
    Action("sync", "s", "sync", "Fetch abstracts and PDFs of this paper, row or section.",
           "Notes and sources", call="app.sync", cli_command="readtrack sync PAPER", footer_rank=10),
    Action("sync_all", "S", "Sync the list",
           "Fetch missing abstracts and PDFs of all papers on your list, in the background.",
           "Notes and sources", call="app.sync_all", cli_command="readtrack sync"),
    Action("sync_page", "w", "watch the sync",
           "Show the current or last sync, with the reason for each failure.", "Notes and sources",
           call="app.sync_page", footer_rank=3),
    Action("copy", "y", "Copy", "Copy the selected text, or the link if nothing is selected.",
           "Notes and sources", call="app.copy"),
    Action("copy_abstract", "Y", "Copy abstract", "Copy the abstract to the clipboard.", "Notes and sources",
           call="app.copy_abstract"),
    Action("copy_bibtex", "B", "Copy BibTeX", "Copy the paper's BibTeX entry to the clipboard.",
           "Notes and sources", cli_command="readtrack bibtex PAPER"),
    Action("copy_arxiv", "X", "Copy arXiv id", "Copy the paper's arXiv id to the clipboard.",
           "Notes and sources"),
    Action("run", "r", "run", "Run the paper (quick budget); queued if another run is in progress.", "Run",
           call="app.run", cli_command="readtrack run PAPER", footer_rank=2),
    Action("run_options", "R", "Run with options",
           "Choose device, dtype, budget, seed and settings, then run.", "Run", call="app.run_options",
           cli_command="readtrack run PAPER --device cuda ..."),
    Action("break", "x", "break", "Run the paper without one ingredient of its idea (a break).", "Run",
           call="app.break", cli_command="readtrack run PAPER --break NAME", footer_rank=3),
    Action("bet", "O", "bet, then run", "Bet on the arm that wins, then run. Again: withdraw the bet.", "Run",
           call="app.bet", cli_command="readtrack run PAPER --bet ARM:80"),
    Action("cancel", "c", "cancel", "Stop the run (again: force it). If none is running, stop the sync.",
           "Run", call="app.cancel", footer_rank=2),
    Action("queue", "C", "queue", "Show the queued runs, to reorder, remove or start them.", "Run",
           call="app.queue"),
    Action("switch_view", "v", "run view", "Switch between the paper and its newest run.", "Run",
           footer_rank=6),
    Action("live_run", "V", "live run", "Go to the run in progress and its paper.", "Run"),
    Action("next_tab", "] right l", "next tab",
           "Go to the next tab: overview, claims, benchmark, artifacts, log.", "Run", where="run",
           footer_rank=3),
    Action("previous_tab", "[ left h", "Previous tab", "Go to the previous tab.", "Run", where="run"),
    Action("next_metric", "m", "next metric", "Show the next curve.", "Run", where="run", footer_rank=3),
    Action("all_curves", "M", "all curves", "Switch between one curve and all curves.", "Run", where="run",
           footer_rank=5),
    Action("log_scale", "L", "log scale", "Switch the y axis between linear and logarithmic.", "Run",
           where="run", footer_rank=4),
    Action("run_edits", "E", "edits", "Show how the run's code differs from the shipped code.", "Run",
           where="run", call="app.show_edits", cli_command="readtrack plugins diff PAPER --run RUN",
           footer_rank=3),
    Action("runs", "H", "all runs", "Show every run, to open, compare, repeat, pin, annotate or delete it.",
           "All runs", call="app.runs", cli_command="readtrack results"),
    Action("sort", "s", "sort", "In all runs: sort by date, paper, verdict or duration.", "All runs",
           where="runs"),
    Action("filter_runs", "/", "filter", "In all runs: show only runs that match some words.", "All runs",
           where="runs", precedes_typing=True),
    Action("choose_run", "space", "mark", "In all runs: mark a run. Two marked runs can be compared.",
           "All runs", where="runs"),
    Action("compare", "=", "compare", "In all runs: compare the two marked runs.", "All runs", where="runs"),
    Action("show_edits", "E", "edits", "In all runs: show how the run's code differs from the shipped code.",
           "All runs", where="runs"),
    Action("run_again", "r", "run again", "In all runs: repeat the run with the same settings.", "All runs",
           where="runs"),
    Action("pin", "p", "pin", "In all runs: pin (kept at the top, protected from deletion).", "All runs",
           where="runs"),
    Action("run_note", "n", "note", "In all runs: write a one-line note about the run.", "All runs",
           where="runs", precedes_typing=True),
    Action("delete", "d", "delete", "In all runs: delete the run's record, after confirmation.", "All runs",
           where="runs"),
    Action("code", "i", "code", "Show the paper's code.", "Code", call="app.code", footer_rank=8),
    Action("jump_implementation", "i", "implementation", "In the code: jump to the implementation.", "Code",
           where="code", call="jump('implementation')"),
    Action("jump_experiment", "x", "experiment", "In the code: jump to the experiment.", "Code",
           where="code", call="jump('experiment')"),
    Action("jump_benchmark", "b", "benchmark", "In the code: jump to the benchmark.", "Code", where="code",
           call="jump('benchmark')"),
    Action("next_file", "] right l", "next file", "In the code: show the next file of the plugin.", "Code",
           where="code", call="next_file(1)"),
    Action("previous_file", "[ left h", "previous file",
           "In the code: show the previous file of the plugin.", "Code", where="code", call="next_file(-1)"),
    Action("edit_code", "e", "edit your copy",
           "In the code: edit your copy. Once changed, it replaces the shipped code.", "Code", where="code",
           call="edit"),
    Action("code_edits", "E", "edits", "In the code: show how your copy differs from the shipped code.",
           "Code", where="code", call="edits", cli_command="readtrack plugins diff PAPER"),
    Action("revert_code", "u", "revert", "In the code: move your copy aside and run the shipped code again.",
           "Code", where="code", call="revert", cli_command="readtrack plugins revert PAPER"),
    Action("practice", "P", "practise", "Write the paper's functions yourself and have them checked.",
           "Practice", call="app.practice", cli_command="readtrack practice PAPER", footer_rank=5),
    Action("practice_edit", "e", "edit", "In practice: open your file in the editor, at the exercise.",
           "Practice", where="practice", call="edit", cli_command="readtrack practice PAPER"),
    Action("practice_check", "c", "check", "In practice: check your functions now.", "Practice",
           where="practice", call="check", cli_command="readtrack practice PAPER --check"),
    Action("practice_watch", "w", "watch", "In practice: check whenever you save, or only on request.",
           "Practice", where="practice", call="watch", cli_command="readtrack practice PAPER --watch"),
    Action("practice_hint", "h", "hint", "In practice: open the exercise's next hint.", "Practice",
           where="practice", call="hint", cli_command="readtrack practice PAPER --hint"),
    Action("practice_next", "n", "next", "In practice: go to the next open exercise; 1 to 9 choose any.",
           "Practice", where="practice", call="next"),
    Action("practice_skip", "s", "skip", "In practice: skip the exercise (enter resumes it).",
           "Practice", where="practice", call="skip", cli_command="readtrack practice PAPER --skip"),
    Action("practice_reset", "r", "reset", "In practice: empty the exercise, after confirmation.", "Practice",
           where="practice", call="reset", cli_command="readtrack practice PAPER --reset"),
    Action("practice_solution", "o", "solution",
           "In practice: compare with the paper's code, after confirmation.", "Practice", where="practice",
           call="solution", cli_command="readtrack practice PAPER --solution"),
    Action("practice_prove", "p", "speed, claims",
           "In practice: run the benchmark and test the claims with your code.", "Practice", where="practice",
           call="prove"),
    Action("practice_stop", "x", "stop", "In practice: stop the check, or the run with your code.",
           "Practice", where="practice", call="stop"),
    Action("practice_implemented", "i", "implemented", "In practice: mark the paper as implemented.",
           "Practice", where="practice", call="implemented",
           cli_command="readtrack mark PAPER implemented"),
    Action("practice_undo", "u", "undo", "In practice: undo the last change of state.", "Practice",
           where="practice", call="undo", cli_command="readtrack undo"),
    Action("practice_pane", "tab", "pane", "In practice: switch between the exercises and the page.",
           "Practice", where="practice", call="pane"),
    Action("filter", "/", "filter", "Filter as you type: words, author:hinton, year:2017, not, or.", "View",
           cli_command="readtrack search QUERY", footer_rank=3, precedes_typing=True),
    Action("state_filter", "f", "Filter by state",
           "Cycle the filter: todo, reading, read, implemented, skipped, runnable.", "View"),
    Action("lineage", "b", "Lineage", "Show a paper's prerequisites and successors as a tree.", "View",
           cli_command="readtrack lineage PAPER"),
    Action("statistics", "D", "History", "Show reading statistics and suggestions for what to read next.",
           "View", cli_command="readtrack stats"),
    Action("report", "W", "Web report", "Write your list, runs and claims as web pages and open them.",
           "View", call="app.report", cli_command="readtrack report"),
    Action("export", "ctrl+e", "Export", "Export your list as Markdown, BibTeX, CSV or JSON.", "Import",
           call="app.export", cli_command="readtrack export"),
    Action("zoom", "z", "Zoom", "Zoom the pane to the whole screen, or back.", "View"),
    Action("theme", "T", "Light or dark",
           "Switch between dark and light. READTRACK_THEME=paper starts light.", "View", call="app.theme"),
    Action("reload", "ctrl+r", "Reload", "Reload papers.yaml after you changed it.", "App",
           call="app.reload"),
    Action("palette", "ctrl+p", "Palette", "Find any action by its name.", "App", call="app.command_palette"),
    Action("help", "? f1", "help", "Show this page: keys, marks, and the terms of claims and benchmarks.",
           "App", call="app.help", footer_rank=0),
    Action("leave", "q ctrl+q ctrl+c", "quit",
           "Quit; asks first if a run is in progress. A sync stops and can be continued.", "App",
           call="app.leave", footer_rank=9),
)
# fmt: on

BY_ID = {action.id: action for action in ACTIONS}

_SHOWN = {
    "down": "↓",
    "up": "↑",
    "left": "←",
    "right": "→",
    "escape": "esc",
    "pagedown": "pgdn",
    "pageup": "pgup",
}


def remap(keys: Mapping[str, tuple[str, ...]]) -> None:
    """Assign these keys to the named actions, and the default keys to all others."""
    _remapped.clear()
    _remapped.update(keys)


def key(action_id: str) -> str:
    """The key of an action, as shown in messages and footers."""
    return shown_key(BY_ID[action_id].keys[0])


def where(place: Where) -> list[Action]:
    """The actions whose keys are active in one place."""
    return [one for one in ACTIONS if one.where == place]


def by_group() -> Iterator[tuple[Group, list[Action]]]:
    for group in GROUPS:
        yield group, [action for action in ACTIONS if action.group == group]


def shown_key(key: str) -> str:
    return _SHOWN.get(key, key)
