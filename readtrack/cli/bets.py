"""`readtrack bets`, and the bets placed with `readtrack run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from readtrack import bets
from readtrack.cli import terminal
from readtrack.cli.library import open_library
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.present import bets as present

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.runs.job import Job
    from readtrack.runs.record import Record

_STYLES: dict[str, terminal.Style] = {"good": "green", "bad": "red", "quiet": "dim", "heading": "bold"}

app = typer.Typer(rich_markup_mode=None)


@app.command("bets")
def list_bets(
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Take back the newest bet whose run has not ended.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show your bets and how well they are calibrated.

    `readtrack run PAPER --bet ARM:PERCENT` places one before a run. A bet counts once its run has judged the
    paper's headline claim.
    """
    library = open_library()
    book = bets.BetBook(library.home)
    bets.settle_all(library)
    found = book.bets()
    if withdraw:
        last = next((one for one in reversed(found) if one.open), None)
        if last is None:
            raise NotAvailableError("there is no open bet to withdraw.")
        terminal.print_out(present.withdrawn(book.withdraw(last.run_id)))
        return
    if as_json:
        terminal.print_json(present.document(found))
        return
    if not found:
        raise NotAvailableError("there are no bets yet. `readtrack run PAPER --bet ARM:80` places one.")
    for one in found:
        terminal.print_out(f"{one.at[:10]}  {one.paper}  {present.placed(one)}  {present.state(one)}")
    terminal.print_out()
    show_calibration(found)


def show_calibration(found: list[bets.Bet]) -> None:
    for line in present.page(found, terminal.width() or 80):
        style = _STYLES.get(line.tone)
        indent = len(line.text) - len(line.text.lstrip())
        room = None if (columns := terminal.width()) is None else columns - indent
        for text in terminal.wrap(line.text[indent:], room):
            told = " " * indent + text
            terminal.print_out(terminal.paint(told, style) if style else told)


def place(library: Library, job: Job, words: str) -> None:
    """Record the bet. Raises ReadtrackError if `words` is not a bet or the paper has no claim to bet on."""
    from readtrack.plugins.check import examine

    bets.refuse_unjudged(job)
    claims = bets.known_claims(library, job.paper)
    if not claims:
        inspection = examine(job.paper, library.home)
        if inspection.reason:
            raise ReadtrackError(f"could not read the claims of {job.paper}: {inspection.reason}.")
        claims = inspection.claims
    on = bets.stake(claims)
    if on is None:
        raise NotAvailableError(present.nothing(job.paper))
    arm, sure = bets.parse(words, on)
    book = bets.BetBook(library.home)
    terminal.print_err(present.placed(book.place(library, job, on, arm, sure)))
    for line in terminal.paragraphs(f"{on.ours} wins if {present.options(on)[0][1]}"):
        terminal.print_err(line)


def withdraw(library: Library, run_id: str) -> None:
    bets.BetBook(library.home).withdraw(run_id)


def settle(library: Library, record: Record) -> None:
    """Compare the bet on this run with its verdict, and print the outcome."""
    for bet in bets.BetBook(library.home).settle([record.summary()]):
        terminal.print_err(present.decided(bet).text)
