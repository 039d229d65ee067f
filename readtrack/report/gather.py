"""Data for the report: the list, the shipped verdicts, and the reader's runs, read once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from readtrack.claims import Claim
from readtrack.errors import ReadtrackError
from readtrack.lineage import followers
from readtrack.places import place as places
from readtrack.published import shipped_file
from readtrack.reading_list.catalog import Catalog
from readtrack.reading_list.catalog import Row as ListRow
from readtrack.report.effects import said
from readtrack.report.privacy import Discretion
from readtrack.runs.evidence import best
from readtrack.runs.record import Record, RunSummary
from readtrack.runs.store import load
from readtrack.text import one_line
from readtrack.verdict_table import VerdictRow, VerdictTable
from readtrack.verdicts import Verdict

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.plugins.find import PluginRef

_OWN_RUNS = 12  # maximum number of a paper's runs whose values are drawn next to the verdict's


@dataclass(frozen=True, slots=True)
class ListedPaper:
    """A paper on the list, under one section. since: the day of its state."""

    paper: str
    state: str
    since: str


@dataclass
class ReportSource:
    """The data for all pages.

    library  None for a report on the shipped data
    plugins  the plugins whose code is shown
    runs     paper to its runs, newest first
    """

    catalog: Catalog
    table: VerdictTable
    library: Library | None
    plugins: Mapping[str, PluginRef]
    runs: Mapping[str, Sequence[RunSummary]]
    tell: Discretion
    problems: list[str] = field(default_factory=list)
    _records: dict[str, Record] = field(default_factory=dict)
    _rows: dict[str, list[VerdictRow]] | None = None
    _followers: dict[str, list[str]] | None = None

    @property
    def private(self) -> bool:
        return self.tell.private

    def rows(self, paper: str) -> list[VerdictRow]:
        """The paper's claims with the shipped verdicts, or else with the verdicts of its best run here."""
        if self._rows is None:
            self._rows = {}
            for row in self.table.rows:
                self._rows.setdefault(row.paper, []).append(row)
        if paper not in self._rows:
            run = best(self.runs.get(paper, ()))
            self._rows[paper] = _of_run(self.record(run.run_id)) if run else []
        return self._rows[paper]

    def led_to(self, paper: str) -> list[str]:
        if self._followers is None:
            self._followers = followers(self.catalog)
        return self._followers.get(paper, [])

    def record(self, run_id: str) -> Record:
        """The record of a run, cached."""
        if run_id not in self._records:
            record = self._records[run_id] = load(self.folder(run_id))
            self.tell.leave_out([str(record.environment.get("host") or "")])
            if record.job and record.job.place:
                self.tell.leave_out([record.job.place])
        return self._records[run_id]

    def folder(self, run_id: str) -> Path:
        assert self.library is not None
        return self.library.home.runs / run_id

    def shown_run(self, paper: str) -> RunSummary | None:
        """The run whose curves, pictures and sounds are shown: one that has any of them, or else the best
        run.
        """
        plain = [run for run in self.runs.get(paper, ()) if run.outcome == "completed" and not run.condition]
        with_files = [run for run in plain if (self.folder(run.run_id) / "artifacts").is_dir()]
        return best(with_files) or best(plain)

    def measured_run(self, paper: str) -> RunSummary | None:
        """The newest complete run, for its benchmark. Smoke runs are too short for timing."""
        plain = [
            run
            for run in self.runs.get(paper, ())
            if run.outcome == "completed" and not run.condition and run.only != "experiment"
        ]
        return next((run for run in plain if run.budget != "smoke"), None)

    def own_values(self, paper: str, claim: Claim) -> list[dict[str, float]]:
        """The claim's numbers in the reader's quick runs (verdicts use this budget), except on seeds on which
        the rule was chosen.
        """
        metrics = [bound.metric for bound in claim.rule]
        found = []
        for run in self.runs.get(paper, ())[:_OWN_RUNS]:
            counts = run.outcome == "completed" and not run.condition and run.budget == "quick"
            words = next((ours for name, _, ours in run.claims if name == claim.name), "")
            if counts and run.seed not in claim.chosen_on and words:
                numbers = {metric: one.mean for metric in metrics if (one := said(words, metric))}
                found += [numbers] if numbers else []  # an earlier rule had other metrics
        return found

    @cached_property
    def sections(self) -> list[tuple[str, list[ListedPaper]]]:
        """The list's sections with their papers. Each paper appears in the first section that names it."""
        seen: set[str] = set()
        found = []
        for section in self.catalog.sections:
            entries = []
            for paper in _papers(section.rows):
                if paper not in seen:
                    seen.add(paper)
                    entries.append(self.entry(paper))
            if entries:
                found.append((section.title, entries))
        rest = [paper for paper in self.runs if paper in self.catalog.papers and paper not in seen]
        if rest:
            found.append(("Not on the list", [self.entry(paper) for paper in sorted(rest)]))
        return found

    def entry(self, paper: str) -> ListedPaper:
        if self.library is None:
            return ListedPaper(paper, "", "")
        return ListedPaper(paper, self.library.state(paper), self.library.since(paper) or "")


