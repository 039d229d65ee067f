"""`readtrack verify`: runs papers on seeds derived from their rules, and judges their claims."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from readtrack.cli import terminal
from readtrack.cli.library import open_library
from readtrack.cli.run import Signals, runnable
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.present.runs import cause, environment
from readtrack.text import counted, format_duration, one_line

if TYPE_CHECKING:
    from types import FrameType

    from readtrack.claims import Claim
    from readtrack.library import Library
    from readtrack.runs.record import Record
    from readtrack.runs.verify import Verification, VerifyEvent
    from readtrack.verdict_table import VerdictRow, VerdictTable
    from readtrack.verdicts import Judged, Verdict

_TICK = 0.1  # seconds
# Local paths do not belong on a public page. Links are kept.
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/:'\"]+/)+")

app = typer.Typer(rich_markup_mode=None)


@app.command()
def verify(
    papers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PAPER]...", help="Papers to test. Default: all that can run.", show_default=False
        ),
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", help="Also make null runs, in which every arm is the control.")
    ] = False,
    breaks: Annotated[
        bool, typer.Option("--breaks", help="Also run each paper with the breaks of the claims that stand.")
    ] = False,
    audit: Annotated[
        bool, typer.Option("--audit", help="Use seeds drawn from the clock, recorded in audits.jsonl.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of parallel runs. Default: one per core; 1 with --on or a named GPU.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, xpu.")] = "auto",
    budget: Annotated[
        Literal["quick", "full"], typer.Option(help="About a minute per run, or several minutes.")
    ] = "quick",
    data: Annotated[
        str, typer.Option("--data", metavar="NAME", help="Use this data set (see `readtrack data`).")
    ] = "",
    place: Annotated[
        str, typer.Option("--on", metavar="PLACE", help="Run on another machine (see `readtrack places`).")
    ] = "",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ignore cached results and run everything again.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write the documents into this folder; other papers' rows are kept.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Test the claims of papers over several seeds.

    Each paper runs with 5 seeds. Undecided claims are tested with 10, then 20 seeds.

    Exit code 0 if every run completed, whatever the verdicts. Ctrl+C stops the runs; completed runs are kept,
    and the same command continues from there. A run is repeated if the code of the paper, or of a paper it
    builds on, has changed (comments and docstrings excepted). A benchmark is repeated if a claim about time
    could not be judged because other programs used the machine. After other changes, use --fresh.
    """
    from readtrack.places.launch import start
    from readtrack.plugins.code import digest
    from readtrack.plugins.edits import of_paper, summary
    from readtrack.runs.processes import reconcile
    from readtrack.runs.settings import of_data
    from readtrack.runs.verify import Verification, earlier_runs

    library = open_library()
    settings = of_data(library.home, data)
    names = _names(library, papers or [])
    jobs = jobs or _default_jobs(device, place)
    earlier = None if output is None else _earlier_table(output)
    if earlier is not None:
        _refuse_to_mix(earlier, output, budget, data)
    reconcile(library.home)
    claims = _claims(library, names, jobs)
    plugins = library.runnable()
    builds_on = {paper.id: paper.builds_on for paper in library.catalog.papers.values()}
    code = {name: digest(name, plugins, builds_on) for name in names}
    edited = {name: told for name in names if (told := summary(name, of_paper(name, plugins, builds_on)))}
    _warn_of_edits(edited, output)
    seeds = _audit_seeds() if audit else None
    verification = Verification(
        claims,
        null=null,
        breaks=breaks,
        seeds=seeds,
        jobs=jobs,
        device=device,
        budget=budget,
        earlier={}
        if fresh
        else earlier_runs(
            library.home, code, edited, device=device, budget=budget, place=place, settings=settings
        ),
        code=code,
        place=place,
        settings=settings,
        start=lambda job: start(job, library),
    )
    with _unless_hung_up():
        stopped_by = _follow(verification)
    if stopped_by is not None:
        terminal.print_err("readtrack: stopped. Completed runs are kept; the same command continues")
        raise typer.Exit(128 + stopped_by)
    _conclude(library, verification, claims, {"budget": budget, "data": data}, output, earlier, seeds)


