"""What the library screen does with one paper beside reading it: copies, lineage; and the history."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from readtrack.reading_list.catalog import Paper
from readtrack.tui.screens.paged import Paged
from readtrack.tui.widgets.line_view import join

if TYPE_CHECKING:
    from readtrack.tui.screens.library import LibraryScreen

_HINT = "enter goes to the paper, esc closes"


def copy_bibtex(screen: LibraryScreen) -> None:
    from readtrack.transfer.exporting import entry

    if (paper := _one_paper(screen, "copy the BibTeX entry of")) is not None:
        screen.app.copy_to_clipboard(entry(screen.readtrack_app.library, paper) + "\n")
        screen.notify_status(join("Copied the BibTeX of ", (paper.id, "$link")))


def copy_arxiv(screen: LibraryScreen) -> None:
    if (paper := _one_paper(screen, "copy its arXiv id")) is None:
        return
    if paper.arxiv_id:
        screen.app.copy_to_clipboard(paper.arxiv_id)
        screen.notify_status(join("Copied ", (paper.arxiv_id, "$link")))
    else:
        screen.notify_status(f"{paper.id} has no arXiv id. Press y to copy its link.")


def show_lineage(screen: LibraryScreen) -> None:
    from readtrack.tui.widgets.reading_pages import lineage

    if (paper := _one_paper(screen, "see its lineage")) is not None:
        build = partial(lineage, screen.readtrack_app.library, paper.id)
        screen.app.push_screen(Paged(f"{paper.id}: {paper.title}", build, _HINT), partial(_chosen, screen))


def show_statistics(screen: LibraryScreen) -> None:
    from readtrack.statistics import statistics
    from readtrack.tui.widgets import reading_pages

    app, library = screen.readtrack_app, screen.readtrack_app.library

    def count() -> None:
        build = partial(reading_pages.statistics, library, statistics(library))
        page = Paged("What you have read", build, _HINT)
        app.call_from_thread(app.push_screen, page, partial(_chosen, screen))

    app.in_background("count what you have read", count)  # pages of PDFs are counted, too


def _chosen(screen: LibraryScreen, paper: str | None) -> None:
    if paper is not None:
        screen.show_paper(paper)


def _one_paper(screen: LibraryScreen, doing: str) -> Paper | None:
    entry = screen.entry
    if entry is None or entry.paper is None:
        screen.notify_status(f"Choose one paper to {doing}.")
        return None
    return entry.paper
