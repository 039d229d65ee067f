"""Collects the data for a paper's page from the list, the verdicts and the runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from readtrack.errors import ReadtrackError
from readtrack.latex import readable
from readtrack.plugins.edits import of_plugin
from readtrack.present.runs import outcome
from readtrack.procedure import PROCEDURE
from readtrack.reading_list.catalog import Paper
from readtrack.report import curves, effects, media
from readtrack.report.benchmarks import Setting, setting
from readtrack.report.code import Code, code
from readtrack.report.effects import Found
from readtrack.report.gather import ReportSource
from readtrack.report.markdown import html
from readtrack.report.strips import Strip, strip
from readtrack.report.words import MEANING, STATES, anchors, known, number, sentence
from readtrack.runs.record import RunSummary
from readtrack.svg import Drawn
from readtrack.text import in_markdown, plain
from readtrack.verdict_table import VerdictRow, caveats, rules
from readtrack.verdicts import OUTCOMES

_RUNS = 10  # maximum number of runs on a page
_SHOWN = 2  # number of bounds that are not collapsed


@dataclass(frozen=True, slots=True)
class BoundView:
    found: Found
    strip: Strip | None


@dataclass(frozen=True, slots=True)
class TriedView:
    name: str
    role: str
    what: str
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimView:
    """A claim as shown on its card. All texts are one line and safe to show."""

    anchor: str
    name: str
    sentence: str
    verdict: str
    measured: bool
    earlier: bool
    headline: bool
    short: str
    shown: list[BoundView]
    folded: list[BoundView]
    rings: int
    tried: list[TriedView]
    facts: list[tuple[str, str]]
    seeds: tuple[int, ...]
    figure: str
    where: str
    control: str
    deviations: str

    @property
    def tried_words(self) -> str:
        """Heading of the collapsed list of other runs, with their outcomes unless a strip shows them."""
        if any(bound.strip and len(bound.strip.lanes) > 1 for bound in self.shown):
            return "Changes in the runs below “Found here”"
        said = ", ".join(f"{one.name} ({OUTCOMES[one.verdict]})" for one in self.tried[:3])
        return f"Runs that must fail the rule: {said}{' …' if len(self.tried) > 3 else ''}"

    @property
    def deciding(self) -> Found | None:
        """The bound closest to failing among those with a scale."""
        return next((one.found for one in (*self.shown, *self.folded) if one.found.scaled), None)


@dataclass(frozen=True, slots=True)
class PageLink:
    name: str
    url: str


@dataclass(frozen=True, slots=True)
class RunLabel:
    """A run. chosen: a rule was chosen on its seed."""

    words: str
    smoke: bool
    chosen: bool


@dataclass(frozen=True, slots=True)
class RunLine:
    day: str
    budget: str
    seed: int
    outcome: str
    claims: str


@dataclass(slots=True, kw_only=True)
class PaperView:
    """The content of a paper's page. Fields without content are empty."""

    id: str
    title: str
    authors: str
    year: int
    links: list[PageLink]
    section: str
    state: str = ""
    rating: int = 0
    tags: list[str] = field(default_factory=list)
    problem: str = ""
    idea: str = ""
    result: str = ""
    abstract: str = ""
    builds_on: tuple[str, ...] = ()
    led_to: list[str] = field(default_factory=list)
    claims: list[ClaimView] = field(default_factory=list)
    measured_on: str = ""
    run: RunLabel | None = None
    pairs: list[curves.Chart] = field(default_factory=list)
    curves: list[curves.Chart] = field(default_factory=list)
    media: media.Media | None = None
    bench: Setting | None = None
    code: Code | None = None
    edited: bool = False
    runs: list[RunLine] = field(default_factory=list)
    more_runs: int = 0
    note: Drawn | None = None

    @property
    def measured(self) -> list[ClaimView]:
        return [claim for claim in self.claims if claim.measured]

    @property
    def exact(self) -> list[ClaimView]:
        return [claim for claim in self.claims if not claim.measured]

    @property
    def exact_held(self) -> int:
        return sum(claim.verdict == "held" for claim in self.exact)


