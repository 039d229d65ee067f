"""`readtrack sync`, `attach`, `open` and `add`: fetch papers, attach PDFs and put papers on the list."""

from __future__ import annotations

import queue
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from readtrack.cli import terminal
from readtrack.cli.library import open_library
from readtrack.errors import NotAvailableError

if TYPE_CHECKING:
    from types import FrameType

    from readtrack.cli.sync_views import SyncView
    from readtrack.sync.engine import Sync
    from readtrack.sync.report import SyncProgress, SyncSummary

_TICK = 0.1  # seconds
_PATIENCE, _LONG_PATIENCE = 120.0, 900.0  # seconds

app = typer.Typer(rich_markup_mode=None)

_Paper = Annotated[str, typer.Argument(help="Id, alias, arXiv id or a part of the title.")]

_SYNC_EPILOG = """\b
Exit codes:
  0    everything available was fetched (web-only papers are not errors)
  1    some papers failed; each is listed with the reason
  2    wrong usage or input, or the folder is not writable
  3    not now: offline, another sync is running, or arXiv asked to wait or denied access. Run the same
       command later to continue
  130  cancelled with Ctrl+C; files already fetched are kept

READTRACK_ARXIV_API and READTRACK_ARXIV_PDF set mirrors; READTRACK_CONTACT adds an address to the user
agent. Proxies and CA bundles come from HTTPS_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE.
"""


