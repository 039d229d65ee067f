"""Makes the pages of a site and writes them into a folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import readtrack
from readtrack.errors import ReadtrackError
from readtrack.reading_list.journal import STATES
from readtrack.report import benchmarks, effects, lineage, reading
from readtrack.report.gather import ListedPaper, ReportSource
from readtrack.report.markdown import html
from readtrack.report.media import Media
from readtrack.report.pages import filters, render
from readtrack.report.papers import ClaimView, PaperView, paper_view
from readtrack.report.strips import forest_axis, forest_lane
from readtrack.report.words import ORDER, css_class, known
from readtrack.report.words import STATES as STATE_NAMES
from readtrack.svg import Drawn, element, percent
from readtrack.text import counted

MANIFEST = "readtrack-report.json"  # marks a folder as a report
_EARLIER = "Judged by an earlier procedure, counted separately"
_CLAIMS, _BENCHMARKS, _LINEAGE, _READING, _METHOD = (
    f"{name}.html" for name in ("claims", "benchmarks", "lineage", "reading", "method")
)


@dataclass(frozen=True, slots=True)
class EntryView:
    """A row of the list. find: text to search; rank, order: sort keys."""

    id: str
    title: str
    year: int
    state: str
    rank: int
    since: str
    claims: list[ClaimView]
    order: str
    find: str
    result: str


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """A row of the table of all claims."""

    paper: str
    name: str
    anchor: str
    section: int
    earlier: bool
    key: float
    lane: Drawn
    found: str
    asked: str


@dataclass(slots=True)
class Site:
    """The pages of a report. `files`: path in the site to its bytes.

    papers  papers with a page, in the list's order
    whole   whether all papers of the list are among them
    """

    source: ReportSource
    papers: Sequence[str]
    whole: bool
    files: dict[str, bytes] = field(default_factory=dict)
    menu: list[tuple[str, str]] = field(default_factory=list)
    footer: str = ""
    _sections: list[tuple[str, list[ListedPaper]]] = field(default_factory=list)

    def make(self) -> None:
        """Make all pages."""
        self._sections = _of_papers(self.source, self.papers)
        self.menu = [("index.html", "Papers"), (_CLAIMS, "Claims"), (_BENCHMARKS, "Benchmarks")]
        if self.whole:
            self.menu.append((_LINEAGE, "Lineage"))
            self.menu += [(_READING, "Reading")] if self.source.library else []
        self.menu.append((_METHOD, "Method"))
        self.footer = footer(self.source)
        views = [self._paper(title, entry) for title, entries in self._sections for entry in entries]
        pages = {view.id: view for view in views}
        self._index(pages)
        self._claims(pages)
        self._benchmarks(pages)
        if self.whole:
            self._lineage(pages)
        if self.whole and self.source.library:
            self._reading(pages)
        self._method()

    def _page(self, path: str, template: str, **values: Any) -> None:
        text = render(
            template,
            page=path,
            root="../" * path.count("/"),
            menu=self.menu,
            footer=self.footer,
            written=frozenset(self.papers),
            **values,
        )
        self.files[path] = text.encode("utf-8", "replace")

    def _paper(self, section: str, entry: ListedPaper) -> PaperView:
        paper = self.source.catalog.papers[entry.paper]
        view = paper_view(self.source, paper, section)
        found: Media | None = view.media
        if found is not None:
            self.files |= found.files
        files = bool(found and found.files)
        self._page(f"papers/{paper.id}.html", "paper.html", p=view, title=view.title, media=files)
        return view

    # The list

    def _index(self, pages: Mapping[str, PaperView]) -> None:
        source = self.source
        sections = [(name, [self._entry(pages, one) for one in found]) for name, found in self._sections]
        measured = [claim for view in pages.values() for claim in view.measured]
        now = Counter(known(claim.verdict) for claim in measured if not claim.earlier)
        earlier = Counter(known(claim.verdict) for claim in measured if claim.earlier)
        if source.library is None:
            title = f"Claims of {len(pages)} machine-learning papers, tested"
        else:
            title = source.tell.line(source.catalog.title) or "Reading list"
        self._page(
            "index.html",
            "index.html",
            title=title,
            lead=self._lead(now),
            tallies=[*_tally("Measured claims", now), *_tally(_EARLIER, earlier)],
            problems=[source.tell.line(problem) for problem in source.problems[:5]],
            count=len(pages),
            sections=sections,
            states=source.library is not None,
            script=True,
        )

    def _lead(self, now: Counter[str]) -> list[str]:
        lines = []
        if self.source.library is not None:
            states = Counter(entry.state for _, entries in self._sections for entry in entries)
            told = ", ".join(f"{states[s]} {STATE_NAMES[s].lower()}" for s in reversed(STATES) if states[s])
            lines.append(f"{counted(sum(states.values()), 'paper')}: {told}.")
        if sum(now.values()):
            lines.append(
                f"{now['reproduced']} of {sum(now.values())} measured claims are reproduced. Each is a rule "
                "that was written before the runs. It is tested with small models on one CPU, against a "
                "tuned control, over 5 to 20 seeds derived from a hash of the rule."
            )
        return lines

    def _entry(self, pages: Mapping[str, PaperView], entry: ListedPaper) -> EntryView:
        view = pages[entry.paper]
        claims = sorted(view.claims, key=lambda claim: (not claim.measured, _rank(claim.verdict)))
        order = "".join(str(_rank(claim.verdict)) for claim in claims if claim.measured) or "9"
        words = [
            view.title,
            view.authors,
            view.id,
            str(view.year or ""),
            view.section,
            *view.tags,
            view.state,
        ]
        return EntryView(
            id=view.id,
            title=view.title,
            year=view.year,
            state=STATE_NAMES.get(entry.state, ""),
            rank=STATES.index(entry.state) if entry.state in STATES else 0,
            since=entry.since if entry.state != "todo" else "",
            claims=claims,
            order=order,
            find=" ".join(words).lower(),
            result=view.result,
        )

    # All claims

    def _claims(self, pages: Mapping[str, PaperView]) -> None:
        titles = [title for title, _ in self._sections]
        at = {entry.paper: index for index, (_, entries) in enumerate(self._sections) for entry in entries}
        rows = [
            (known(claim.verdict), _claim_row(view, claim, at[view.id]))
            for view in pages.values()
            for claim in view.measured
            if claim.verdict in ORDER
        ]
        groups = [(word, [row for said, row in rows if said == word]) for word in ORDER]
        for _, claims in groups:
            claims.sort(key=lambda row: (row.earlier, -row.key))
        self._page(
            _CLAIMS,
            "claims.html",
            title=f"All {len(rows)} measured claims",
            groups=[(word, found) for word, found in groups if found],
            tally=Counter(word for word, _ in rows),
            earlier=sum(row.earlier for _, row in rows),
            sections=titles,
            axis=forest_axis(),
            exact=sum(len(view.exact) for view in pages.values()),
            rules=filters(titles),
            script=True,
        )

    # Benchmarks, lineage, reading, method

    def _benchmarks(self, pages: Mapping[str, PaperView]) -> None:
        source, found, machines = self.source, [], []
        for paper in pages:
            run = source.measured_run(paper)
            record = source.record(run.run_id) if run else None
            if record is not None and (one := benchmarks.against(record)):
                found.append(one)
                facts = record.environment
                machines.append(source.tell.line(facts.get("device_name") or facts.get("device")))
        found.sort(key=lambda one: (one.contended, -one.strong))
        quiet = [one for one in found if not one.contended]
        claims = [
            (row.paper, one)
            for paper in pages
            for row in source.rows(paper)
            if row.claim.timed and row.claim.kind == "measured"
            for one in effects.found(row)
            if one.effect.metric in {bound.metric for bound in row.claim.timed}
        ]
        self._page(
            _BENCHMARKS,
            "benchmarks.html",
            title="Benchmarks",
            found=[(one, benchmarks.nearness(one)) for one in found],
            faster=sum(one.strong >= 1 for one in quiet),
            quiet=len(quiet),
            machines=f"Measured on {', '.join(dict.fromkeys(machines))}." if machines else "",
            profile=benchmarks.profile(quiet or found) if found else "",
            claims=claims,
            script=True,
        )

    def _lineage(self, pages: Mapping[str, PaperView]) -> None:
        papers = self.source.catalog.papers
        standing = {
            view.id: lineage.ClaimCount(
                sum(claim.verdict == "reproduced" for claim in view.measured), len(view.measured)
            )
            for view in pages.values()
        }
        ids = [(title, [entry.paper for entry in entries]) for title, entries in self._sections]
        found = lineage.drawing(papers, ids, standing, pages)
        edges = sorted((one, list(papers[one].builds_on)) for one in pages if papers[one].builds_on)
        self._page(
            _LINEAGE, "lineage.html", title="Lineage", drawing=found.picture, edges=edges,
            rules=found.rules, script=True,
        )  # fmt: skip

    def _reading(self, pages: Mapping[str, PaperView]) -> None:
        from readtrack.statistics import statistics

        assert self.source.library is not None
        found = statistics(self.source.library)
        done = [
            self._entry(pages, entry)
            for _, entries in self._sections
            for entry in entries
            if entry.state in ("read", "implemented") and entry.since
        ]
        months: dict[str, list[EntryView]] = {}
        for one in sorted(done, key=lambda one: one.since, reverse=True):
            months.setdefault(date.fromisoformat(one.since).strftime("%B %Y"), []).append(one)
        self._page(
            _READING,
            "reading.html",
            title="Papers read",
            sentence=found.sentence,
            heat=reading.heat_map(found),
            months=list(months.items()),
            sections=[
                (self.source.tell.line(title), reading.in_words(states), reading.states_bar(states))
                for title, states in found.sections
            ],
            script=True,
        )

    def _method(self) -> None:
        """The page from docs/method.md. Its links to other documents lead to pages or are removed."""
        package = Path(readtrack.__file__).parent
        inside = package / "method.md"
        docs = package if inside.exists() else package.parent / "docs"
        try:
            words = (docs / "method.md").read_text(encoding="utf-8")
            curve = (docs / "method" / "curve.svg").read_bytes()
        except OSError as error:
            raise ReadtrackError(f"the page about the method cannot be read: {error.strerror}.") from error
        pages = {"verdicts.md": _CLAIMS, "method/curve.svg": "media/curve.svg"}

        def target(address: str) -> str | None:
            web = address if address.startswith(("https://", "http://")) else None
            return pages.get(address, web)

        self.files["media/curve.svg"] = curve
        text = html(words, target=target, pictures=True)
        self._page(_METHOD, "method.html", title="How a verdict is reached", text=text, media=True)


def footer(source: ReportSource) -> str:
    """A footer with the origin of the pages and the omitted data."""
    made = (
        "Written by readtrack report from recorded runs. A verdict is about the claim in this setting, "
        "not about the paper’s own experiments. "
    )
    if source.library is None:
        return made
    if source.private:
        return f"{made}This report contains notes, tags, ratings, file paths and machine names."
    notes, bare = len(source.library.noted()), len(source.library.bare_rows())
    left = [counted(notes, "note") if notes else "notes", "tags, ratings, file paths, machine names"]
    if bare:
        left.append(f"{counted(bare, 'row')} of the list that {'names' if bare == 1 else 'name'} no paper")
    return f"{made}Left out: {', '.join(left)}."


def _of_papers(source: ReportSource, papers: Sequence[str]) -> list[tuple[str, list[ListedPaper]]]:
    """The list's sections with these papers only, followed by papers without a section."""
    wanted = set(papers)
    found = [
        (source.tell.line(title), kept)
        for title, entries in source.sections
        if (kept := [entry for entry in entries if entry.paper in wanted])
    ]
    there = {entry.paper for _, entries in found for entry in entries}
    rest = [source.entry(paper) for paper in papers if paper not in there]
    return [*found, *([("Not on the list", rest)] if rest else [])]


