"""`readtrack compare`: compares two runs of one paper."""

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
from readtrack.plugins import edits
from readtrack.present import benchmarks, claims, runs
from readtrack.text import format_number, one_line, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from readtrack.bench.compare import BenchmarkComparison
    from readtrack.plugins.edits import Edit
    from readtrack.present.claims import StatedClaim
    from readtrack.runs.record import Record

_NUMBERS = 23  # columns before a claim's numbers, for the run's letter and the verdict

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
    """Compare two runs of a paper: claims, code and benchmark.

    Prints each claim with the verdicts and numbers of both runs, then the code diff from the first run to the
    second. On the same device, each time is marked SAME, FASTER, SLOWER or UNCLEAR, based on the 95 %
    intervals of the medians and a dead band (2 %, or the machine's own drift if that is larger). For two
    devices, prints shares of the ceiling and speed-ups side by side.

    With --profile, take each paper's newest run and compare its fastest variants with their strongest rivals.
    """
    from readtrack.bench.compare import compare as compare_records
    from readtrack.bench.compare import resolution

    home = Home()
    if profile:
        _profile(home, as_json)
        return
    if not run_b:
        raise typer.BadParameter("compare takes two runs, or --profile. `readtrack results` lists the runs.")
    folders = [_folder(home, query) for query in (run_a, run_b)]
    a, b = map(_record, folders)
    try:
        found = compare_records(a, b)
    except ValueError as error:
        raise ReadtrackError(str(error)) from error
    judged, code = claims.side_by_side(a, b), edits.of_runs(*folders)
    if not (judged or code or found):
        raise NotAvailableError("neither run has claims or measurements to compare.")
    if as_json:
        terminal.print_json(
            {
                "paper": a.paper,
                "a": a.run_id,
                "b": b.run_id,
                "edited": [one.job.edited if one.job else "" for one in (a, b)],
                "claims": [
                    {"name": name, "a": _claim_json(ours), "b": _claim_json(theirs)}
                    for name, (ours, theirs) in judged.items()
                ],
                "code": [{"file": one.file, "counts": one.counts, "diff": one.diff()} for one in code],
                "dead_band": resolution(a, b),
                "measurements": [comparison.to_json() for comparison in found],
            }
        )
        return
    for name, record in (("a", a), ("b", b)):
        apart = [record.job.condition] if record.job is not None and record.job.condition else []
        terminal.print_out(one_line(f"{name}: {', '.join([record.run_id, *apart, runs.how(record)])}"))
    if judged:
        _heading("Claims")
        _print_claims(judged, (a, b))
    if code:
        _heading("Code, from a to b")
        _print_code(code)
    if found:
        _heading("Benchmark")
        _print_benchmark(found, resolution(a, b))


def _heading(words: str) -> None:
    terminal.print_out()
    terminal.print_out(terminal.paint(words, "bold"))


def _print_claims(judged: Mapping[str, tuple[StatedClaim | None, ...]], records: Sequence[Record]) -> None:
    """Print each claim, and for each run a line with its verdict and the decisive numbers."""
    room = terminal.width()
    for name, both in judged.items():
        terminal.print_out(name)
        for letter, one, record in zip("ab", both, records, strict=True):
            if one is None:
                terminal.print_out(f"  {letter}  {terminal.paint('- not in this run', 'dim')}")
                continue
            control = record.job is not None and record.job.control
            numbers = terminal.wrap(one.decisive or one.why, room and room - _NUMBERS) or [""]
            terminal.print_out(
                f"  {letter}  {terminal.verdict(one.shown_verdict, control=control)}  {numbers[0]}"
            )
            for line in numbers[1:]:
                terminal.print_out(" " * _NUMBERS + line)


def _claim_json(one: StatedClaim | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {"verdict": one.verdict, "kind": one.kind, "values": dict(one.values), "why": one.why}


def _print_code(code: Iterable[Edit]) -> None:
    """Print the diff of each file that differs."""
    styles: dict[str, terminal.Style] = {"+": "green", "-": "red", "@": "cyan"}
    for edit in code:
        terminal.print_out(f"{one_line(edit.file)}  {edit.counts}")
        for line in edit.diff():
            terminal.print_out(terminal.paint(f"  {plain(line.expandtabs(4))}", styles.get(line[:1], "dim")))


def _print_benchmark(found: Sequence[BenchmarkComparison], band: float) -> None:
    head = ("verdict", "what", "variant", "a", "b", "b / a", "")
    terminal.table([_row(comparison) for comparison in found], head=head)
    counts = Counter(comparison.verdict or "not compared" for comparison in found)
    terminal.print_out()
    terminal.print_out(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    terminal.print_out(f"Dead band: ±{100 * band:.1f} % (2 %, or the machine's own drift).")


def _profile(home: Home, as_json: bool) -> None:
    """Print speed-ups over the strongest rivals, from each paper's newest plain run that is longer than
    smoke.
    """
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
            f"{part:4.0%} of {len(found)} cases are at least {level:g}× as fast as their strongest rival."
        )


def _folder(home: Home, query: str) -> Path:
    """The run folder for a path, a run id, or the start or end of a run id."""
    folder = Path(query).expanduser()
    return folder if (folder / "events.jsonl").is_file() else run_folder(home, query)


def _record(folder: Path) -> Record:
    """Read the run in this folder, and warn about measurements that cannot be compared."""
    from readtrack.bench.compare import is_whole
    from readtrack.runs.store import load

    record = load(folder)
    broken = sum(not is_whole(measurement) for measurement in record.measurements)
    if broken:
        terminal.warn(f"run {record.run_id}: {broken} measurements are incomplete and left out")
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
