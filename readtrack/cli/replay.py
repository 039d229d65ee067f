"""`readtrack replay`: repeats the run of a replication card and compares its claims."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer

from readtrack.cli import terminal
from readtrack.cli.library import open_library
from readtrack.cli.run import end, follow, runnable
from readtrack.errors import ReadtrackError
from readtrack.text import one_line

if TYPE_CHECKING:
    from readtrack.cli.terminal import Style
    from readtrack.report.replay import Replay
    from readtrack.runs.events import Event
    from readtrack.runs.record import Record

_STYLES: dict[str, Style] = {"SAME": "green", "DIFFERENT": "red", "UNCLEAR": "yellow"}

app = typer.Typer(rich_markup_mode=None)


@app.command()
def replay(
    card: Annotated[
        Path, typer.Argument(help="A card that `readtrack report --card` wrote.", show_default=False)
    ],
    device: Annotated[
        str, typer.Option(help="A device other than the card's: cpu, cuda, cuda:1, mps, xpu.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Repeat the run of a replication card and compare its claims.

    Runs this machine's copy of the paper's code with the card's seed, budget and settings. Nothing in the
    card is executed. A claim is SAME if both runs reach the same verdict and its values differ by at most 5 %
    of the distance to the threshold or a quarter of the standard deviation over seeds. If the code is the
    same and only the processor, the thread count or torch differs, floating-point sums have a different
    order. Then the values may differ as much as between two seeds (95 % limit, 2.8 standard deviations).
    Changes to comments, docstrings and formatting do not count.

    A claim is DIFFERENT if its verdict or its rule differs. It is also DIFFERENT if its values differ and
    either the setting is the same or the paper's code has changed. If only the code differs, every difference
    beyond rounding counts. All other claims are UNCLEAR.

    Exit code 1 if a claim is DIFFERENT.
    """
    from readtrack.report.card import of_library, read
    from readtrack.report.gather import shipped_table
    from readtrack.report.replay import replay as compared
    from readtrack.report.replay import spreads
    from readtrack.runs.job import new_job

    there = read(card)
    library = open_library()
    name = runnable(library, there.paper)
    if name != there.paper:
        raise ReadtrackError(f"the card is about {there.paper!r}, and no paper here has this id.")
    terminal.print_err(f"readtrack: {one_line(there.command)}")
    job = new_job(name, **{**there.job, **({"device": device} if device else {})})
    record, stopped_by = follow(library, job, _Quiet())
    end(library, record, stopped_by)
    here = of_library(library, library.home.runs / record.run_id, private=True)
    table = shipped_table()
    judged = table.facts.get(name, {}).get("budget") == there.job["budget"]  # spreads depend on it
    found = compared(there, here, spreads([row for row in table.rows if row.paper == name and judged]))
    if as_json:
        terminal.print_json({"paper": name, "run": record.run_id, **found.to_json()})
    else:
        _print(found, record.run_id)
    if found.verdict == "DIFFERENT":
        raise typer.Exit(1)


class _Quiet:
    """Shows only the progress of a run, on stderr."""

    def __init__(self) -> None:
        self._phases: set[str] = set()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def event(self, event: Event, record: Record) -> None:
        if record.phase and record.phase not in self._phases:
            self._phases.add(record.phase)
            terminal.print_err(f"readtrack: {one_line(record.phase)}")

    def stopping(self, stop_level: str) -> None:
        terminal.print_err(f"readtrack: stopping ({stop_level})")

    def tick(self, record: Record) -> None:
        pass

    def end(self, record: Record, folder: Path | None) -> None:
        pass


def _print(found: Replay, run_id: str) -> None:
    from readtrack.plugins.prints import in_words

    for one in found.claims:
        mark = terminal.paint(f"{one.verdict:<9}", _STYLES[one.verdict])
        verdicts = one.there if one.there == one.here else f"{one.there or 'nothing'} there, {one.here} here"
        said = "; ".join(filter(None, [f"{one.name}: {verdicts}", one.numbers, one.why]))
        terminal.print_out(f"{mark}  {one_line(said)}")
    unchanged = "the same" if found.code_known else "unknown: one of the runs kept no hashes of its code"
    lines = [
        ("code", in_words(found.code) or unchanged),
        ("setting", "; ".join(found.environment) or "the same"),
        ("run", run_id),
    ]
    for name, words in lines:
        terminal.print_out(f"{name:<9}  {one_line(words)}")
    counts = Counter(one.verdict for one in found.claims)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "no claims"
    terminal.print_out(
        f"{told}, although the code differs" if found.code and counts.keys() == {"SAME"} else told
    )
