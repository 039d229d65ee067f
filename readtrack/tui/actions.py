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
    _move("down", ("j", "down"), "Down", "Next line.", where="list"),
    _move("up", ("k", "up"), "Up", "Previous line.", where="list"),
    _move("first", ("g", "home"), "Top", "First line.", where="list"),
    _move("last", ("G", "end"), "Bottom", "Last line.", where="list"),
    _move("page_down", ("ctrl+f", "pagedown"), "LineView down", "One screen down.", where="list"),
    _move("page_up", ("ctrl+b", "pageup"), "LineView up", "One screen up.", where="list"),
    _move("half_down", ("ctrl+d",), "Half down", "Half a screen down.", where="list"),
    _move("half_up", ("ctrl+u",), "Half up", "Half a screen up.", where="list"),
    _move("next_section", ("}",), "Next section", "To the next section of the list.", where="checklist"),
    _move("previous_section", ("{",), "Previous section", "To the section before.", where="checklist"),
    _move(
        "fold",
        ("h", "left"),
        "Fold",
        "Close this row or section; once more: go to the one around it.",
        where="checklist",
    ),
    _move(
        "unfold",
        ("l", "right"),
        "Unfold",
        "Open what was folded; on an open row: go to its details.",
        where="checklist",
    ),
    Action(
        id="choose",
        keys=("enter",),
        label="open",
        help="Go to the details; there: open the link, paper or past result under the cursor.",
        group="Move",
        where="list",
        footer_rank=5,
    ),
    _move("next_pane", ("tab",), "Next pane", "From the list to the details and back."),
    _move("previous_pane", ("shift+tab",), "Previous pane", "The same, the other way round."),
    _move("return", ("backspace",), "Return", "To the paper that a link led away from."),
    Action(
        id="back",
        keys=("escape",),
        label="back",
        help="Clear the filter, leave the pane, return to the list.",
        group="Move",
        footer_rank=1,
    ),
    _state("1", "todo", "Not read yet."),
    _state("2", "reading", "Being read."),
    _state("3", "read", "Read."),
    _state("4", "implemented", "Read and implemented by yourself."),
    _state("5", "skipped", "Will not be read."),
    Action(
        id="tick",
        call="app.tick",
        keys=("space",),
        label="tick",
        help="Tick the box (read), or untick it (todo).",
        group="Reading",
        footer_rank=4,
    ),
    Action(
        id="undo",
        call="app.undo",
        keys=("u",),
        label="undo",
        help="Take back the last change of state, tags or rating; again for the one before.",
        group="Reading",
        cli_command="readtrack undo",
        footer_rank=7,
    ),
    Action(
        id="redo",
        call="app.redo",
        keys=("U",),
        label="redo",
        help="Do again what the last undo took back.",
        group="Reading",
        cli_command="readtrack redo",
    ),
    Action(
        id="tags",
        precedes_typing=True,
        call="app.tags",
        keys=("t",),
        label="Tags",
        help="Edit the tags.",
        group="Reading",
        cli_command="readtrack tag PAPER TAG...",
    ),
    Action(
        id="rating",
        call="app.rating",
        keys=("*",),
        label="Stars",
        help="Rate with 1 to 5 stars; 0 takes them away.",
        group="Reading",
        cli_command="readtrack rate PAPER STARS",
    ),
    Action(
        id="note",
        precedes_typing=True,
        call="app.note",
        keys=("n", "e"),
        label="note",
        help="Write a note in $EDITOR, or here when EDITOR is not set.",
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
        help="Make a PDF that you fetched yourself the paper's own.",
        group="Notes and sources",
        cli_command="readtrack attach PAPER FILE",
    ),
    Action(
        id="own_list",
        call="app.own_list",
        keys=("I",),
        label="A list of your own",
        help="Choose your list: the shipped one, a copy of it, an import, or an empty one.",
        group="Notes and sources",
    ),
    Action(
        id="import_list",
        precedes_typing=True,
        call="app.import_list",
        keys=("ctrl+o",),
        label="Import a list",
        help="Bring in a Markdown or BibTeX file, or pasted text; each row is shown before it is written.",
        group="Import",
        cli_command="readtrack import FILE",
    ),
    Action(
        id="link",
        precedes_typing=True,
        call="app.link",
        keys=("K",),
        label="Link to a paper",
        help="Choose the paper that this row of the list means.",
        group="Import",
        cli_command="readtrack link ROW PAPER",
    ),
    *(
        Action(id=name, keys=(key,), label=label, help=help_, group="Import", where="import")
        for name, key, label, help_ in (
            ("import_row", "n", "no paper", "In an import: it stays a row; again: as it was found."),
            ("import_skip", "x", "leave out", "In an import: leave the row out, or take it in again."),
            ("import_pdfs", "p", "PDFs", "In an import: attach the PDFs that the list names, or not."),
            ("import_write", "w", "write", "In an import: write it into your list."),
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
        help="Open the PDF that a sync fetched, else the link to it.",
        group="Notes and sources",
        cli_command="readtrack open PAPER",
    ),
    Action(
        id="sync",
        call="app.sync",
        keys=("s",),
        label="sync",
        help="Fetch abstract and PDF of this paper, or of all papers of this row or section.",
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
        label="Watch the sync",
        help="Each paper of the sync that runs or ran last, and why it did not arrive; c stops it there.",
        group="Notes and sources",
    ),
    Action(
        id="copy",
        call="app.copy",
        keys=("y",),
        label="Copy",
        help="Copy what the mouse has selected; else the link.",
        group="Notes and sources",
    ),
    Action(
        id="copy_abstract",
        call="app.copy_abstract",
        keys=("Y",),
        label="Copy abstract",
        help="Copy the whole abstract.",
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
        help="Run the paper with the quick budget. The run is queued while another is in progress.",
        group="Run",
        cli_command="readtrack run PAPER",
        footer_rank=2,
    ),
    Action(
        id="run_options",
        call="app.run_options",
        keys=("R",),
        label="Run with options",
        help="Choose device, dtype, budget, seed and settings first.",
        group="Run",
        cli_command="readtrack run PAPER --device cuda ...",
    ),
    Action(
        id="break",
        call="app.break",
        keys=("x",),
        label="break",
        help="Choose one ingredient of the idea, run the paper without it, and see which claims fall.",
        group="Run",
        cli_command="readtrack run PAPER --break NAME",
        footer_rank=3,
    ),
    Action(
        id="cancel",
        call="app.cancel",
        keys=("c",),
        label="cancel",
        help="Stop the run; once more: with more force. Without a run: stop the sync.",
        group="Run",
        footer_rank=2,
    ),
    Action(
        id="queue",
        call="app.queue",
        keys=("C",),
        label="queue",
        help="Show the queued runs: reorder them, remove some, start the first.",
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
        help="Go to the run in progress, and to its paper.",
        group="Run",
    ),
    Action(
        id="next_tab",
        keys=("]", "right", "l"),
        label="next tab",
        help="Overview, claims, benchmark, artifacts, log.",
        group="Run",
        where="run",
        footer_rank=3,
    ),
    Action(
        id="previous_tab",
        keys=("[", "left", "h"),
        label="Previous tab",
        help="The same, the other way round.",
        group="Run",
        where="run",
    ),
    Action(
        id="next_metric",
        keys=("m",),
        label="next metric",
        help="Show the next curve on top.",
        group="Run",
        where="run",
        footer_rank=3,
    ),
    Action(
        id="all_curves",
        keys=("M",),
        label="all curves",
        help="All curves at once, small; and back to one.",
        group="Run",
        where="run",
        footer_rank=5,
    ),
    Action(
        id="log_scale",
        keys=("L",),
        label="log scale",
        help="Linear or logarithmic y axis.",
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
    ),
    Action(
        id="runs",
        call="app.runs",
        keys=("H",),
        label="all runs",
        help="Every run that was made: open, compare, run again, pin, note, delete.",
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
            ("sort", "s", "sort", "In all runs: the newest, by paper, by verdict, the longest first.", False),
            ("filter_runs", "/", "filter", "In all runs: only those with some words.", True),
            ("choose_run", "space", "mark", "In all runs: mark two, to compare them.", False),
            ("compare", "=", "compare", "In all runs: the two marked ones side by side.", False),
            (
                "show_edits",
                "E",
                "edits",
                "In all runs: how the run's code differs from the shipped code.",
                False,
            ),
            ("run_again", "r", "run again", "In all runs: make the same run anew.", False),
            ("pin", "p", "pin", "In all runs: keep it on top, and from being deleted.", False),
            ("run_note", "n", "note", "In all runs: a line about it.", True),
            ("delete", "d", "delete", "In all runs: delete its record, after a question.", False),
        )
    ),
    Action(
        id="code",
        call="app.code",
        keys=("i",),
        label="code",
        help="The paper's own code, beside its abstract.",
        group="Code",
        footer_rank=8,
    ),
    *(
        Action(
            id=f"jump_{hook}",
            call=f"jump('{hook}')",
            keys=(key,),
            label=hook,
            help=f"In the code: to the {hook}.",
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
        help="In the code: the next file of the plugin.",
        group="Code",
        where="code",
    ),
    Action(
        id="previous_file",
        call="next_file(-1)",
        keys=("[", "left", "h"),
        label="file before",
        help="In the code: the file before.",
        group="Code",
        where="code",
    ),
    Action(
        id="edit_code",
        call="edit",
        keys=("e",),
        label="edit your copy",
        help="In the code: edit a copy of your own. Once it differs, it runs instead.",
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
        help="In the code: put your copy aside, so that the shipped code runs again.",
        group="Code",
        where="code",
        cli_command="readtrack plugins revert PAPER",
    ),
    Action(
        id="filter",
        precedes_typing=True,
        keys=("/",),
        label="filter",
        help="Narrow the list as you type: words of titles, notes and PDFs, year:2017..2020, not state:read.",
        group="View",
        cli_command="readtrack search QUERY",
        footer_rank=3,
    ),
    Action(
        id="state_filter",
        keys=("f",),
        label="Filter by state",
        help="Only todo, reading, read, implemented, skipped, what can be run; then all again.",
        group="View",
    ),
    Action(
        id="lineage",
        keys=("b",),
        label="Lineage",
        help="What the paper builds on and what builds on it, as a tree.",
        group="View",
        cli_command="readtrack lineage PAPER",
    ),
    Action(
        id="statistics",
        keys=("D",),
        label="History",
        help="What you have read: a year day by day, streaks, pages, and what could be next.",
        group="View",
        cli_command="readtrack stats",
    ),
    Action(
        id="zoom",
        keys=("z",),
        label="Zoom",
        help="Give the pane the whole screen, or give it back.",
        group="View",
    ),
    Action(
        id="theme",
        call="app.theme",
        keys=("T",),
        label="Light or dark",
        help="Switch between ink (dark) and paper (light); READTRACK_THEME=paper starts light.",
        group="View",
    ),
    Action(
        id="reload",
        call="app.reload",
        keys=("ctrl+r",),
        label="Reload",
        help="Read papers.yaml again after you changed it.",
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
        help="This page: keys, marks, and the terms of claims and benchmarks.",
        group="App",
        footer_rank=0,
    ),
    Action(
        id="leave",
        call="app.leave",
        keys=("q", "ctrl+q", "ctrl+c"),
        label="quit",
        help="Leave; asks first while a run is in progress. A sync stops; the next one continues it.",
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