def paper_view(source: ReportSource, paper: Paper, section: str) -> PaperView:
    """The content of one paper's page. Pictures and sounds are in `media.files`."""
    tell = source.tell
    view = PaperView(
        id=paper.id,
        title=tell.line(paper.title),
        authors=tell.line(", ".join(paper.authors)),
        year=paper.year,
        links=[_link(one.kind, one.value, one.url) for one in paper.sources[:3]],
        section=tell.line(section),
        problem=tell.line(paper.problem),
        idea=tell.line(paper.idea),
        result=tell.line(paper.result),
        builds_on=paper.builds_on,
        led_to=sorted(source.led_to(paper.id)),
        claims=claim_views(source, paper.id),
        measured_on=_measured_on(source, paper.id),
    )
    _add_readers(view, source)
    _add_run(view, source)
    plugin = source.plugins.get(paper.id)
    if plugin is not None:
        view.code = code(plugin)
        view.edited = bool(source.library and plugin.origin == "user" and of_plugin(plugin))
    return view


def _link(kind: str, value: str, url: str) -> PageLink:
    """A link. Addresses other than http and https become plain text."""
    name = {"arxiv": f"arXiv {value}", "doi": "DOI", "pdf": "PDF", "page": "Page"}.get(kind, value)
    return PageLink(name, url if url.startswith(("https://", "http://")) else "")


def _measured_on(source: ReportSource, paper: str) -> str:
    facts = source.table.facts.get(paper)
    if not facts:
        return ""
    machine = facts.get("machine", "").partition(", Linux")[0].partition(", macOS")[0]
    device = ", ".join(facts.get("device", "").split(", ")[1:])
    return source.tell.line(
        f"Measured {facts.get('date', '')} on {machine} ({device}), budget “{facts.get('budget', '')}”: "
        "small stand-ins for the paper’s models and data. Each claim says what differs."
    )


def _add_readers(view: PaperView, source: ReportSource) -> None:
    """Add the reader's state, tags, rating, note and runs."""
    library = source.library
    if library is None:
        return
    state, since = library.state(view.id), library.since(view.id)
    view.state = STATES[state] + (f" since {since}" if since and state != "todo" else "")
    view.abstract = source.tell.line(readable(str((library.metadata(view.id) or {}).get("abstract") or "")))
    if source.private:
        view.rating = library.rating(view.id) or 0
        view.tags = sorted(library.tags(view.id))
        try:
            note = library.note(view.id)
        except ReadtrackError as error:
            note = f"*{in_markdown(str(error))}*"
        view.note = html(plain(note), heading=3) if note.strip() else None
    runs = source.runs.get(view.id, ())
    view.runs = [_run_line(source, run) for run in runs[:_RUNS]]
    view.more_runs = len(runs) - len(view.runs)


def _run_line(source: ReportSource, run: RunSummary) -> RunLine:
    counts = Counter(known(verdict) for _, verdict, _ in run.claims)
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    ended = outcome(run.outcome) + (f", {run.condition}" if run.condition else "")
    return RunLine(
        source.tell.line(run.started[:10]),
        source.tell.line(run.budget),
        run.seed,
        source.tell.line(ended),
        said,
    )


def _add_run(view: PaperView, source: ReportSource) -> None:
    """Add curves, pictures, sounds and the benchmark."""
    shown, timed = source.shown_run(view.id), source.measured_run(view.id)
    rows = source.rows(view.id)
    if shown is not None:
        record = source.record(shown.run_id)
        named = curves.told(record, source.tell)
        roles = curves.roles(named, [row.claim for row in rows])
        view.pairs = curves.pairs(named, roles)
        view.curves = curves.curves(named, roles)
        view.media = media.media(record, source.folder(shown.run_id), f"media/{view.id}", source.tell)
        chosen = any(shown.seed in row.claim.chosen_on for row in rows)
        words = f"{record.started[:10]}, seed {shown.seed}, budget “{shown.budget}”, on {shown.device}"
        if view.pairs or view.curves or record.artifacts:
            view.run = RunLabel(source.tell.line(words), shown.budget == "smoke", chosen)
    if timed is not None:
        view.bench = setting(source.record(timed.run_id), [row.claim for row in rows], source.tell)


