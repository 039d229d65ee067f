"""Every action of the app, once: keys, palette, help screen and footer are made from this list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from textual.binding import Binding, BindingType

Group = Literal["Move", "Reading", "Notes and sources", "Import", "Run", "All runs", "Code", "View", "App"]
Where = Literal["list", "checklist", "run", "library", "code", "runs", "import"]

GROUPS: tuple[Group, ...] = (
    "Reading", "Run", "All runs", "Code", "Notes and sources", "Import", "View", "Move", "App",
)  # fmt: skip


class Action(NamedTuple):
    """One thing that the app can do.

    id       unique; the default name of the method `action_<id>`
    keys     Textual's key names or single characters; the first one is shown
    label    two or three words, for the footer and the palette
    help     one sentence
    where    who has the keys: any "list", the "checklist", the "run" view, the whole "library" screen, or the
             screens of a paper's "code" and of all "runs"
    call     Textual's name of the method, where it is not the id: the app's, or one with an argument
    cli_command     the same on the command line, where there is one
    footer_rank     small stays longest in the footer; None: never there
    precedes_typing   text follows the key: it is handled before the keys behind it are given to anyone
    """

    id: str
    keys: tuple[str, ...]
    label: str
    help: str
    group: Group
    where: Where = "library"
    call: str = ""
    cli_command: str = ""
    footer_rank: int | None = None
    precedes_typing: bool = False

    def binding(self) -> Binding:
        call = self.call or self.id
        return Binding(",".join(self.keys), call, id=self.id, show=False, priority=self.precedes_typing)

    @property
    def shown_keys(self) -> str:
        """The keys as the help screen prints them: `j ↓`."""
        return " ".join(shown_key(key) for key in self.keys)


def _state(key: str, state: str, help: str) -> Action:  # noqa: A002 (the field's name)
    return Action(
        id=f"mark_{state}",
        keys=(key,),
        label=state,
        help=help,
        group="Reading",
        call=f"app.mark('{state}')",
        cli_command=f"readtrack mark PAPER {state}",
    )


def _move(id_: str, keys: tuple[str, ...], label: str, help_: str, where: Where = "library") -> Action:
    return Action(id=id_, keys=keys, label=label, help=help_, group="Move", where=where)


ACTIONS: tuple[Action, ...] = (
    _move("down", ("j", "down"), "Down", "Move to the next line.", where="list"),
    _move("up", ("k", "up"), "Up", "Move to the previous line.", where="list"),
    _move("first", ("g", "home"), "Top", "Move to the first line.", where="list"),
    _move("last", ("G", "end"), "Bottom", "Move to the last line.", where="list"),
    _move("page_down", ("ctrl+f", "pagedown"), "Page down", "Scroll one screen down.", where="list"),
    _move("page_up", ("ctrl+b", "pageup"), "Page up", "Scroll one screen up.", where="list"),
    _move("half_down", ("ctrl+d",), "Half down", "Scroll half a screen down.", where="list"),
    _move("half_up", ("ctrl+u",), "Half up", "Scroll half a screen up.", where="list"),
    _move("next_section", ("}",), "Next section", "Move to the next section of the list.", where="checklist"),
    _move(
        "previous_section",
        ("{",),
        "Previous section",
        "Move to the previous section of the list.",
        where="checklist",
    ),
    _move(
        "fold",
        ("h", "left"),
        "Fold",
        "Fold this row or section. Again: move to the one that contains it.",
        where="checklist",
    ),
    _move(
        "unfold",
        ("l", "right"),
        "Unfold",
        "Unfold this row or section. If it is open, go to its details.",
        where="checklist",
    ),
    Action(
        id="choose",
        keys=("enter",),
        label="open",
        help="Go to the details. There, open the selected link, paper or run.",
        group="Move",
        where="list",
        footer_rank=5,
    ),
    _move("next_pane", ("tab",), "Next pane", "Switch between the list and the details."),
    _move("previous_pane", ("shift+tab",), "Previous pane", "Switch panes in the other direction."),
    _move("return", ("backspace",), "Return", "Return to the paper you followed a link from."),
    Action(
        id="back",
        keys=("escape",),
        label="back",
        help="Clear the filter, leave the pane, or return to the list.",
        group="Move",
        footer_rank=1,
    ),
    _state("1", "todo", "Mark as not read yet."),
    _state("2", "reading", "Mark as being read."),
    _state("3", "read", "Mark as read."),
    _state("4", "implemented", "Mark as read and implemented."),
    _state("5", "skipped", "Mark as skipped."),
    Action(
        id="tick",
        call="app.tick",
        keys=("space",),
        label="tick",
        help="Tick the box (read) or clear it (todo).",
        group="Reading",
        footer_rank=4,
    ),
    Action(
        id="undo",
        call="app.undo",
        keys=("u",),
        label="undo",
        help="Undo the last change of state, tags or rating.",
        group="Reading",
        cli_command="readtrack undo",
        footer_rank=7,
    ),
    Action(
        id="redo",
        call="app.redo",
        keys=("U",),
        label="redo",
        help="Redo the last change that was undone.",
        group="Reading",
        cli_command="readtrack redo",
    ),
    Action(
        id="tags",
        precedes_typing=True,
        call="app.tags",
        keys=("t",),
        label="Tags",
        help="Edit the paper's tags.",
        group="Reading",
        cli_command="readtrack tag PAPER TAG...",
    ),
    Action(
        id="rating",
        call="app.rating",
        keys=("*",),
        label="Stars",
        help="Rate with 1 to 5 stars; 0 removes the rating.",
        group="Reading",
        cli_command="readtrack rate PAPER STARS",
    ),
    Action(
        id="note",
        precedes_typing=True,
        call="app.note",
        keys=("n", "e"),
        label="note",
        help="Edit the note, in $EDITOR if it is set.",
        group="Notes and sources",
        cli_command="readtrack note PAPER",
        footer_rank=8,
    ),
    Action(
        id="add",
        precedes_typing=True,
        call="app.add",
        keys=("a",),
        label="add a paper",
        help="Put a paper on your list: its title, arXiv id, DOI or link.",
        group="Notes and sources",
        cli_command="readtrack add PAPER",
    ),
    Action(
        id="put_on_list",
        call="app.put_on_list",
        keys=("+",),
        label="put on my list",
        help="Put the selected paper on your list, if it is not there yet.",
        group="Notes and sources",
        cli_command="readtrack add PAPER",
        footer_rank=3,
    ),
    Action(
        id="attach",
        precedes_typing=True,
        call="app.attach",
        keys=("A",),
        label="Attach a PDF",
        help="Attach a PDF that you downloaded.",
        group="Notes and sources",
        cli_command="readtrack attach PAPER FILE",
    ),
    Action(
        id="own_list",
        call="app.own_list",
        keys=("I",),
        label="Your own list",
        help="Choose your list: the shipped one, a copy of it, an import, or an empty one.",
        group="Notes and sources",
    ),
    Action(
        id="import_list",
        precedes_typing=True,
        call="app.import_list",
        keys=("ctrl+o",),
        label="Import a list",
        help="Import a Markdown or BibTeX file or pasted text, after a preview.",
        group="Import",
        cli_command="readtrack import FILE",
    ),
    Action(
        id="link",
        precedes_typing=True,
        call="app.link",
        keys=("K",),
        label="link to a paper",
        help="Link this row of the list to a paper.",
        group="Import",
        cli_command="readtrack link ROW PAPER",
        footer_rank=2,
    ),
    *(
        Action(id=name, keys=(key,), label=label, help=help_, group="Import", where="import")
        for name, key, label, help_ in (
            ("import_row", "n", "no paper", "In an import: keep as a plain row. Again: restore the match."),
            ("import_skip", "x", "leave out", "In an import: leave the row out, or include it again."),
            ("import_pdfs", "p", "PDFs", "In an import: attach the PDFs that the list mentions, or not."),
            ("import_write", "w", "write", "In an import: write the rows into your list."),
        )
    ),
    Action(
        id="source",
        call="app.source",
        keys=("o",),
        label="Open source",
        help="Open the paper's page in a browser.",
        group="Notes and sources",
    ),
    Action(
        id="pdf",
        call="app.pdf",
        keys=("p",),
        label="Open PDF",
        help="Open the PDF, or its link if it has not been fetched.",
        group="Notes and sources",
        cli_command="readtrack open PAPER",
    ),
    Action(
        id="sync",
        call="app.sync",
        keys=("s",),
        label="sync",
        help="Fetch abstracts and PDFs of this paper, row or section.",
        group="Notes and sources",
        cli_command="readtrack sync PAPER",
        footer_rank=10,
    ),
    Action(
        id="sync_all",
        call="app.sync_all",
        keys=("S",),
        label="Sync the list",
        help="Fetch missing abstracts and PDFs of all papers on your list, in the background.",
        group="Notes and sources",
        cli_command="readtrack sync",
    ),
    Action(
        id="sync_page",
        call="app.sync_page",
        keys=("w",),
        label="watch the sync",
        help="Show the current or last sync, with the reason for each failure.",
        group="Notes and sources",
        footer_rank=3,
    ),
    Action(
        id="copy",
        call="app.copy",
        keys=("y",),
        label="Copy",
        help="Copy the selected text, or the link if nothing is selected.",
        group="Notes and sources",
    ),
    Action(
        id="copy_abstract",
        call="app.copy_abstract",
        keys=("Y",),
        label="Copy abstract",
        help="Copy the abstract to the clipboard.",
        group="Notes and sources",
    ),
    Action(
        id="copy_bibtex",
        keys=("B",),
        label="Copy BibTeX",
        help="Copy the paper's BibTeX entry to the clipboard.",
        group="Notes and sources",
        cli_command="readtrack bibtex PAPER",
    ),
    Action(
        id="copy_arxiv",
        keys=("X",),
        label="Copy arXiv id",
        help="Copy the paper's arXiv id to the clipboard.",
        group="Notes and sources",
    ),
    Action(
        id="run",
        call="app.run",
        keys=("r",),
        label="run",
        help="Run the paper (quick budget); queued if another run is in progress.",
        group="Run",
        cli_command="readtrack run PAPER",
        footer_rank=2,
    ),
    Action(
        id="run_options",
        call="app.run_options",
        keys=("R",),
        label="Run with options",
        help="Choose device, dtype, budget, seed and settings, then run.",
        group="Run",
        cli_command="readtrack run PAPER --device cuda ...",
    ),
    Action(
        id="break",
        call="app.break",
        keys=("x",),
        label="break",
        help="Run the paper without one ingredient of its idea (a break).",
        group="Run",
        cli_command="readtrack run PAPER --break NAME",
        footer_rank=3,
    ),
    Action(
        id="cancel",
        call="app.cancel",
        keys=("c",),
        label="cancel",
        help="Stop the run (again: force it). If none is running, stop the sync.",
        group="Run",
        footer_rank=2,
    ),
    Action(
        id="queue",
        call="app.queue",
        keys=("C",),
        label="queue",
        help="Show the queued runs, to reorder, remove or start them.",
        group="Run",
    ),
    Action(
        id="switch_view",
        keys=("v",),
        label="run view",
        help="Switch between the paper and its newest run.",
        group="Run",
        footer_rank=6,
    ),
    Action(
        id="live_run",
        keys=("V",),
        label="live run",
        help="Go to the run in progress and its paper.",
        group="Run",
    ),
    Action(
        id="next_tab",
        keys=("]", "right", "l"),
        label="next tab",
        help="Next tab: overview, claims, benchmark, artifacts, log.",
        group="Run",
        where="run",
        footer_rank=3,
    ),
    Action(
        id="previous_tab",
        keys=("[", "left", "h"),
        label="Previous tab",
        help="Previous tab of the run.",
        group="Run",
        where="run",
    ),
    Action(
        id="next_metric",
        keys=("m",),
        label="next metric",
        help="Show the next curve.",
        group="Run",
        where="run",
        footer_rank=3,
    ),
    Action(
        id="all_curves",
        keys=("M",),
        label="all curves",
        help="Switch between one curve and all curves.",
        group="Run",
        where="run",
        footer_rank=5,
    ),
    Action(
        id="log_scale",
        keys=("L",),
        label="log scale",
        help="Switch the y axis between linear and logarithmic.",
        group="Run",
        where="run",
        footer_rank=4,
    ),
    Action(
        id="run_edits",
        call="app.show_edits",
        keys=("E",),
        label="edits",
        help="Show how the run's code differs from the shipped code.",
        group="Run",
        where="run",
        cli_command="readtrack plugins diff PAPER --run RUN",
        footer_rank=3,
    ),
    Action(
        id="runs",
        call="app.runs",
        keys=("H",),
        label="all runs",
        help="Show every run, to open, compare, repeat, pin, annotate or delete it.",
        group="All runs",
        cli_command="readtrack results",
    ),
    *(
        Action(
            id=name,
            keys=(key,),
            label=label,
            help=help_,
            group="All runs",
            where="runs",
            precedes_typing=typed,
        )
        for name, key, label, help_, typed in (
            ("sort", "s", "sort", "In all runs: sort by date, paper, verdict or duration.", False),
            ("filter_runs", "/", "filter", "In all runs: show only runs that match some words.", True),
            (
                "choose_run",
                "space",
                "mark",
                "In all runs: mark a run. Two marked runs can be compared.",
                False,
            ),
            ("compare", "=", "compare", "In all runs: compare the two marked runs.", False),
            (
                "show_edits",
                "E",
                "edits",
                "In all runs: show how the run's code differs from the shipped code.",
                False,
            ),
            ("run_again", "r", "run again", "In all runs: repeat the run with the same settings.", False),
            ("pin", "p", "pin", "In all runs: pin (kept at the top, protected from deletion).", False),
            ("run_note", "n", "note", "In all runs: write a one-line note about the run.", True),
            ("delete", "d", "delete", "In all runs: delete the run's record, after confirmation.", False),
        )
    ),
    Action(
        id="code",
        call="app.code",
        keys=("i",),
        label="code",
        help="Show the paper's code.",
        group="Code",
        footer_rank=8,
    ),
    *(
        Action(
            id=f"jump_{hook}",
            call=f"jump('{hook}')",
            keys=(key,),
            label=hook,
            help=f"In the code: jump to the {hook}.",
            group="Code",
            where="code",
        )
        for key, hook in (("i", "implementation"), ("x", "experiment"), ("b", "benchmark"))
    ),
    Action(
        id="next_file",
        call="next_file(1)",
        keys=("]", "right", "l"),
        label="next file",
        help="In the code: show the next file of the plugin.",
        group="Code",
        where="code",
    ),
    Action(
        id="previous_file",
        call="next_file(-1)",
        keys=("[", "left", "h"),
        label="previous file",
        help="In the code: show the previous file of the plugin.",
        group="Code",
        where="code",
    ),
    Action(
        id="edit_code",
        call="edit",
        keys=("e",),
        label="edit your copy",
        help="In the code: edit your own copy; it runs once it differs.",
        group="Code",
        where="code",
    ),
    Action(
        id="code_edits",
        call="edits",
        keys=("E",),
        label="edits",
        help="In the code: show how your copy differs from the shipped code.",
        group="Code",
        where="code",
        cli_command="readtrack plugins diff PAPER",
    ),
    Action(
        id="revert_code",
        call="revert",
        keys=("u",),
        label="revert",
        help="In the code: move your copy aside and run the shipped code again.",
        group="Code",
        where="code",
        cli_command="readtrack plugins revert PAPER",
    ),
    Action(
        id="filter",
        precedes_typing=True,
        keys=("/",),
        label="filter",
        help="Filter as you type: words, year:2017..2020, state:read, not, or.",
        group="View",
        cli_command="readtrack search QUERY",
        footer_rank=3,
    ),
    Action(
        id="state_filter",
        keys=("f",),
        label="Filter by state",
        help="Cycle the filter: todo, reading, read, implemented, skipped, runnable.",
        group="View",
    ),
    Action(
        id="lineage",
        keys=("b",),
        label="Lineage",
        help="Show a paper's prerequisites and successors as a tree.",
        group="View",
        cli_command="readtrack lineage PAPER",
    ),
    Action(
        id="statistics",
        keys=("D",),
        label="History",
        help="Show reading statistics and suggestions for what to read next.",
        group="View",
        cli_command="readtrack stats",
    ),
    Action(
        id="zoom",
        keys=("z",),
        label="Zoom",
        help="Zoom the pane to the whole screen, or back.",
        group="View",
    ),
    Action(
        id="theme",
        call="app.theme",
        keys=("T",),
        label="Light or dark",
        help="Switch between dark and light. READTRACK_THEME=paper starts light.",
        group="View",
    ),
    Action(
        id="reload",
        call="app.reload",
        keys=("ctrl+r",),
        label="Reload",
        help="Reload papers.yaml after you changed it.",
        group="App",
    ),
    Action(
        id="palette",
        call="app.command_palette",
        keys=("ctrl+p",),
        label="Palette",
        help="Find any action by its name.",
        group="App",
    ),
    Action(
        id="help",
        call="app.help",
        keys=("?", "f1"),
        label="help",
        help="Show this page: keys, marks, and the terms of claims and benchmarks.",
        group="App",
        footer_rank=0,
    ),
    Action(
        id="leave",
        call="app.leave",
        keys=("q", "ctrl+q", "ctrl+c"),
        label="quit",
        help="Quit; asks first if a run is in progress. A sync stops and can be continued.",
        group="App",
        footer_rank=9,
    ),
)

# Names of methods; while text is typed, their keys are letters.
TYPING = {(one.call or one.id).removeprefix("app.") for one in ACTIONS if one.precedes_typing}

_BY_ID = {action.id: action for action in ACTIONS}

_SHOWN = {
    "down": "↓",
    "up": "↑",
    "left": "←",
    "right": "→",
    "escape": "esc",
    "pagedown": "pgdn",
    "pageup": "pgup",
}


def action(action_id: str) -> Action:
    return _BY_ID[action_id]


def bindings(where: Where) -> list[BindingType]:
    """The keys of one kind of widget, for its `BINDINGS`."""
    return [action.binding() for action in ACTIONS if action.where == where]


def where(place: Where) -> list[Action]:
    """The actions whose keys one kind of widget has."""
    return [one for one in ACTIONS if one.where == place]


def by_group() -> Iterator[tuple[Group, list[Action]]]:
    for group in GROUPS:
        yield group, [action for action in ACTIONS if action.group == group]


def shown_key(key: str) -> str:
    return _SHOWN.get(key, key)


def hints(places: set[Where], applies: Callable[[str], bool], *, limit: int = 9) -> list[Action]:
    """The footer for the widgets in `places`, the most wanted first: `? help` is always there."""
    wanted = [
        one for one in ACTIONS if one.footer_rank is not None and one.where in places and applies(one.id)
    ]
    return sorted(wanted, key=lambda one: one.footer_rank or 0)[:limit]