def _rank(verdict: str) -> int:
    return ORDER.index(verdict) if verdict in ORDER else (0 if verdict == "held" else 5)


def _tally(name: str, counts: Counter[str]) -> Iterator[tuple[str, Drawn, list[tuple[str, int]]]]:
    """A bar with a segment for each verdict, and the counts; nothing without verdicts."""
    total = sum(counts.values())
    parts, x = [], 0.0
    for word in ORDER:
        if share := 100 * counts[word] / (total or 1):
            wide = percent(max(share - 0.2, 0.3))
            parts.append(element("rect", class_=css_class(word), x=percent(x), width=wide, height=16))
        x += share
    if total:
        bar = element("svg", *parts, class_="tally", width="100%", height=16, aria_hidden="true")
        yield f"{name} ({total})", bar, [(word, counts[word]) for word in ORDER if counts[word]]


def _claim_row(view: PaperView, claim: ClaimView, section: int) -> ClaimRow:
    """The claim with the bound closest to failing, or the first bound if none has a scale."""
    one = claim.deciding or (*claim.shown, *claim.folded)[0].found
    scaled = one.scaled
    return ClaimRow(
        paper=view.id,
        name=claim.name,
        anchor=claim.anchor,
        section=section,
        earlier=claim.earlier,
        key=round(scaled[0], 3) if scaled else -99.0,
        lane=forest_lane(scaled, claim.verdict, dashed=one.way == "range") if scaled else Drawn(""),
        found=one.mean,
        asked=one.asked,
    )