def _refuse_to_mix(earlier: VerdictTable, output: Path | None, budget: str, data: str) -> None:
    """Raise ReadtrackError if the folder holds verdicts of another budget or data set."""
    for paper, facts in earlier.facts.items():
        other = facts.get("budget", "quick"), facts.get("data", "")
        if other != (budget, data):
            made = f"with budget {other[0]}" + (f" on {other[1]}" if other[1] else "")
            raise ReadtrackError(
                f"{output} holds verdicts that were reached {made} ({paper}). Choose another folder."
            )


def _default_jobs(device: str, place: str) -> int:
    """The number of parallel runs: one per core, as each run has one thread; 1 on a GPU or another
    machine.
    """
    from readtrack.devices import physical_cores

    return physical_cores() if device in ("auto", "cpu") and not place else 1


def _warn_of_edits(edited: Mapping[str, str], output: Path | None) -> None:
    """Warn about edited code. Raises ReadtrackError if its verdicts would be written into the shipped
    table.
    """
    for name, told in edited.items():
        terminal.print_err(f"readtrack: {name} runs your edited code ({told})")
    if edited and output is not None:
        raise ReadtrackError(
            "the table is about the shipped papers. Leave out --output, or revert your edits: "
            f"{', '.join(f'`readtrack plugins revert {name}`' for name in edited)}."
        )