def _papers(rows: Iterable[object]) -> Iterable[str]:
    for row in rows:
        if isinstance(row, ListRow):
            yield from row.papers
            yield from _papers(row.rows)


def of_reader(library: Library, *, private: bool) -> ReportSource:
    """The reader's list and runs, together with the shipped verdicts."""
    problems: list[str] = []
    runs: dict[str, list[RunSummary]] = {}
    for run in library.results(report=problems.append):
        runs.setdefault(run.paper, []).append(run)
    tell = Discretion(private=private, hosts=machines(library))
    return ReportSource(library.catalog, shipped_table(), library, library.runnable(), runs, tell, problems)


def machines(library: Library) -> list[str]:
    """The reader's own names for other machines, and their addresses."""
    try:
        found = places.load(library.home)
    except ReadtrackError:
        return []  # places.yaml is unreadable
    addresses = [one.host.rpartition("@")[2] or one.scheduler for one in found.values()]
    return [*found, *(re.sub(r"^\w+://|:\d+$", "", address) for address in addresses)]


def shipped_table() -> VerdictTable:
    """The shipped verdicts. Raises ReadtrackError if they cannot be read."""
    try:
        return VerdictTable.from_json(shipped_file().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReadtrackError(f"the shipped verdicts cannot be read: {one_line(str(error))}.") from error


def of_shipped() -> ReportSource:
    """The data that ship with readtrack: list, verdicts and plugins."""
    from readtrack.plugins.find import shipped as shipped_plugins
    from readtrack.reading_list.load import load as load_list
    from readtrack.reading_list.load import shipped

    tell = Discretion(private=False)
    return ReportSource(load_list(shipped()), shipped_table(), None, shipped_plugins(), {}, tell)


def _of_run(record: Record) -> list[VerdictRow]:
    """The claims of one run as rows, for a paper without a shipped verdict."""
    found = []
    for event in record.claims:
        try:
            claim = Claim.from_json(event["claim"])
        except (TypeError, KeyError, ValueError):
            continue  # another version of readtrack wrote it
        seed = record.job.seed if record.job else 0
        found.append(
            VerdictRow(
                paper=record.paper,
                claim=claim,
                verdict=cast(Verdict, event["verdict"]),
                why=str(event.get("why") or ""),
                held=int(event["verdict"] == "held"),
                seeds=(seed,),
                ours=str(event.get("ours") or ""),
                edges=tuple(map(str, event.get("edges") or ())),
                otherwise=None,
                null=None,
                breaks={},
                values={name: (value,) for name, value in event["values"].items()},
                runs=(record.run_id,),
            )
        )
    return found