# Claims


def claim_views(source: ReportSource, paper: str) -> list[ClaimView]:
    """The paper's claims: the headline, then other measured claims, then identities and theorems."""
    rows = sorted(source.rows(paper), key=lambda row: (row.claim.kind != "measured", not row.claim.headline))
    names = anchors([row.claim.name for row in rows])
    return [_claim_view(source, row, anchor) for row, anchor in zip(rows, names, strict=True)]


def _claim_view(source: ReportSource, row: VerdictRow, anchor: str) -> ClaimView:
    claim, line = row.claim, source.tell.line
    measured = claim.kind == "measured"
    own = source.own_values(row.paper, claim) if measured and row.paper in source.table.facts else []
    found = [replace(one, label=line(one.label)) for one in effects.found(row, own)]
    views = [
        BoundView(one, strip(one, with_breaks=index == 0) if measured else None)
        for index, one in enumerate(found)
    ]
    return ClaimView(
        anchor=f"c-{anchor}",
        name=sentence(line(claim.name)),
        sentence=line(claim.sentence),
        verdict=row.verdict,
        measured=measured,
        earlier=row.earlier,
        headline=claim.headline,
        short=line(_short(row)),
        shown=views[:_SHOWN],
        folded=views[_SHOWN:],
        rings=len(own),
        tried=_tried(row) if measured else [],
        facts=[(name, line(words)) for name, words in _facts(row) if words],
        seeds=row.seeds,
        figure=sentence(line(claim.paper.text)),
        where=line(claim.paper.where) + _READ.get(claim.paper.read, ""),
        control=sentence(line(claim.control)),
        deviations=line(claim.deviations),
    )


_READ = {"secondary": ", quoted by others", "memory": ", from memory"}


def _short(row: VerdictRow) -> str:
    """The details that follow the verdict."""
    if not row.held_seeds:
        told = "judged by its benchmark"
    elif len(row.seeds) == 1:
        told = f"one run, seed {row.seeds[0]}"
    else:
        told = f"{row.held_seeds} satisfy the rule individually"
    parts = [MEANING[known(row.verdict)], told]
    if row.why and row.verdict != "not specific":
        parts[0] = row.why
    if "unsteady" in caveats(row):
        parts.append("unsteady: single seeds often miss the rule")
    if row.earlier:
        parts.append("judged by the earlier procedure")
    return "; ".join(parts)


def _tried(row: VerdictRow) -> list[TriedView]:
    null = [("null run", "", "Every arm is the control.", row.null)] if row.null else []
    breaks = [(one.name, one.role, one.takes_away, row.breaks.get(one.name)) for one in row.claim.breaks]
    ordered = sorted(breaks, key=lambda one: one[1] != "rival")
    return [
        TriedView(name, role, what, known(verdict))
        for name, role, what, verdict in [*null, *ordered]
        if verdict is not None
    ]


def _facts(row: VerdictRow) -> list[tuple[str, str]]:
    claim = row.claim
    edges = f"{'; '.join(row.edges)}. A better setting may lie outside." if row.edges else ""
    luck = "" if row.otherwise is None else f"{100 * row.otherwise:.0f} %"
    procedure = f"procedure {row.procedure} (the current one is {PROCEDURE})" if row.earlier else ""
    return [
        ("Rule", rules(claim)),
        ("Why there is no rival", claim.no_rival),
        ("Rivals in the benchmark", row.rival_variants),
        ("Breaks", row.fell_first),
        ("Chance of a different verdict if repeated", luck),
        ("Best at the edge of the grid", edges),
        ("Procedure", procedure),
        ("Earlier rules", " ".join(claim.history)),
        ("Seeds", ", ".join(map(str, row.seeds))),
        ("Run time", _seconds(row)),
    ]


def _seconds(row: VerdictRow) -> str:
    return f"{number(min(row.seconds))} to {number(max(row.seconds))} s" if row.seconds else ""
