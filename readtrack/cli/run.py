"""`readtrack run`: starts a run, follows its events, and ends with an exit code for scripts."""

from __future__ import annotations

import errno
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from readtrack.cli import terminal
from readtrack.cli.library import open_library
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.text import format_duration, one_line, plain

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from readtrack.cli.views import View
    from readtrack.library import Library
    from readtrack.runs.job import Job
    from readtrack.runs.launcher import Running
    from readtrack.runs.record import Record

_TICK = 0.1  # seconds
_LOG_LINES = 8
_LOG_COLUMNS = 160

app = typer.Typer(rich_markup_mode=None)


@app.command()
def run(
    context: typer.Context,
    paper: Annotated[str, typer.Argument(help="Id, alias, arXiv id or a part of the title.")],
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, xpu.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16, float64.")] = "auto",
    budget: Annotated[
        Literal["smoke", "quick", "full"],
        typer.Option(help="About a second, a minute, or several minutes."),
    ] = "quick",
    only: Annotated[
        Literal["experiment", "benchmark"] | None, typer.Option(help="Run only this half.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    broken: Annotated[
        str, typer.Option("--break", metavar="NAME", help="Leave out this ingredient of the idea.")
    ] = "",
    null: Annotated[bool, typer.Option("--null", help="Null run: use the control for every arm.")] = False,
    times: Annotated[
        int,
        typer.Option(min=1, help="Multiply the steps of claims that state a number of steps."),
    ] = 1,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Also measure the paper's variants with torch.compile.")
    ] = False,
    pairs: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Set an option of the plugin. Repeatable."),
    ] = None,
    data: Annotated[
        str, typer.Option("--data", metavar="NAME", help="Use this data set (see `readtrack data`).")
    ] = "",
    bet: Annotated[
        str, typer.Option("--bet", metavar="ARM:PERCENT", help="Bet on the arm that wins; 50 to 99 percent.")
    ] = "",
    place: Annotated[
        str, typer.Option("--on", metavar="PLACE", help="Run on another machine (see `readtrack places`).")
    ] = "",
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Stop the run after this many seconds.")
    ] = None,
    checkpoint: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Time between two checkpoints of a training loop.")
    ] = 60.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the newest stopped run, with its settings.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines; the last one is the result.")
    ] = False,
) -> None:
    """Run a paper: its experiment, claims and benchmark.

    Exit code 0 if the run completed, whatever its verdicts. Ctrl+C stops the run; repeat it to force the run
    to stop.
    """
    from readtrack.breaks import refuse_unknown
    from readtrack.runs import settings
    from readtrack.runs.job import new_job

    library = open_library()
    name = runnable(library, paper)
    if resume:
        follow_in_view(library, _resumed(library, name, context), as_json=as_json)
        return
    if broken:
        refuse_unknown(library, name, broken)
    job = new_job(
        name,
        device=device,
        dtype=dtype,
        budget=budget,
        only=only,
        seed=seed,
        broken=broken,
        null=null,
        times=times,
        compile=compiled,
        settings=settings.of_data(library.home, data) | settings.parse(pairs or []),
        timeout=timeout,
        place=place,
        checkpoint=checkpoint,
    )
    if not bet:
        follow_in_view(library, job, as_json=as_json)
        return
    from readtrack.cli import bets

    bets.place(library, job, bet)
    try:
        record, stopped_by = follow(library, job, view_of(as_json))
    except ReadtrackError:  # the run could not be started
        bets.withdraw(library, job.run_id)
        raise
    bets.settle(library, record)
    end(library, record, stopped_by)


def _resumed(library: Library, paper: str, context: typer.Context) -> Job:
    """The job that `--resume` continues. Raises ReadtrackError if an option is only valid for new runs."""
    from readtrack.plugins import prints
    from readtrack.runs.processes import reconcile
    from readtrack.runs.resuming import resumed

    for option in context.command.params:
        source = str(getattr(context.get_parameter_source(str(option.name)), "name", ""))
        free = option.name in ("paper", "timeout", "checkpoint", "resume", "as_json")
        if source == "COMMANDLINE" and not free:
            raise ReadtrackError(
                f"A resumed run keeps its settings: leave out {option.opts[0]}, or --resume."
            )
    reconcile(library.home)
    builds_on = {one.id: one.builds_on for one in library.catalog.papers.values()}
    job = resumed(library.home, paper, prints.of_paper(paper, library.runnable(), builds_on))
    given = {name: context.params[name] for name in ("timeout", "checkpoint")}
    terminal.print_err(f"readtrack: continuing {job.resumes} after {format_duration(job.spent)}")
    return replace(job, timeout=given["timeout"], checkpoint=given["checkpoint"])


def follow_in_view(library: Library, job: Job, *, as_json: bool = False) -> Record:
    """Start the run and show it until it ends. Exits with the matching code if the run did not complete."""
    record, stopped_by = follow(library, job, view_of(as_json))
    end(library, record, stopped_by)
    return record


def runnable(library: Library, query: str) -> str:
    """The name of the plugin for the requested paper."""
    plugins = library.runnable()
    if query in plugins:  # its paper need not be on the list
        return query
    paper = library.find(query).id
    if paper not in plugins:
        raise NotAvailableError(
            f"{paper!r} has no plugin yet. `readtrack plugins new {paper}` starts one; "
            "`readtrack list --runnable` lists papers that can be run."
        )
    return paper


