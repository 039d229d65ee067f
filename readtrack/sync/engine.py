"""A complete sync: `Sync(library).run()` in any thread; `status` reports a sync in another process.

The list is read once, when the Sync is constructed; later edits take effect in the next sync.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.reading_list.catalog import Paper, Source
from readtrack.reading_list.sources import split_version
from readtrack.sync import files, metadata
from readtrack.sync.clock import Clock, SyncCancelled
from readtrack.sync.faults import Fault
from readtrack.sync.lock import exclusive
from readtrack.sync.report import State, SyncProgress, SyncSummary
from readtrack.sync.throttle import ARXIV, ARXIV_PAUSE, HostThrottle
from readtrack.text import one_line

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.sync.client import Client, Endpoints


# Failures that may be avoided by opening the link in a browser.
_NEEDS_BROWSER = ("denied", "page", "large", "link", "gone", "slow")
_REPORT_EVERY = 0.1  # minimum seconds between reports of a download


class _StopError(Exception):
    """Nothing more can be fetched from anywhere."""


class Sync:
    """Fetch missing data: metadata of arXiv papers in batches, then PDFs one by one.

    papers    ids; None for those on the list
    pdf       whether to fetch PDFs, or only metadata
    refresh   fetch all metadata again
    verify    read every PDF and fetch damaged ones again
    patience  longest Retry-After that the sync waits for, in seconds; beyond it the host is skipped
    report    called with each SyncProgress, in the thread of `run`
    cancel    set it to stop within a second
    """

    def __init__(
        self,
        library: Library,
        papers: Sequence[str] | None = None,
        *,
        pdf: bool = True,
        refresh: bool = False,
        verify: bool = False,
        patience: float = 120.0,
        report: Callable[[SyncProgress], None] = lambda progress: None,
        cancel: threading.Event | None = None,
        clock: Clock | None = None,
        endpoints: Endpoints | None = None,
    ) -> None:
        self._home = library.home
        self._path = library.catalog.path
        self._list = self._path.name
        known = library.catalog.papers
        unknown = [paper for paper in papers or () if paper not in known]
        if unknown:
            raise ReadtrackError(f"there is no paper {', '.join(map(repr, unknown))} on the list.")
        wanted = dict.fromkeys(papers) if papers is not None else library.listed
        self._papers = {id_: known[id_] for id_ in wanted}
        self._all = known
        self._pdf = pdf
        self._refresh = refresh
        self._verify = verify
        self._patience = patience
        self._report = report
        self._cancel = cancel or threading.Event()
        self._clock = clock or Clock()
        self._endpoints = endpoints
        self._pdfs = files.Pdfs(self._home)
        self._summary = SyncSummary()
        self._got: set[str] = set()  # papers with new data
        self._problems: dict[str, list[str]] = {}
        self._unknown: set[str] = set()  # papers that no source has
        self._due: set[str] = set()  # papers whose requested data have not arrived
        self._damaged: set[str] = set()
        self._eta: float | None = None
        self._have: dict[tuple[str, int | None], str] = {}  # the paper whose PDF has this source and version
        self._failed: dict[tuple[str, int | None], Fault] = {}

    def run(self) -> SyncSummary:
        """Run the sync. Raises AlreadyRunningError, or ReadtrackError if the home cannot be written.

        All other errors are in the summary.
        """
        from readtrack.sync.client import Client, Endpoints

        endpoints = self._endpoints or Endpoints.from_environment()
        self._endpoints = endpoints
        began = self._clock.now()
        with exclusive(self._home) as folder:
            self._pdfs.remove_partial_files()
            files.probe((self._home.metadata, self._home.pdfs))
            gate = HostThrottle(folder / "requests.json", self._clock, self._cancel, endpoints.arxiv_hosts)
            client = Client(gate, self._clock, self._cancel, patience=self._patience, notice=self._notice)
            try:
                self._fetch_metadata(client, endpoints)
                self._fill_in_missing(client, endpoints)
                self._fetch_pdfs(client, endpoints)
            except SyncCancelled:
                self._summary.cancelled = True
            except (_StopError, Fault) as stop:
                self._summary.stopped = str(stop)
            finally:
                client.close()
            for paper in self._papers.values():
                self._settle(paper)
            self._summary.requests = client.requests
            if gate.not_before is not None:
                at = datetime.fromtimestamp(gate.not_before).astimezone()
                self._summary.not_before = at.isoformat(timespec="seconds")
        self._summary.here = sum(self._pdfs.path(id_).is_file() for id_ in self._papers)
        self._summary.seconds = self._clock.now() - began
        return self._summary

    # Metadata

    def _fetch_metadata(self, client: Client, endpoints: Endpoints) -> None:
        wanted: dict[str, list[Paper]] = {}
        for paper in self._papers.values():
            if (asked := paper.arxiv_id) and (self._refresh or self._is_old(paper, asked)):
                wanted.setdefault(asked, []).append(paper)
                self._due.add(paper.id)
        for batch in metadata.batches(wanted):
            for asked in batch:
                for paper in wanted[asked]:
                    self._say(paper.id, "metadata")
            try:
                answer = metadata.fetch(client, endpoints, batch)
            except Fault as fault:
                self._stop_if_over(fault, ARXIV)
                for paper in (paper for asked in batch for paper in wanted[asked]):
                    self._problem(paper.id, str(fault))
                continue
            for asked in batch:
                self._keep_metadata(asked, wanted[asked], answer)

    def _keep_metadata(self, asked: str, papers: list[Paper], answer: metadata.Answer) -> None:
        if asked in answer.refused:
            for paper in papers:
                reason = f"{self._list}:{paper.line}: bad arXiv id {asked!r}; {answer.refused[asked]}"
                self._problem(paper.id, reason)
        elif asked not in answer.found:
            for paper in papers:
                self._problem(paper.id, f"arXiv does not know {asked} (asked twice)", unknown=True)
        else:
            for paper in papers:
                old = metadata.load(self._home.metadata, paper.id, asked)
                facts = answer.found[asked]
                try:
                    metadata.save(self._home.metadata, paper.id, asked, facts, self._clock.wall())
                except OSError as error:
                    raise _StopError(str(files.disk_fault(error, self._home.metadata))) from error
                self._got.add(paper.id)
                self._due.discard(paper.id)
                if old and old["version"] < facts.version:
                    self._note(f"{paper.id}: newer version v{facts.version} (v{old['version']} before)")

    def _fill_in_missing(self, client: Client, endpoints: Endpoints) -> None:
        """Add missing facts to the list. Facts for DOIs are requested here."""
        papers = [paper for paper in self._papers.values() if paper.missing]
        if not papers:
            return
        from readtrack.sync.add import GivenFacts, from_source
        from readtrack.sync.missing import fill_in

        found: dict[str, GivenFacts] = {}
        for paper in papers:
            if paper.sources and paper.sources[0].kind == "doi":
                try:
                    found[paper.id] = from_source(client, endpoints, paper.sources[0])
                except (Fault, NotAvailableError) as error:
                    self._problem(paper.id, str(error))
        try:
            self._summary.filled = fill_in(self._home, self._path, papers, found)
        except ReadtrackError as error:
            self._note(f"missing facts could not be added to the list: {error}")

    def _is_old(self, paper: Paper, asked: str) -> bool:
        known = metadata.load(self._home.metadata, paper.id, asked)
        return known is None or metadata.is_old(known, asked, self._clock.wall())

    def _known(self, paper: Paper) -> dict[str, Any]:
        asked = paper.arxiv_id
        return (asked and metadata.load(self._home.metadata, paper.id, asked)) or {}

    # PDFs

    def _fetch_pdfs(self, client: Client, endpoints: Endpoints) -> None:
        for paper in self._all.values():
            record = self._pdfs.record(paper.id)
            if record and record.origin == "fetched" and self._pdfs.path(paper.id).is_file():
                self._have[record.source, record.version] = paper.id
        for paper in self._papers.values():
            if self._needs_pdf(paper):
                self._due.add(paper.id)
                self._say(paper.id, "waiting")
            else:
                self._settle(paper)
        missing = [paper for paper in self._papers.values() if paper.id not in self._summary.states]
        began = self._clock.now()
        for number, paper in enumerate(missing):
            each = (self._clock.now() - began) / number if number else 0.0
            self._eta = max(each, ARXIV_PAUSE) * (len(missing) - number)
            if self._fetch_pdf(client, endpoints, paper):
                self._due.discard(paper.id)
            self._settle(paper)

    def _needs_pdf(self, paper: Paper) -> bool:
        """Whether there is a PDF to fetch. Also registers PDFs that the reader put there."""
        if not self._pdf:
            return False
        offered, record = paper.pdf_sources, self._pdfs.record(paper.id)
        if not self._pdfs.path(paper.id).is_file():
            if record is not None and record.origin == "fetched":
                self._damaged.add(paper.id)
            known_withdrawn = record is not None and record.origin == "withdrawn" and not self._refresh
            return bool(offered) and not (known_withdrawn and self._is_wanted(paper, record))
        if record is None or record.origin != "fetched":
            if record is None or self._verify:
                self._look_at_own(paper, adopt=record is None)
            return False
        if self._verify and self._pdfs.is_changed(paper.id):
            self._damaged.add(paper.id)
            return True
        return bool(offered) and not self._is_wanted(paper, record)

    def _is_wanted(self, paper: Paper, record: files.PdfRecord | None) -> bool:
        """Whether the record is of a source on the list, in the desired version."""
        source = next((one for one in paper.pdf_sources if record and one.value == record.source), None)
        if source is None or record is None:
            return False
        return self._version(paper, source) in (None, record.wanted)

    def _look_at_own(self, paper: Paper, *, adopt: bool) -> None:
        """Check a PDF that the reader put there, which is never replaced."""
        path = self._pdfs.path(paper.id)
        try:
            if adopt:
                self._pdfs.adopt(paper.id)
            elif problem := files.incompleteness_of(path):
                raise problem
        except Fault as fault:
            self._problem(
                paper.id, f"{path} is damaged ({fault}) and was not fetched by a sync; move it elsewhere"
            )
        except OSError as error:
            self._problem(paper.id, f"could not read {path}: {error.strerror}")

    def _fetch_pdf(self, client: Client, endpoints: Endpoints, paper: Paper) -> bool:
        """Fetch from the first source that has it, and record the faults of the others."""
        faults: list[tuple[Fault, Source]] = []
        for source in paper.pdf_sources:
            if source.kind == "arxiv" and self._version(paper, source) is None:
                continue  # arXiv sent no metadata, for a reason that was recorded
            try:
                self._from_source(client, endpoints, paper, source)
            except files.UserFileConflictError:
                return True
            except Fault as fault:
                self._stop_if_over(
                    fault, client.host(endpoints.pdf if source.kind == "arxiv" else source.value)
                )
                faults.append((fault, source))
            else:
                return True
        if faults and faults[0][0].kind == "gone" and _says_withdrawn(self._known(paper)):
            source = faults[0][1]
            record = files.PdfRecord(
                origin="withdrawn", source=source.value, wanted=self._version(paper, source)
            )
            if not self._pdfs.path(paper.id).is_file():
                self._pdfs.save_record(paper.id, record)
            return True
        for problem, source in faults:
            by_hand = problem.kind in _NEEDS_BROWSER and not (
                problem.kind == "denied" and source.kind == "arxiv"
            )
            hint = f"; open {source.url}, then: readtrack attach {paper.id} FILE" if by_hand else ""
            self._problem(paper.id, f"{problem}{hint}", unknown=problem.kind == "gone")
        return False

    def _from_source(self, client: Client, endpoints: Endpoints, paper: Paper, source: Source) -> None:
        """Fetch the PDF from `source`. Raises Fault, of kind "gone" if arXiv has the paper but no PDF."""
        version = self._version(paper, source)
        if version is None:
            self._download(client, paper, source, source.value)
            return
        base, pinned = split_version(source.value)
        known = self._known(paper)
        link = _own_link(known.get("pdf_url", ""), client) if endpoints.links else None
        url = f"{endpoints.pdf}/{base}v{{}}"
        try:
            self._download(client, paper, source, url.format(version), version, version, link)
            return
        except Fault as fault:
            missing = fault.kind == "gone" or (fault.kind == "page" and _says_withdrawn(known))
            if not missing:
                raise
            if pinned or version == 1:
                raise Fault("gone", str(fault)) from fault
        earlier = version - 1
        record = self._pdfs.record(paper.id)
        if record and record.version == earlier and not self._pdfs.is_changed(paper.id):
            self._pdfs.save_record(paper.id, replace(record, wanted=version))
        else:
            self._download(client, paper, source, url.format(earlier), earlier, version)
        self._note(f"{paper.id}: v{version} has no PDF (withdrawn?); v{earlier} is here")

    def _download(
        self,
        client: Client,
        paper: Paper,
        source: Source,
        url: str,
        version: int | None = None,
        wanted: int | None = None,
        fallback: str | None = None,
    ) -> None:
        """Publish one PDF, copied from another paper if that paper has the same PDF."""
        key = (source.value, version)
        if key in self._failed:
            raise self._failed[key]
        twin = self._have.get(key, paper.id)

        def fill(part: Path) -> files.PdfRecord:
            record = self._pdfs.record(twin)
            if twin != paper.id and record is not None and not self._pdfs.is_changed(twin):
                files.copy_into(part, self._pdfs.path(twin))
                return record
            sink = files.PdfSink(part, self._progress_of(paper.id))
            try:
                client.get(url, sink, fallback=fallback)
            finally:
                sink.close()
            return files.PdfRecord(
                origin="fetched",
                source=source.value,
                version=version,
                wanted=wanted,
                url=url,
                size=sink.size,
                sha256=sink.sha256,
                at=datetime.fromtimestamp(self._clock.wall(), UTC).isoformat(timespec="seconds"),
            )

        try:
            kept = self._pdfs.publish(paper.id, fill)
        except Fault as fault:
            self._failed[key] = fault
            raise
        self._have[key] = paper.id
        self._got.add(paper.id)
        if paper.id in self._damaged:
            self._summary.repaired.append(paper.id)
        if kept:
            self._note(f"{paper.id}: you had changed the PDF; your copy is now {kept.name}")

    def _version(self, paper: Paper, source: Source) -> int | None:
        """The desired version of an arXiv paper; None if unknown, or not on arXiv."""
        if source.kind != "arxiv":
            return None
        pinned = split_version(source.value)[1]
        if pinned is not None:
            return pinned
        version = self._known(paper).get("version") if source.value == paper.arxiv_id else None
        return version if isinstance(version, int) else None

    # Reporting

    def _progress_of(self, paper_id: str) -> Callable[[int, int | None], None]:
        last = -_REPORT_EVERY

        def progress(count: int, total: int | None) -> None:
            nonlocal last
            if count in (0, total) or self._clock.now() - last >= _REPORT_EVERY:
                last = self._clock.now()
                self._say(paper_id, "downloading", count=count, total=total)

        return progress

    def _stop_if_over(self, fault: Fault, host: str) -> None:
        if fault.kind == "disk":
            raise _StopError(str(fault)) from fault
        if fault.kind == "offline" and host == ARXIV:
            self._summary.offline = True
            raise _StopError(f"offline: {fault}") from fault

    def _problem(self, paper_id: str, reason: str, *, unknown: bool = False) -> None:
        reasons = self._problems.setdefault(paper_id, [])
        if not reasons and unknown:
            self._unknown.add(paper_id)
        if not unknown:
            self._unknown.discard(paper_id)
        if reason not in reasons:
            reasons.append(reason)

    def _settle(self, paper: Paper) -> None:
        """Report the paper's final state, once."""
        id_, summary = paper.id, self._summary
        there, offered = self._pdfs.path(id_).is_file(), paper.pdf_sources
        record = self._pdfs.record(id_)
        unfinished = id_ in self._due or (self._pdf and bool(offered) and not there)
        if not there and record is not None and record.origin == "withdrawn" and id_ not in self._due:
            version = f" (v{record.wanted})" if record.wanted else ""
            self._final(id_, "withdrawn", f"withdrawn by its authors{version}; no PDF is offered")
        elif id_ in self._problems:
            state: State = "not found" if id_ in self._unknown else "failed"
            self._final(id_, state, "; ".join(self._problems[id_]))
        elif unfinished and summary.cancelled:
            self._final(id_, "cancelled")
        elif unfinished and summary.stopped:
            self._final(id_, "failed", summary.stopped)
        elif id_ in self._got:
            self._final(id_, "done")
        elif not offered and not there:
            if paper.link:
                self._final(id_, "web only", paper.link)
            else:
                self._final(id_, "no source", "the list has no link to it")
        else:
            self._final(id_, "up to date")

    def _final(self, paper_id: str, state: State, reason: str = "") -> None:
        if paper_id in self._summary.states:
            return
        self._summary.states[paper_id] = state
        if reason:
            self._summary.reasons[paper_id] = reason
        self._say(paper_id, state, message=reason)

    def _note(self, text: str) -> None:
        self._summary.notes.append(text)

    def _notice(self, text: str) -> None:
        self._say("", "waiting", message=one_line(text))

    def _say(
        self, paper: str, state: State, *, count: int = 0, total: int | None = None, message: str = ""
    ) -> None:
        self._report(
            SyncProgress(paper=paper, state=state, bytes=count, total=total, eta=self._eta, message=message)
        )


def _own_link(link: str, client: Client) -> str | None:
    """The PDF link in arXiv's own answer, if it leads to arXiv."""
    link = link.replace("http://arxiv.org/", "https://arxiv.org/", 1)
    return link if link and client.host(link) == ARXIV else None


def _says_withdrawn(known: dict[str, Any]) -> bool:
    return "withdrawn" in str(known.get("comment", "")).casefold()