@contextmanager
def _unless_hung_up() -> Iterator[None]:
    """Within this context, runs and judging continue without output if the terminal is closed."""

    def gone(number: int, frame: FrameType | None) -> None:
        _silence()

    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGHUP, gone)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _silence() -> None:
    """Drop terminal output; files are still written."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):
            os.dup2(null, descriptor)
    os.close(null)


def _claims(library: Library, names: list[str], jobs: int) -> dict[str, Sequence[Claim]]:
    """Read the claims of each paper in a child process. Raises ReadtrackError if a plugin is broken."""

    from readtrack.plugins.check import examine

    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(lambda name: examine(name, library.home, timeout=120), names))
    for name, one in zip(names, found, strict=True):
        if one.reason is not None:
            raise ReadtrackError(f"{name}: {one.reason}")
    return {name: one.claims for name, one in zip(names, found, strict=True)}


def _audit_seeds() -> list[int]:
    """Random seeds, enough for all looks."""
    from readtrack.procedure import MOST_SEEDS

    start = time.time_ns() // 1_000_000 % 10**12
    return [start + index for index in range(MOST_SEEDS)]


def _names(library: Library, queries: list[str]) -> list[str]:
    """The plugins to run, in the order of the list; all plugins if none is requested."""
    plugins = library.runnable()
    wanted = {runnable(library, query) for query in queries} or set(plugins)
    if not wanted:
        raise NotAvailableError("no paper has a plugin yet. `readtrack plugins new PAPER` starts one.")
    return [name for name in dict.fromkeys([*library.catalog.papers, *plugins]) if name in wanted]


def _earlier_table(output: Path) -> VerdictTable | None:
    """Read the table in `output`. Raises ReadtrackError now if it is unusable, before hours of work."""
    from readtrack.verdict_table import VerdictTable

    try:
        (output / "verdicts").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReadtrackError(f"--output {output}: {error.strerror}. Name a folder.") from error
    if not os.access(output, os.W_OK):
        raise ReadtrackError(f"--output {output}: the folder is not writable.")
    file = output / "verdicts.json"
    try:
        return VerdictTable.from_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ReadtrackError(
            f"--output {output}: {file} is not a readable table of verdicts "
            f"({one_line(str(error))}). Delete it, or name another folder."
        ) from error


def _follow(verification: Verification) -> int | None:
    """Make all the runs. Return the signal that stopped them, or None."""
    signals = Signals()
    handled = 0
    with signals.received():
        try:
            while not verification.done:
                for event in verification.step():
                    try:
                        _tell(event)
                    except OSError as error:
                        if error.errno != errno.EIO:
                            raise
                        _silence()  # the write failed before the signal arrived
                while handled < signals.count:
                    handled += 1
                    if stop_level := verification.cancel():
                        terminal.print_err(f"readtrack: stopping ({stop_level})")
                if not verification.done:
                    time.sleep(_TICK)
        finally:
            _stop(verification)
    return signals.last


def _stop(verification: Verification) -> None:
    """Stop all runs that are still alive, however the loop ended."""
    verification.cancel()
    while not verification.done:
        verification.step()
        time.sleep(_TICK)


def _tell(event: VerifyEvent) -> None:
    record = event.record
    condition = f", {event.task.condition}" if str(event.task.condition) else ""
    head = f"{event.task.paper}{condition}, seed {event.task.seed}"
    if event.kind == "started":
        terminal.print_err(f"verify  {head}: started")
        return
    error = record.error
    if error and error.get("kind") == "usage" and error.get("phase") == "import":
        # No such device: every other run would fail in the same way.
        raise ReadtrackError(one_line(str(error.get("message"))))
    said = f"completed in {format_duration(record.duration)}"
    if record.outcome != "completed":
        said = f"{cause(record)}; {record.run_id}"
    elif event.kind == "reused":
        said = f"taken from {record.run_id}"
    terminal.print_err(f"verify  {head}: {said} ({event.ended}/{event.total})")


def _conclude(
    library: Library,
    verification: Verification,
    claims: dict[str, Sequence[Claim]],
    made: Mapping[str, str],
    output: Path | None,
    earlier: VerdictTable | None,
    audited: list[int] | None,
) -> None:
    """Judge the claims, write the table and print it. Exits with code 1 if a run did not complete."""
    from readtrack.home import write_text
    from readtrack.runs.verify import PLAIN
    from readtrack.verdict_pages import documents
    from readtrack.verdict_table import VerdictTable

    rows = [row for paper, stated in claims.items() for row in _rows(verification, paper, stated)]
    of_paper = {paper: list(verification.records(paper, PLAIN).values()) for paper in claims}
    everything = [run for runs in of_paper.values() for run in runs]
    remarks = [
        (run.paper, f"seed {run.job.seed if run.job else ''}: {cause(run)}")
        for run in everything
        if run.outcome != "completed"
    ]
    remarks += [(paper, "states no claim") for paper, stated in claims.items() if not stated]
    if output is not None:
        table = VerdictTable(
            rows,
            {paper: _facts(runs, made) for paper, runs in of_paper.items()},
            [(paper, _FOLDERS.sub("", text)) for paper, text in remarks],
        )
        if earlier is not None:
            table = table.joined(earlier, _names(library, []))
        try:
            for name, text in documents(table).items():
                write_text(output / name, text)
        except OSError as error:
            raise ReadtrackError(f"Could not write {output}: {error.strerror}.") from error
    if made["data"]:
        terminal.print_out(f"Data set: {made['data']}. Published verdicts are on the papers' default data.")
    _print(rows, remarks)
    if output is not None:
        kept = len(table.facts) - len(claims)
        others = f"; the rows of {counted(kept, 'other paper')} were kept" if kept else ""
        terminal.print_err(f"readtrack: the table is {output / 'verdicts.md'}{others}")
    if audited is not None:
        ledger = library.home.root / "audits.jsonl"
        _note_audit(ledger, audited, {f"{row.paper}: {row.claim.name}": row.verdict for row in rows})
        terminal.print_err(f"readtrack: the audit is recorded in {ledger}")
    if any(run.outcome != "completed" for run in everything):
        raise typer.Exit(1)


def _rows(verification: Verification, paper: str, claims: Sequence[Claim]) -> list[VerdictRow]:
    """The table rows of the paper's claims: their verdicts, and the outcomes of null runs and breaks."""
    from readtrack.claims import UNTRAINED
    from readtrack.runs.verify import LONGER, NULL_TIMED, PLAIN, Condition
    from readtrack.verdict_table import VerdictRow
    from readtrack.verdicts import judge_null_times, judge_over_seeds

    def under(condition: Condition) -> dict[str, Judged]:
        events = verification.claim_events(paper, condition)
        judged = judge_over_seeds(paper, events, verification.benchmarks(paper))
        return {one.claim.name: one for one in judged}

    null = under(Condition(null=True))
    longer = under(LONGER)
    broken = {one.name: under(Condition(broken=one.name)) for claim in claims for one in claim.breaks}
    made = verification.records(paper, PLAIN)
    now = {claim.name: claim for claim in claims}
    rows = []
    for one in judge_over_seeds(paper, verification.claim_events(paper), verification.benchmarks(paper)):
        # A run stores the figure that the claim quoted at the time. The table quotes the current one.
        one = replace(one, claim=replace(one.claim, paper=now.get(one.claim.name, one.claim).paper))
        name, own = one.claim.name, [b.name for b in one.claim.breaks]
        fell = {b: broken[b][name] for b in own if name in broken.get(b, {})}
        alike = null.get(name) if one.claim.kind == "measured" and not one.claim.timed else None
        timed = verification.benchmarks(paper, NULL_TIMED)
        alike = alike or judge_null_times(paper, one.claim, one.seeds, timed)
        more = longer.get(name) if one.claim.after_steps else None
        row = VerdictRow.of(
            one.guarded(fell.get(UNTRAINED.name), alike).after_more(more),
            alike,
            {b: said.verdict for b, said in fell.items()},
        )
        tried = {**({"null run": alike} if alike else {}), **fell}
        numbers = {
            name: said.why if said.verdict == "not judged" else said.ours for name, said in tried.items()
        }
        if more:  # on fewer seeds than a verdict needs, because only the sign matters
            numbers[str(LONGER)] = more.ours or more.why
        rows.append(
            replace(
                row,
                numbers=numbers,
                alike={name: ", ".join(said.alike) for name, said in fell.items() if said.alike},
                runs=tuple(made[seed].run_id for seed in one.seeds),
                seconds=tuple(made[seed].duration for seed in one.seeds),
            )
        )
    return rows