def view_of(as_json: bool) -> View:
    if as_json:
        from readtrack.cli.views import JsonView

        return JsonView()
    if terminal.on_terminal():
        from readtrack.cli.live import LiveView

        return LiveView()
    from readtrack.cli.views import PlainView

    return PlainView()


class _HangUp(BaseException):
    """Raised when the terminal has been closed."""


@contextmanager
def _hang_up_raises() -> Iterator[None]:
    def receive(number: int, frame: FrameType | None) -> None:
        raise _HangUp

    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup, closing the terminal has no effect
        yield
        return
    before = signal.signal(signal.SIGHUP, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


class Signals:
    """Records received SIGINT and SIGTERM signals; the handler only counts."""

    def __init__(self) -> None:
        self.count = 0
        self.last: int | None = None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.last = number

    @contextmanager
    def received(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def follow(library: Library, job: Job, view: View) -> tuple[Record, int | None]:
    """Start the run and show it until it ends. Return its record, and the signal that stopped it or None.

    If the terminal is closed, the run continues, as it does in the app.
    """
    from readtrack.places.launch import start
    from readtrack.runs.events import EventReader
    from readtrack.runs.evidence import expected
    from readtrack.runs.record import Record

    signals = Signals()
    gone = False
    with signals.received(), _hang_up_raises():
        process = start(job, library)
        job = process.job
        record = Record.from_job(job, expected=expected(job, library.results(job.paper)))
        reader = EventReader(process.folder)
        handled, attempt, contact = 0, process.attempt, ""
        try:
            with view:
                outcome = None
                while outcome is None:
                    outcome = process.poll()  # before reading, so that the last events are not missed
                    if process.attempt > attempt:
                        terminal.print_err(
                            f"readtrack: the run was restarted on {job.place}: {process.folder}"
                        )
                        attempt = process.attempt
                        record = Record.from_job(job, expected=record.expected)
                        reader = EventReader(process.folder)
                    if process.contact != contact:
                        contact = process.contact
                        terminal.print_err(f"readtrack: {contact or f'{job.place} answers'}")
                    for event in reader.read_new() if outcome is None else reader.read_rest():
                        record.apply(event)
                        view.event(event, record)
                    while handled < signals.count:
                        handled += 1
                        if outcome is None:
                            view.stopping(process.cancel())
                    view.tick(record)
                    if outcome is None:
                        time.sleep(_TICK)
                view.end(record, None if _is_usage(record) else process.folder)
        except (_HangUp, OSError) as error:
            # A failed write may report the closed terminal before the signal arrives.
            gone = isinstance(error, _HangUp) or error.errno == errno.EIO
            if not gone:
                raise
            process.detach()
        finally:
            if not gone:
                _stop(process)
    if gone:
        raise typer.Exit(128 + signal.SIGHUP)
    return record, signals.last


def _stop(process: Running) -> None:
    """Stop the run if it cannot be shown, for instance because of a closed pipe."""
    if process.poll() is None:
        process.cancel()
        while process.poll() is None:
            time.sleep(_TICK)


def end(library: Library, record: Record, stopped_by: int | None) -> None:
    """Report problems of the run on stderr, and exit with the matching code."""
    if record.outcome == "completed":
        return
    folder = library.home.runs / record.run_id
    if record.error and _is_usage(record):
        shutil.rmtree(folder, ignore_errors=True)
        kind = NotAvailableError if record.error.get("exit_code") == 3 else ReadtrackError
        raise kind(one_line(str(record.error.get("message"))))
    if stopped_by is not None:
        terminal.print_err(f"readtrack: stopped before the end{_way_on(library, record)}")
        raise typer.Exit(128 + stopped_by)
    from readtrack.present.runs import cause

    terminal.print_err(f"readtrack: {cause(record)}")
    for line in _last_lines(folder):
        terminal.print_err(f"  | {terminal.clip(line, _LOG_COLUMNS)}")
    terminal.print_err(f"readtrack: the record is {folder}")
    raise typer.Exit(1)


def _way_on(library: Library, record: Record) -> str:
    """A sentence on how to continue a stopped run, "" without a checkpoint."""
    from readtrack.runs import checkpoints

    first = record.job.resumes or record.run_id if record.job is not None else record.run_id
    kept = any(checkpoints.folder(library.home, first).glob("*.pt"))
    return f". `readtrack run {record.paper} --resume` continues it" if kept else ""


def _is_usage(record: Record) -> bool:
    """Whether the request was wrong: an unknown device, or an invalid --set."""
    return record.error is not None and record.error.get("kind") == "usage"


def _last_lines(folder: Path) -> list[str]:
    """The last lines of the run's log. For a crash, the first lines, because they contain the plugin's own
    frames.
    """
    from readtrack.runs import log

    lines = [line.rstrip() for line in plain(log.tail(folder, 16 * 1024)).splitlines() if line.strip()]
    crash = next((i for i, line in enumerate(lines) if line.startswith("Current thread ")), None)
    return lines[-_LOG_LINES:] if crash is None else lines[crash : crash + _LOG_LINES]
