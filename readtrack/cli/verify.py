"""`readtrack verify`: run papers on several seeds and judge their claims over all of them."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from readtrack.cli import report, terminal
from readtrack.cli.library import open_library
from readtrack.cli.running import Signals, runnable
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.text import duration, one_line

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.runs.record import Record
    from readtrack.runs.verify import News, Verification
    from readtrack.verdicts import Judged

_TICK = 0.1  # seconds
_OUTPUT = Path("docs/verdicts.md")
# Where this machine keeps a file is not for a page that others read; a link is left alone.
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/:'\"]+/)+")

app = typer.Typer(rich_markup_mode=None)


@app.command()
def verify(
    papers: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PAPER]...", help="Default: every paper that can run.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many; more where a claim asks for more.")] = 3,
    first_seed: Annotated[
        int, typer.Option(min=0, help="They count up from here. Tune with other seeds.")
    ] = 100,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, xpu.")] = "auto",
    budget: Annotated[
        Literal["quick", "full"], typer.Option(help="A minute a run, or as long as it takes.")
    ] = "quick",
    fresh: Annotated[bool, typer.Option("--fresh", help="Take no result of an earlier run.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write the table there. Default: docs/verdicts.md; no file when papers are named.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Judge the claims of papers over several seeds, and write the table of verdicts.

    Exit code 0 if every run completed, whatever the verdicts. Ctrl+C stops the runs; the finished ones are
    kept, and the same command goes on from there. A run is made again when the paper's code, or that of a
    paper that it builds on, has changed since; after other changes, say --fresh.
    """
    from readtrack.runs.record import reconcile
    from readtrack.runs.verify import Verification, earlier_runs, last_change

    library = open_library()
    names = _names(library, papers or [])
    output = output or (None if papers else _OUTPUT)
    if output is not None:
        _check_output(output)
    reconcile(library.home)
    plugins = library.runnable()
    builds_on = {paper.id: paper.builds_on for paper in library.catalog.papers.values()}
    changed = {name: last_change(name, plugins, builds_on) for name in names}
    verification = Verification(
        library.home,
        names,
        seeds=seeds,
        first_seed=first_seed,
        jobs=jobs,
        device=device,
        budget=budget,
        earlier={}
        if fresh
        else earlier_runs(library.home, changed, first_seed=first_seed, device=device, budget=budget),
    )
    stopped_by = _follow(verification)
    if stopped_by is not None:
        terminal.tell("readtrack: stopped; the runs that completed are kept, the same command goes on")
        raise typer.Exit(128 + stopped_by)
    _conclude(verification.records, budget, output)


def _names(library: Library, queries: list[str]) -> list[str]:
    """The plugins to run, in the order of the list; all there are if none is asked for."""
    plugins = library.runnable()
    wanted = {runnable(library, query) for query in queries} or set(plugins)
    if not wanted:
        raise NotAvailableError("no paper can run yet. `readtrack plugins new PAPER` starts a plugin.")
    return [name for name in dict.fromkeys([*library.catalog.papers, *plugins]) if name in wanted]


def _check_output(output: Path) -> None:
    """Before the hours of work, not after them."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReadtrackError(f"--output {output}: {error.strerror}.") from error
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        raise ReadtrackError(f"--output {output}: is a folder, or lies in one that cannot be written to.")


def _follow(verification: Verification) -> int | None:
    """Make all the runs; the signal that stopped them, if one did."""
    signals = Signals()
    handled = 0
    with signals.received():
        try:
            while not verification.done:
                for news in verification.step():
                    _tell(news)
                while handled < signals.count:
                    handled += 1
                    if rung := verification.cancel():
                        terminal.tell(f"readtrack: stopping ({rung})")
                if not verification.done:
                    time.sleep(_TICK)
        finally:
            _stop(verification)
    return signals.last


def _stop(verification: Verification) -> None:
    """Leave no run behind, whatever ended the loop."""
    verification.cancel()
    while not verification.done:
        verification.step()
        time.sleep(_TICK)


def _tell(news: News) -> None:
    record = news.record
    head = f"{news.task.paper}, seed {news.task.seed}"
    if news.what == "started":
        terminal.tell(f"verify  {head}: started")
        return
    error = record.error
    if error and error.get("kind") == "usage" and error.get("phase") == "import":
        # No such device: it would be the same with every other run.
        raise ReadtrackError(one_line(str(error.get("message"))))
    said = f"completed in {duration(record.duration)}"
    if record.outcome != "completed":
        said = f"{report.cause(record)}; {record.run_id}"
    elif news.what == "taken":
        said = f"taken from {record.run_id}"
    terminal.tell(f"verify  {head}: {said} ({news.ended}/{news.total})")


def _conclude(records: dict[str, dict[int, Record]], budget: str, output: Path | None) -> None:
    """Judge, write, print; exit with 1 if a run did not complete."""
    from readtrack.home import write_text
    from readtrack.verdicts import judge, markdown, tally

    judged: list[Judged] = []
    remarks: list[tuple[str, str]] = []
    for paper, runs in records.items():
        ordered = sorted(runs.items())
        failed = [(seed, run) for seed, run in ordered if run.outcome != "completed"]
        of_paper = judge(
            paper, {seed: run.claims if run.outcome == "completed" else None for seed, run in ordered}
        )
        judged += of_paper
        remarks += [(paper, f"seed {seed}: {report.cause(run)}") for seed, run in failed]
        if not of_paper and not failed:
            remarks.append((paper, "states no claim"))
    everything = [run for runs in records.values() for run in runs.values()]
    if output is not None:
        try:
            page = [(paper, _FOLDERS.sub("", text)) for paper, text in remarks]
            write_text(output, markdown(judged, facts=_facts(everything, budget), remarks=page))
        except OSError as error:
            raise ReadtrackError(f"Could not write {output}: {error.strerror}.") from error
    for one in judged:
        mark = terminal.paint(f"{one.verdict:<14}", report.VERDICT_STYLE[one.verdict])
        terminal.say(f"{mark}  {one_line(f'{one.paper}: {one.claim.name}: {one.why or one.ours}')}")
    for paper, text in remarks:
        terminal.say(f"{'-':<14}  {one_line(f'{paper}: {text}')}")
    if output is not None:
        terminal.tell(f"readtrack: {tally(judged) or 'no claims'}; the table is {output}")
    if any(run.outcome != "completed" for run in everything):
        raise typer.Exit(1)


def _facts(runs: list[Record], budget: str) -> list[tuple[str, str]]:
    """What the runs were made with. Where they differ, all that there was."""
    days = sorted(run.started[:10] for run in runs if run.started)
    machines, devices, versions = [], [], []
    for run in runs:
        facts = run.environment
        if "device" in facts:  # it got so far
            machines.append(f"{facts.get('cpu')}, {facts.get('cores')} cores, {facts.get('os')}")
            devices.append(report.environment(facts))
        versions.append(f"readtrack {facts.get('readtrack')}, Python {facts.get('python')}")
    return [
        ("machine", "; ".join(dict.fromkeys(machines))),
        ("device", "; ".join(dict.fromkeys(devices))),
        ("software", "; ".join(dict.fromkeys(versions))),
        ("budget", budget),
        ("date", " to ".join(dict.fromkeys([days[0], days[-1]])) if days else ""),
    ]