def _print(rows: Sequence[VerdictRow], remarks: Sequence[tuple[str, str]]) -> None:
    from readtrack.runs.evidence import shown_verdict
    from readtrack.verdict_table import caveats, error_rates, forecast, headline
    from readtrack.verdicts import OUTCOMES

    for row in rows:
        mark = terminal.verdict(shown_verdict(row.verdict, row.claim.kind))
        said = f"{row.paper}: {row.claim.name}: {'; '.join([*caveats(row), row.ours])}"
        terminal.print_out(f"{mark}  {one_line(said)}")
        for name, verdict in {"null run": row.null, **row.breaks}.items():
            if verdict is not None:
                alike = f" (a null run: {row.alike[name]} are equal)" if name in row.alike else ""
                terminal.print_out(f"{'':<14}    {one_line(f'{name}: {OUTCOMES[verdict]}{alike}')}")
    for paper, text in remarks:
        terminal.print_out(f"{'-':<14}  {one_line(f'{paper}: {text}')}")
    for label, text in error_rates(rows):
        terminal.print_out(f"{label}: {text}")
    for line in forecast(rows):
        terminal.print_out(line)
    terminal.print_out(headline(rows))


def _note_audit(ledger: Path, seeds: list[int], verdicts: dict[str, Verdict]) -> None:
    """Append one line to the ledger, so that no unfavourable audit can be dropped without a trace."""
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "seeds": seeds, "verdicts": verdicts}
    with ledger.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _facts(runs: list[Record], made: Mapping[str, str]) -> dict[str, str]:
    """The conditions of the runs (`made`: budget and data). If runs differ, all values are listed."""
    days = sorted(run.started[:10] for run in runs if run.started)
    machines, devices, versions = [], [], []
    for run in runs:
        facts = run.environment
        if "device" in facts:  # absent if the run failed early
            machines.append(f"{facts.get('cpu')}, {facts.get('cores')} cores, {facts.get('os')}")
            devices.append(environment(facts))
        versions.append(f"readtrack {facts.get('readtrack')}, Python {facts.get('python')}")
    return {
        "machine": "; ".join(dict.fromkeys(machines)),
        "device": "; ".join(dict.fromkeys(devices)),
        "software": "; ".join(dict.fromkeys(versions)),
        "budget": made["budget"],
        **({"data": made["data"]} if made["data"] else {}),
        "date": " to ".join(dict.fromkeys([days[0], days[-1]])) if days else "",
    }
