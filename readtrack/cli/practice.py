"""`readtrack practice`: lets the reader write parts of a paper and compares them with the paper's code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from readtrack import signs
from readtrack.cli import terminal
from readtrack.cli.library import open_library
from readtrack.cli.practice_steps import (
    STYLES,
    edit,
    judge,
    offer_implemented,
    prove,
    show,
    show_solution,
)
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.present import practice as present

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.practice.desk import Desk
    from readtrack.practice.sheet import Sheet

app = typer.Typer(rich_markup_mode=None)


@app.command()
def practice(
    paper: Annotated[
        str, typer.Argument(help="Id, alias, arXiv id or a part of the title.", show_default=False)
    ],
    exercise: Annotated[
        str, typer.Argument(help="One exercise, by name or number.", show_default=False)
    ] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Compare what you wrote with the paper's code.")
    ] = False,
    prove_: Annotated[
        bool,
        typer.Option("--prove", help="Check all, then run the benchmark and test the claims with your code."),
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Check whenever you save, until q.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the exercises and your progress.")] = False,
    hint: Annotated[bool, typer.Option("--hint", help="Show the next hint.")] = False,
    solution: Annotated[
        bool, typer.Option("--solution", help="Show how the paper's code differs from yours.")
    ] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Replace your version of an exercise with the empty one.")
    ] = False,
    skip: Annotated[bool, typer.Option("--skip", help="Leave an exercise out.")] = False,
) -> None:
    """Write parts of a paper yourself, and compare them with its code.

    Without an option, open your file READTRACK_HOME/practice/ID.py at the next exercise. Exit code 1 if an
    exercise does not pass --check or --prove.
    """
    if sum((check, prove_, watch, list_, hint, solution, reset, skip)) > 1:
        raise ReadtrackError("these options exclude each other. See `readtrack practice --help`.")
    library = open_library()
    desk = open_desk(library, paper)
    if list_:
        _list(desk)
    elif hint:
        _hint(desk, _one(desk, exercise))
    elif solution:
        _solution(desk, _one(desk, exercise))
    elif reset:
        _reset(desk, _named(desk, exercise))
    elif skip:
        _skip(desk, _one(desk, exercise))
    elif check:
        _check(library, desk, exercise)
    elif prove_:
        _prove(library, desk, exercise)
    elif watch:
        from readtrack.cli.watching import Watch

        if exercise:
            desk.choose(exercise)
        Watch(library, desk).run()
    else:
        _open(desk, exercise)


def open_desk(library: Library, query: str) -> Desk:
    """Open the reader's exercises of a paper. Raises NotAvailableError if it has no plugin or no
    exercises.
    """
    from readtrack.cli.run import runnable
    from readtrack.practice.desk import Desk

    name = runnable(library, query)
    known = library.catalog.papers.get(name)
    return Desk(library.home, library.runnable()[name], known.title if known else name)


def _one(desk: Desk, name: str) -> Sheet:
    """The named exercise, or the next one."""
    if name:
        return desk.choose(name)
    sheet = desk.current()
    if sheet is None:
        raise NotAvailableError(f"all exercises of {desk.paper} are done or skipped. Name one.")
    return sheet


def _named(desk: Desk, name: str) -> Sheet:
    if not name:
        raise ReadtrackError(f"name the exercise: {', '.join(desk.names)}. See `readtrack practice --help`.")
    if not desk.file.exists():
        raise NotAvailableError(f"there is no {desk.file} yet. `readtrack practice {desk.paper}` writes it.")
    return desk.choose(name)


def _open(desk: Desk, name: str) -> None:
    from readtrack.practice.desk import Desk

    assert isinstance(desk, Desk)
    sheet = desk.choose(name) if name else desk.current()
    new = desk.write()
    if sheet is not None:
        desk.diary.add(desk.paper, sheet.name, "opened")
        number = desk.names.index(sheet.name) + 1
        for line in terminal.paragraphs(f"{number} {sheet.name}: {sheet.task}"):
            terminal.print_err(line)
    if new:
        terminal.print_err(f"written: {desk.file}")
    if sys.stdin.isatty() and sys.stdout.isatty():
        edit(desk, sheet)
    else:
        terminal.print_out(str(desk.file))
    terminal.print_err(f"Check it:  readtrack practice {desk.paper} --check")


def _list(desk: Desk) -> None:
    found = desk.standings()
    current, total = desk.current(), terminal.width()
    width = max(map(len, desk.names))
    for number, sheet in enumerate(desk.sheets, start=1):
        here = signs.CURRENT if current is not None and sheet.name == current.name else " "
        shown = present.mark(found[sheet.name])
        head = f"{here} {shown.sign} {number} {sheet.name:<{width}}  "
        told = present.facts(found[sheet.name]) or sheet.task
        for text in terminal.wrap(told, total and total - len(head)):
            terminal.print_out(terminal.paint(head + text, STYLES[shown.tone]))
            head = " " * len(head)
    if desk.file.exists():
        terminal.print_err(str(desk.file))


def _hint(desk: Desk, sheet: Sheet) -> None:
    text = desk.hint(sheet)
    if not text:
        raise NotAvailableError(f"{sheet.name} has no hints.")
    opened, total = desk.standings()[sheet.name].hints, len(sheet.hints)
    more = "" if opened < total else ", the last: --solution shows the paper's code"
    terminal.print_err(f"{sheet.name}, hint {opened} of {total}{more}")
    for line in terminal.paragraphs(text):
        terminal.print_out(line)


def _solution(desk: Desk, sheet: Sheet) -> None:
    if not typer.confirm(present.ask_solution(sheet), err=True):
        raise typer.Exit(3)
    show_solution(desk, sheet)


def _reset(desk: Desk, sheet: Sheet) -> None:
    kept = desk.reset(sheet)
    terminal.print_out(present.was_reset(sheet, kept))


def _skip(desk: Desk, sheet: Sheet) -> None:
    desk.skip(sheet)
    following = desk.current()
    then = f" Next: {following.name}." if following is not None else ""
    told = f"{sheet.name} is skipped. `readtrack practice {desk.paper} '{sheet.name}'` resumes it.{then}"
    for line in terminal.paragraphs(told):
        terminal.print_out(line)


def _check(library: Library, desk: Desk, name: str) -> None:
    """Check the exercises. If all pass, suggest the run with the reader's code, which takes a minute."""
    from readtrack.practising import to_judge

    _judged(library, desk, [desk.choose(name).name] if name else to_judge(desk))
    if not desk.all_done:
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        terminal.print_err(f"Speed and claims with your code:  readtrack practice {desk.paper} --prove")
    elif typer.confirm(present.ASK_PROOF, err=True):
        prove(library, desk)
        offer_implemented(library, desk)


def _prove(library: Library, desk: Desk, name: str) -> None:
    from readtrack.practising import to_judge

    if name:
        raise ReadtrackError("--prove takes all exercises of a paper, not one.")
    _judged(library, desk, to_judge(desk))
    prove(library, desk)
    offer_implemented(library, desk)


def _judged(library: Library, desk: Desk, names: list[str]) -> None:
    """Check the exercises and print the results. Exits with code 1 if one does not pass."""
    if not desk.file.exists():
        raise NotAvailableError(f"there is no {desk.file} yet. `readtrack practice {desk.paper}` writes it.")
    if not names:
        raise NotAvailableError(f"all exercises of {desk.paper} are skipped. Name one.")
    if not show(desk, judge(library, desk, names)):
        raise typer.Exit(1)
