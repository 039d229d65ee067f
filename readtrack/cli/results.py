"""`readtrack results`: past runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from readtrack.cli import benchmark_table, terminal
from readtrack.cli.library import open_library
from readtrack.errors import NotAvailableError
from readtrack.present.runs import outcome
from readtrack.runs.evidence import is_control, shown_claims
from readtrack.text import format_duration, one_line

if TYPE_CHECKING:
    from readtrack.home import Home
    from readtrack.runs.record import Record, RunSummary

_VERDICT = 20  # columns of a verdict, with its mark and the space around it

app = typer.Typer(rich_markup_mode=None)


@app.command()
def results(
    paper: Annotated[
        str | None, typer.Argument(help="Show only this paper's runs.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document: a list of runs.")] = False,
) -> None:
    """Show past runs and their results, newest first.

    Without a paper, print one line for each run. With a paper, also print every claim and the newest
    benchmark on each device. If a device has only benchmarks of edited code, null runs or breaks, these are
    printed with a label. To compare devices, use speed-ups and shares of the ceiling instead of times.
    """
    from readtrack.runs.processes import reconcile

    library = open_library()
    reconcile(library.home, report=terminal.warn)
    name = None
    if paper is not None:
        # The paper of a plugin need not be on the list.
        name = paper if paper in library.runnable() else library.find(paper).id
    runs = library.results(name, report=terminal.warn)
    benchmarks = _benchmarks(library.home, runs) if name else {}
    if as_json:
        measured = {record.run_id: record.measurements for record in benchmarks.values()}
        terminal.print_json(
            [
                {**asdict(run), "edited": run.edited, "measurements": measured.get(run.run_id, [])}
                for run in runs
            ]
        )
    elif not runs:
        if name is not None and name not in library.runnable():
            raise NotAvailableError(
                f"{name} has no plugin to run. `readtrack plugins new {name}` starts one."
            )
        raise NotAvailableError(f"no runs yet. Start one: `readtrack run {name or 'PAPER'}`.")
    elif name is None:
        rows = [
            (
                _when(run),
                run.paper,
                outcome(run.outcome),
                format_duration(run.duration),
                ", ".join(filter(None, [run.condition, run.headline])),
            )
            for run in runs
        ]
        terminal.table(rows, head=("started", "paper", "outcome", "took", "result"))
    else:
        for run in runs:
            _print_run(run)
        if benchmarks:
            terminal.print_out()
            benchmark_table.show({device: record.measurements for device, record in benchmarks.items()})


def _benchmarks(home: Home, runs: list[RunSummary]) -> dict[str, Record]:
    """Map each device to its newest run with measurements. Plain runs come first, and other runs have a label
    in the key. Smoke runs are too short and left out.
    """
    from readtrack.runs.store import load

    found: dict[str, tuple[str, Record]] = {}
    for run in sorted(runs, key=lambda run: bool(run.condition)):
        record = load(home.runs / run.run_id)
        if record.measurements and run.budget != "smoke":
            name = record.environment.get("device_name")
            device = f"{run.device} ({name})" if name else run.device
            found.setdefault(device, (", ".join(filter(None, [device, run.condition])), record))
    return dict(found.values())


def _print_run(run: RunSummary) -> None:
    facts = (
        run.condition,
        run.device,
        f"{run.budget} budget",
        f"seed {run.seed}",
        format_duration(run.duration),
    )
    how = f"{outcome(run.outcome)} ({', '.join(fact for fact in facts if fact)})"
    total = terminal.width()
    one_row = total is None or terminal.cells(f"{_when(run)}  {how}  {run.run_id}") <= total
    terminal.print_out(f"{terminal.paint(_when(run), 'bold')}  {how}{f'  {run.run_id}' if one_row else ''}")
    if not one_row:
        terminal.print_out(terminal.paint(f"  {run.run_id}", "dim"))
    for name, verdict, ours in shown_claims(run):
        first, *rest = _beside(f"{name}: {ours}", _VERDICT)
        terminal.print_out(f"  {terminal.verdict(verdict, control=is_control(run))}  {first}")
        for line in rest:
            terminal.print_out(" " * _VERDICT + line)
    if run.outcome not in (None, "completed"):
        for line in _beside(run.detail, 2):
            terminal.print_out(f"  {line}")


def _beside(text: str, indent: int) -> list[str]:
    total = terminal.width()
    return terminal.wrap(one_line(text), None if total is None else total - indent) or [""]


def _when(run: RunSummary) -> str:
    return run.started[:16].replace("T", " ")
