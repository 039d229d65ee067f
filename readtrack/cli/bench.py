"""`readtrack compare`: two benchmarked runs of one paper side by side."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from readtrack.cli import terminal
from readtrack.cli.library import run_folder
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home
from readtrack.present import benchmarks, runs
from readtrack.text import format_number, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from readtrack.bench.compare import BenchmarkComparison
    from readtrack.runs.record import Record

app = typer.Typer(rich_markup_mode=None)


@app.command()
def compare(
    run_a: Annotated[
        str, typer.Argument(help="A run's id, the start of it, or its folder.", show_default=False)
    ] = "",
    run_b: Annotated[str, typer.Argument(help="The run to compare with.", show_default=False)] = "",
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Compare all papers with their strongest rivals instead."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compare the benchmarks of two runs of the same paper.

    On one device, each time is SAME, FASTER, SLOWER or UNCLEAR, by the 95 % intervals of the medians and a
    dead band: 2 %, or more if the machine itself drifted more. Across devices, the shares of the ceiling and
    the speed-ups are printed next to each other.

    With --profile, compare the papers' fastest variants with their strongest rivals in their newest runs.
    """
    from readtrack.bench.compare import compare as compare_records
    from readtrack.bench.compare import resolution

    home = Home()
    if profile:
        _profile(home, as_json)
        return
    if not run_b:
        raise typer.BadParameter("compare takes two runs, or --profile. `readtrack results` lists the runs.")
    a, b = _record(home, run_a), _record(home, run_b)
    try:
        found = compare_records(a, b)
    except ValueError as error:
        raise ReadtrackError(str(error)) from error
    if as_json:
        lines = [comparison.to_json() for comparison in found]
        terminal.print_json(
            {
                "paper": a.paper,
                "a": a.run_id,
                "b": b.run_id,
                "edited": [one.job.edited if one.job else "" for one in (a, b)],
                "dead_band": resolution(a, b),
                "measurements": lines,
            }
        )
        return
    for name, record in (("a", a), ("b", b)):
        how = [record.job.condition] if record.job is not None and record.job.condition else []
        words = ", ".join([record.run_id, *how, runs.environment(record.environment)])
        terminal.print_out(one_line(f"{name}: {words}"))
    terminal.print_out()
    head = ("verdict", "what", "variant", "a", "b", "b / a", "")
    terminal.table([_row(comparison) for comparison in found], head=head)
    counts = Counter(comparison.verdict or "not compared" for comparison in found)
    terminal.print_out()
    terminal.print_out(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    terminal.print_out(f"Dead band: ±{100 * resolution(a, b):.1f} % (2 %, or the machine's own drift).")


def _profile(home: Home, as_json: bool) -> None:
    """Take each paper's newest plain run with measurements, smoke runs left out."""
    from readtrack.bench.profile import LEVELS, share, standings
    from readtrack.runs.store import load, summaries

    newest: dict[str, Record] = {}
    for run in summaries(home, report=terminal.warn):
        if run.paper not in newest and run.budget != "smoke" and not run.condition:
            record = load(home.runs / run.run_id)
            if record.measurements:
                newest[run.paper] = record
    found = sorted(standings(newest.values()), key=lambda one: one.speed)
    if not found:
        raise NotAvailableError("no run has compared a paper's variant with a rival yet.")
    shares = {level: share(found, level) for level in LEVELS}
    if as_json:
        terminal.print_json({"shares": shares, "cases": [asdict(one) for one in found]})
        return
    rows = []
    for one in found:
        axes = ", ".join(f"{name} {value}" for name, value in one.axes.items())
        close = "" if one.closeness is None else f"{one.closeness:.2f}"
        what = one_line(f"{one.case}, {axes}, {one.mode}")
        rows.append(
            (f"{one.speed:.3g}×", close, one_line(one.paper), what, "contended" if one.contended else "")
        )
    terminal.table(rows, head=("vs best", "closeness", "paper", "what", ""))
    terminal.print_out()
    for level, part in shares.items():
        terminal.print_out(
            f"{part:4.0%} of {len(found)} cases are at least {level:g}× their strongest rival."
        )


def _record(home: Home, query: str) -> Record:
    """The run of this id, or whose id begins or ends so, or in this folder. It must hold measurements."""
    from readtrack.bench.compare import is_whole
    from readtrack.runs.store import load

    folder = Path(query).expanduser()
    if not (folder / "events.jsonl").is_file():
        folder = run_folder(home, query)
    record = load(folder)
    broken = sum(not is_whole(measurement) for measurement in record.measurements)
    if broken:
        terminal.warn(f"run {record.run_id}: {broken} measurements are incomplete and left out")
    if not record.measurements:
        raise NotAvailableError(f"the run {one_line(record.run_id)} has no measurements to compare.")
    return record


def _row(comparison: BenchmarkComparison) -> tuple[str, ...]:
    one: Any = comparison.a or comparison.b
    ratio = comparison.ratio
    said = "" if ratio is None else format_number(ratio)
    if comparison.ratio_ci95 and ratio is not None:
        low, high = comparison.ratio_ci95
        said += f" ({format_number(low)} to {format_number(high)})"
    return (
        comparison.verdict or "-",
        benchmarks.measured(one).point,
        one_line(comparison.variant),
        _time(comparison.a),
        _time(comparison.b),
        said,
        one_line("; ".join(_remarks(comparison))),
    )


def _time(measurement: Any) -> str:
    return (measurement and benchmarks.measured(measurement).time) or "-"


def _remarks(comparison: BenchmarkComparison) -> Iterator[str]:
    if comparison.note:
        yield comparison.note
    a, b = comparison.a, comparison.b
    if comparison.verdict is None and a and b and a.get("t_ns") and b.get("t_ns"):
        for name, key, unit in (
            ("ceiling", "pct_ceiling", " %"),
            ("vs naive", "vs_naive", "×"),
            ("vs best", "vs_strong", "×"),
        ):
            if a.get(key) is not None and b.get(key) is not None:
                yield f"{name} {a[key]:.3g}{unit} and {b[key]:.3g}{unit}"