@app.command(epilog=_SYNC_EPILOG)
def sync(
    papers: Annotated[
        list[str] | None,
        typer.Argument(help="Papers to fetch. Default: all on your list.", show_default=False),
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf/--no-pdf", help="Fetch PDFs too.")] = True,
    refresh: Annotated[bool, typer.Option("--refresh", help="Fetch all abstracts again.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every PDF and replace damaged ones.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait up to 15 minutes instead of 2 if a server asks to.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines; the last one is the summary.")
    ] = False,
) -> None:
    """Fetch missing abstracts and PDFs, one request every three seconds.

    Only new papers and abstracts older than a month are requested; a pinned version never changes. A PDF
    appears in the library once it is complete, and never replaces one that you attached or changed.
    """
    from readtrack.sync.engine import Sync

    library = open_library()
    ids = [library.find(query).id for query in papers] if papers else None
    events: queue.SimpleQueue[SyncProgress] = queue.SimpleQueue()
    cancel = threading.Event()
    job = Sync(
        library,
        ids,
        pdf=pdf,
        refresh=refresh,
        verify=verify,
        patience=_LONG_PATIENCE if wait else _PATIENCE,
        report=events.put,
        cancel=cancel,
    )
    with _cancelling(cancel) as received:
        summary = _follow(job, events, cancel, _view(as_json))
    code = summary.exit_code
    raise typer.Exit(128 + received[-1] if code == 130 and received else code)


def _view(as_json: bool) -> SyncView:
    if terminal.on_terminal() and not as_json:
        from readtrack.cli.sync_live import LiveSyncView

        return LiveSyncView()
    from readtrack.cli.sync_views import JsonSyncView, PlainSyncView

    return JsonSyncView() if as_json else PlainSyncView()


@contextmanager
def _cancelling(cancel: threading.Event) -> Iterator[list[int]]:
    """Within this context, SIGINT and SIGTERM set `cancel`. Yields the list of received signals."""
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        cancel.set()

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow(
    job: Sync, events: queue.SimpleQueue[SyncProgress], cancel: threading.Event, view: SyncView
) -> SyncSummary:
    """Run the sync in a thread and show its progress. Raises the exceptions of the thread."""
    outcome: list[SyncSummary | BaseException] = []

    def run() -> None:
        try:
            outcome.append(job.run())
        except BaseException as error:  # raised again below, in the main thread
            outcome.append(error)

    thread = threading.Thread(target=run, name="readtrack-sync")
    thread.start()
    try:
        with view:
            while thread.is_alive() or not events.empty():
                with suppress(queue.Empty):
                    view.event(events.get(timeout=_TICK))
                if events.empty():
                    view.tick(stopping=cancel.is_set())
            (result,) = outcome
            if isinstance(result, BaseException):
                raise result
            view.end(result)
    finally:
        # The view may have failed, for instance because of a closed pipe.
        cancel.set()
        thread.join()
    return result


@app.command()
def attach(
    paper: _Paper,
    file: Annotated[Path, typer.Argument(help="The PDF to attach.", show_default=False)],
) -> None:
    """Attach a PDF that you downloaded. A sync never replaces it."""
    from readtrack.sync.files import attach as attach_pdf

    library = open_library()
    found = library.find(paper)
    path, kept = attach_pdf(library.home, found.id, file)
    if kept is not None:
        terminal.print_err(f"the previous PDF is now {kept}")
    terminal.print_out(f"{found.id}: {path}")


@app.command("open")
def open_paper(paper: _Paper) -> None:
    """Open a paper's PDF in the system's viewer.

    In a pipe, print its path. If the PDF has not been fetched, print the paper's link.
    """
    from readtrack.system import open_with_system

    library = open_library()
    found = library.find(paper)
    path = library.pdf(found.id)
    if path is None and not library.link(found):
        raise NotAvailableError(
            f"{found.id} has no link and no PDF. `readtrack attach {found.id} FILE` attaches a PDF."
        )
    if path is None:
        if found.pdf_sources:
            terminal.print_err(
                f"readtrack: the PDF has not been fetched. `readtrack sync {found.id}` fetches it."
            )
        terminal.print_out(library.link(found))
    elif sys.stdout.isatty() and open_with_system(path):
        terminal.print_err(f"opening {path}")
    else:
        terminal.print_out(str(path))


@app.command()
def add(
    what: Annotated[
        str,
        typer.Argument(
            metavar="PAPER",
            help='Shipped paper, title, arXiv id, DOI, or a title and a link: "Title https://...".',
        ),
    ],
    title: Annotated[str | None, typer.Option(help="The title.")] = None,
    author: Annotated[list[str] | None, typer.Option(help="An author; repeatable.")] = None,
    year: Annotated[int | None, typer.Option(min=1800, max=2099, help="Year of first publication.")] = None,
    paper_id: Annotated[
        str | None, typer.Option("--id", help="Its id on the list. Default: made from the title.")
    ] = None,
    section: Annotated[
        str | None, typer.Option(help='The section for its row. Default: "Added", at the end.')
    ] = None,
) -> None:
    """Put a paper on your list without changing its other rows.

    A paper that ships with readtrack needs no network. The facts of other papers are fetched, unless you give
    --title, --author and --year. Offline, the paper is added without facts, and the next sync fills them in.

    Exit code 3 if the paper is already on the list, or if arXiv or the DOI registry does not know it.
    """
    from readtrack.sync.add import add as add_paper
    from readtrack.transfer import list_history

    library = open_library()
    with list_history.recorded(library, f"{what} added to your list"):
        added = add_paper(
            library,
            what,
            title=title,
            authors=author or (),
            year=year,
            paper_id=paper_id,
            section=section,
            notice=lambda text: terminal.print_err(f"readtrack: {text}"),
        )
    if added.linked:
        terminal.print_err(f"the paper was already on your list; its new link is {added.linked}")
    if added.copied:
        terminal.print_err(f"your list is now a copy of the one shown: {added.path}")
    if added.unasked:
        terminal.print_err(
            f"readtrack: {added.unasked.rstrip('.')}. Missing: {', '.join(added.missing)}. "
            f"`readtrack sync {added.paper}` fills them in."
        )
    elif added.missing:
        terminal.print_err(f"No {' or '.join(added.missing)} given; add them at {added.path}:{added.line}.")
    terminal.print_out(f"{added.paper}: {added.title} ({added.path}:{added.line})")
    if added.fetched and not added.unasked:
        terminal.print_err(f"`readtrack sync {added.paper}` fetches {added.fetched}")
