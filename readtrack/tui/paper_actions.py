"""Actions on one paper or run (copy, lineage, edits), and the reading statistics."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.latex import readable
from readtrack.present import wording
from readtrack.present.actions import key
from readtrack.reading_list.catalog import Paper
from readtrack.text import one_line
from readtrack.tui.screens.paged import Paged
from readtrack.tui.widgets.line_view import wrapped

if TYPE_CHECKING:
    from readtrack.tui.controllers.notes import NotesController
    from readtrack.tui.controllers.practice import PracticeController
    from readtrack.tui.controllers.runs import RunController
    from readtrack.tui.shell import Shell
    from readtrack.tui.widgets.outline import Entry

_HINT = "enter goes to the paper, esc closes"


def address(entry: Entry | None) -> str | None:
    """The paper's first link, or the first link in the row's text."""
    if entry is not None and entry.paper is not None and entry.paper.sources:
        return entry.paper.sources[0].url
    found = wording.links(entry.text) if entry is not None else []
    return found[0] if found else None


def show_code(shell: Shell, plugin: str, notes: NotesController) -> None:
    from readtrack.tui.screens.code import CodeScreen

    try:
        shell.ask(CodeScreen(shell.library.runnable()[plugin], notes))
    except ReadtrackError as error:
        shell.fail(f"show the code of {plugin}", error, "read the code there.")


def copy_bibtex(shell: Shell, paper: Paper) -> None:
    from readtrack.transfer.exporting import entry

    shell.copy_to_clipboard(entry(shell.library, paper) + "\n")
    shell.say("Copied the BibTeX entry of ", (paper.id, "$link"))


def copy_arxiv(shell: Shell, paper: Paper) -> None:
    if paper.arxiv_id:
        shell.copy_to_clipboard(paper.arxiv_id)
        shell.say("Copied ", (paper.arxiv_id, "$link"))
    else:
        shell.say(f"{paper.id} has no arXiv id. Press {key('copy')} to copy its link.")


def copy_abstract(shell: Shell) -> None:
    paper = shell.entry.paper if shell.entry is not None else None
    abstract = (shell.library.metadata(paper.id) or {}).get("abstract") if paper is not None else None
    if isinstance(abstract, str):
        shell.copy_to_clipboard(readable(one_line(abstract)))
        shell.say("Copied the abstract.")
    else:
        shell.say(f"The abstract has not been fetched. Press {key('sync')} to fetch it.")


def open_pdf(shell: Shell) -> None:
    """Open the paper's PDF, or its link if the PDF has not been fetched."""
    paper = shell.entry.paper if shell.entry is not None else None
    if paper is None:
        shell.say("Choose one paper to open its PDF.")
    elif found := shell.library.pdf(paper.id) or shell.library.link(paper):
        shell.open_address(found)
    else:
        shell.say(f"{paper.id} has no link and no PDF. {key('attach')} attaches a PDF.")


def show_lineage(shell: Shell, paper: Paper) -> None:
    from readtrack.tui.widgets.reading_pages import lineage

    build = partial(lineage, shell.library, paper.id)
    shell.ask(Paged(f"{paper.id}: {paper.title}", build, _HINT), partial(_chosen, shell))


def show_statistics(shell: Shell) -> None:
    from readtrack.bets import settle_all
    from readtrack.statistics import statistics
    from readtrack.tui.widgets import reading_pages

    def count() -> None:
        settle_all(shell.library)
        build = partial(reading_pages.statistics, shell.library, statistics(shell.library))
        page = Paged("Reading statistics", build, _HINT)
        shell.call_from_thread(shell.ask, page, partial(_chosen, shell))

    shell.in_background("count what you have read", count)  # counting pages requires reading PDFs


def show_edits(shell: Shell, run_id: str) -> bool:
    """Show the diff, or return False if the run used the shipped code."""
    from readtrack.plugins.edits import load
    from readtrack.tui.widgets import edits_page

    edits = load(shell.library.home.runs / run_id)
    if edits:
        hint = "shipped code and the run's code; esc closes"
        shell.ask(Paged(f"Edits in {run_id}", partial(edits_page.page, edits), hint, wide=True))
    return bool(edits)


def show_practice(
    shell: Shell, plugin: str, practice: PracticeController, runs: RunController, notes: NotesController
) -> None:
    from readtrack.tui.screens.practice import PracticeScreen

    try:
        bench = practice.bench(plugin)
    except NotAvailableError as error:
        said = partial(wrapped, str(error))  # the plugin's explanation is too long for the status line
        shell.ask(Paged(f"{plugin}: nothing to write", said, "esc closes"))
    except ReadtrackError as error:
        shell.fail(f"read the exercises of {plugin}", error, "fix that line.")
    else:
        shell.ask(PracticeScreen(bench, practice, runs, notes))


def _chosen(shell: Shell, paper: str | None) -> None:
    if paper is not None:
        shell.show_paper(paper)