# The folder


def build(source: ReportSource, papers: Sequence[str] = ()) -> Site:
    """Make the pages of all papers on the list, or only of `papers`."""
    listed = [entry.paper for _, entries in source.sections for entry in entries]
    wanted = [paper for paper in listed if paper in papers] if papers else listed
    wanted += [paper for paper in papers if paper not in wanted]
    site = Site(source, wanted, whole=not papers)
    site.make()
    return site


def write(site: Site, folder: Path) -> None:
    """Write the pages, and delete pages of an earlier report that no longer exist.

    Raises ReadtrackError if the folder contains something other than a report, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = _before(folder)
        _list(folder, before | site.files.keys())  # if writing is interrupted, the folder is still a report
        for path, body in site.files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)
        for path in before - site.files.keys():
            if (folder / path).resolve().is_relative_to(folder.resolve()):
                (folder / path).unlink(missing_ok=True)
        _list(folder, site.files.keys())
    except OSError as error:
        where = error.filename or folder
        raise ReadtrackError(f"could not write the report: {where}: {error.strerror}.") from error


def _list(folder: Path, files: Iterable[str]) -> None:
    listed = json.dumps({"files": sorted(files)}, indent=1) + "\n"
    (folder / MANIFEST).write_text(listed, encoding="utf-8")


def _before(folder: Path) -> set[str]:
    """The files of an earlier report in the folder."""
    if not any(folder.iterdir()):
        return set()
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return {path for path in found if isinstance(path, str)}
    except (OSError, ValueError, TypeError, KeyError):
        raise ReadtrackError(
            f"--output {folder}: the folder contains something that is not a report. Choose an empty one."
        ) from None
