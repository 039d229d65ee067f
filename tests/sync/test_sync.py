"""Requests of a sync and their hosts, and one sync at a time: batches, versions, mirrors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import arxiv
import loopback
import pytest
import requests
from loopback import Paper, Server, page, pdf_bytes, redirect, status

import readtrack
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.sync.client import Endpoints
from readtrack.sync.engine import Sync
from readtrack.sync.files import Pdfs, attach
from readtrack.sync.lock import AlreadyRunningError, exclusive, state_folder
from readtrack.sync.metadata import TESTED
from readtrack.sync.report import SyncSummary

DATA = Path(__file__).parents[1] / "data" / "arxiv"
Run = Callable[..., SyncSummary]


def listed(count: int) -> dict[str, str]:
    return {f"p{number}": f'- arxiv: "2001.{number:05}"' for number in range(1, count + 1)}


# Requests


def test_metadata_of_60_papers_is_one_request_and_the_second_sync_none(
    server: Server, papers: Any, sync: Run, home: Home
) -> None:
    papers(listed(60))
    assert sync(pdf=False).exit_code == 0
    assert server.counts() == {"api": 1}
    assert len(list(home.metadata.glob("*.json"))) == 60
    again = sync(pdf=False)
    assert server.counts() == {"api": 1}
    assert again.requests == 0
    assert again.headline == "60 papers: 60 up to date."


def test_more_ids_than_fit_in_one_request(server: Server, papers: Any, sync: Run) -> None:
    papers(listed(130))
    assert sync(pdf=False).headline == "130 papers: 130 fetched."
    assert [len(request.ids) for request in server.requests] == [100, 30]
    assert min(server.gaps()) > 2.999


def test_two_papers_with_one_arxiv_id_cost_one_request_each_way(
    server: Server, papers: Any, sync: Run, home: Home
) -> None:
    papers({"transformer": '- arxiv: "1706.03762"', "attention": '- arxiv: "1706.03762"'})
    assert sync().headline == "2 papers: 2 fetched."
    assert server.counts() == {"api": 1, "pdf": 1}
    assert server.requests[0].ids == ["1706.03762"]
    assert (home.pdfs / "attention.pdf").read_bytes() == (home.pdfs / "transformer.pdf").read_bytes()
    (home.pdfs / "attention.pdf").unlink()
    assert sync().repaired == ["attention"]
    assert server.counts() == {"api": 1, "pdf": 1}  # copied from the other paper


def test_the_user_agent_of_requests(
    server: Server, papers: Any, sync: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READTRACK_CONTACT", "ada@example.org\r\nX-Evil: 1")
    papers(listed(1))
    sync()
    agent = f"readtrack/{readtrack.__version__} (personal reading list; ada@example.org X-Evil: 1)"
    assert {request.headers["user-agent"] for request in server.requests} == {agent}
    assert {request.headers["accept-encoding"] for request in server.requests} == {"identity"}
    assert not any("x-evil" in request.headers for request in server.requests)


def test_the_pace_holds_from_one_sync_to_the_next(server: Server, papers: Any, sync: Run) -> None:
    papers(listed(1))
    for _ in range(3):
        sync(pdf=False, refresh=True)
    assert len(server.requests) == 3
    assert min(server.gaps()) > 2.999


def test_the_pace_is_shared_by_all_homes_of_a_user(
    server: Server, papers: Any, sync: Run, home: Home, clock: Any, tmp_path: Path
) -> None:
    library = papers(listed(1))
    other = Library.open(Home(tmp_path / "other"), library.list_path)
    sync(pdf=False)
    Sync(other, pdf=False, clock=clock, endpoints=Endpoints.from_environment()).run()
    sync(pdf=False, refresh=True)
    assert len(server.requests) == 3
    assert min(server.gaps()) > 2.999


def test_only_one_sync_runs_at_a_time_in_all_homes(papers: Any, sync: Run, tmp_path: Path) -> None:
    papers(listed(1))
    with exclusive(Home(tmp_path / "other")), pytest.raises(AlreadyRunningError, match="process") as caught:
        sync(pdf=False)
    assert str(os.getpid()) in str(caught.value)
    with exclusive(Home(tmp_path / "other")):
        pass


def test_without_a_place_for_the_users_state_the_home_keeps_the_pace(
    server: Server, papers: Any, sync: Run, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    papers(listed(1))
    for _ in range(2):
        sync(pdf=False, refresh=True)
    assert min(server.gaps()) > 2.999
    assert (home.locks / "requests.json").is_file()


def test_a_clock_that_jumped_stops_nothing(
    server: Server, papers: Any, sync: Run, home: Home, clock: Any
) -> None:
    papers(listed(1))
    state = state_folder(home) / "requests.json"
    far = clock.wall() + 10 * 365 * 86400
    assert sync(pdf=False).exit_code == 0
    state.write_text(json.dumps({"arXiv": {"last": far, "not_before": far, "why": "arXiv asks us to wait"}}))
    assert sync(pdf=False, refresh=True).exit_code == 0
    assert min(server.gaps()) > 2.999
    for damaged in ('["not"]', '{"arXiv": {"last": NaN', '{"arXiv": {"last": NaN}}', "null", "[" * 10**5):
        state.write_text(damaged)
        assert sync(pdf=False, refresh=True).exit_code == 0


def test_a_requested_wait_is_kept_for_the_next_sync(
    server: Server, papers: Any, sync: Run, clock: Any
) -> None:
    papers(listed(2))
    server.fail("v1", status(429, Retry_After="1800"))
    first = sync()
    assert (first.exit_code, server.counts()["pdf"]) == (3, 1)
    assert first.not_before is not None
    second = sync()
    assert (second.exit_code, second.requests) == (3, 0)
    assert "arXiv asks us to wait; no more requests until" in second.reasons["p1"]
    clock.skip(1801)
    assert sync().headline == "2 papers: 2 fetched."


@pytest.mark.parametrize(
    "name", ["two-ids-one-unknown", "old-style-id", "pinned-version", "one-id", "unknown-id"]
)
def test_real_answers(name: str, server: Server, papers: Any, sync: Run, home: Home) -> None:
    ids = {
        "two-ids-one-unknown": ["0808.05394", "1707.08567"],
        "old-style-id": ["astro-ph/0601001"],
        "pinned-version": ["2104.12255v1"],
        "one-id": ["1605.08386"],
        "unknown-id": ["0808.05394"],
    }[name]
    papers({f"p{number}": f'- arxiv: "{one}"' for number, one in enumerate(ids)})
    body = (DATA / f"{name}.xml").read_bytes()
    server.fail("/api/query", status(200, body, Content_Type="application/atom+xml"), forever=True)
    summary = sync(pdf=False)
    known = {
        "two-ids-one-unknown": ("p1", "Proceedings of Workshop AEW10: Concepts in", 34, 1),
        "old-style-id": ("p0", "Frequency of Hot Jupiters", 4, 1),
        "pinned-version": ("p0", "0", 1, 1),
        "one-id": ("p0", "Heat-bath random walks with Markov bases", 2, 1),
    }
    if name in known:
        paper, title, authors, version = known[name]
        metadata = Library.open(home).metadata(paper)
        assert metadata
        assert metadata["title"].startswith(title)
        assert len(metadata["abstract"]) > 400
        assert not metadata["abstract"].startswith(" ")
        assert len(metadata["authors"]) == authors
        assert metadata["version"] == version
    assert len(summary.failed) == ("unknown" in name)
    assert all("asked twice" in reason for reason in summary.failed.values())


def test_the_real_refusal_of_an_id(server: Server, papers: Any, sync: Run) -> None:
    papers(listed(3))
    body = (DATA / "bad-id-400.xml").read_bytes().replace(b"abc", b"2001.00002")
    server.fail("/api/query", status(400, body, Content_Type="application/atom+xml"))
    summary = sync(pdf=False)
    assert summary.failed == {
        "p2": "papers.yaml:18: bad arXiv id '2001.00002'; arXiv does not accept this id"
    }
    assert [request.ids for request in server.requests[1:]] == [["2001.00001", "2001.00003"]]


def test_an_id_and_an_old_version_of_it(server: Server, papers: Any, sync: Run, home: Home) -> None:
    """If only one of the two arrives at first, neither is mistaken for the other."""
    server.papers = {"2001.00001": Paper(version=5)}
    papers({"newest": '- arxiv: "2001.00001"', "oldest": '- arxiv: "2001.00001v1"'})
    server.fail("/api/query", lambda handler, request: handler.feed(["2001.00001v1"]))
    assert sync(pdf=False).exit_code == 0
    versions = [Library.open(home).metadata(paper)["version"] for paper in ("newest", "oldest")]  # type: ignore
    assert versions == [5, 1]


def test_the_bad_id_among_60_is_found_by_halving(server: Server, papers: Any, sync: Run) -> None:
    papers(listed(60))

    def refuse(handler: loopback.Handler, request: loopback.Request) -> None:
        if "2001.00041" in request.ids:
            handler.answer(400, b"nothing is named")
        else:
            handler.serve(request)

    server.fail("/api/query", refuse, forever=True)
    summary = sync(pdf=False)
    assert list(summary.failed) == ["p41"]
    assert len(server.requests) <= 14
    assert min(server.gaps()) > 2.999


def test_a_server_that_refuses_everything_gets_fewer_than_60_requests(
    server: Server, papers: Any, sync: Run
) -> None:
    papers(listed(60))
    server.fail("/api/query", status(400, b"no"), forever=True)
    assert len(sync(pdf=False).failed) == 60
    assert len(server.requests) < 30


def test_the_package_still_has_the_session_that_is_replaced() -> None:
    client = arxiv.Client(page_size=3, delay_seconds=0, num_retries=0)
    assert isinstance(client._session, requests.Session)
    assert client.query_url_format.endswith("{}")


def test_the_version_that_is_recommended_is_the_one_that_is_tested(
    server: Server, papers: Any, sync: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = (Path(__file__).parents[2] / "lock" / "run.txt").read_text(encoding="utf-8")
    assert f"arxiv=={TESTED} \\" in pinned.splitlines()
    monkeypatch.setattr(arxiv, "Client", lambda **_: SimpleNamespace())
    papers(listed(1))
    with pytest.raises(ReadtrackError, match=f"-m pip install 'arxiv=={TESTED}'"):
        sync(pdf=False)


# Versions


def test_a_newer_version_replaces_the_pdf_and_a_pinned_one_stays(
    server: Server, papers: Any, sync: Run, home: Home
) -> None:
    server.papers = {"2001.00001": Paper(version=1), "2001.00002": Paper(version=5)}
    papers({"moving": '- arxiv: "2001.00001"', "pinned": '- arxiv: "2001.00002v3"'})
    sync()
    server.papers["2001.00001"].version = 2
    server.papers["2001.00002"].version = 6
    server.fail("00001v2", page())  # the new version fails at first
    failed = sync(refresh=True)
    assert failed.states == {"moving": "failed", "pinned": "done"}
    assert (home.pdfs / "moving.pdf").read_bytes() == server.pdf("2001.00001v1")
    summary = sync()
    assert summary.states == {"moving": "done", "pinned": "up to date"}
    assert (home.pdfs / "moving.pdf").read_bytes() == server.pdf("2001.00001v2")
    assert (home.pdfs / "pinned.pdf").read_bytes() == server.pdf("2001.00002v3")
    assert "moving: newer version v2 (v1 before)" in failed.notes
    assert [one for one in server.paths() if "pdf" in one][-1] == "/pdf/2001.00001v2"
    assert Pdfs(home).record("pinned").wanted == 3  # type: ignore[union-attr]


def test_old_facts_are_fetched_again_but_pinned_versions_are_not(
    server: Server, papers: Any, sync: Run, clock: Any
) -> None:
    papers({"moving": '- arxiv: "2001.00001"', "pinned": '- arxiv: "2001.00002v1"'})
    sync(pdf=False)
    clock.skip(31 * 86400)
    sync(pdf=False)
    assert [request.ids for request in server.requests] == [["2001.00001", "2001.00002v1"], ["2001.00001"]]
    assert sync(pdf=False).requests == 0


def test_withdrawn_papers_are_not_fetched_again(server: Server, papers: Any, sync: Run, home: Home) -> None:
    server.papers = {
        "2001.00001": Paper(version=2, pdfs={1}, comment="withdrawn"),
        "2001.00002": Paper(version=1, pdfs=set(), comment="withdrawn"),
    }
    papers(listed(2))
    first = sync()
    assert first.states == {"p1": "done", "p2": "withdrawn"}
    again = sync()
    assert (again.requests, again.exit_code) == (0, 0)
    assert again.states == {"p1": "up to date", "p2": "withdrawn"}
    server.papers["2001.00001"].version = 3  # only the first version has a PDF again
    server.papers["2001.00001"].pdfs = {2}
    assert sync(refresh=True).states["p1"] == "done"
    assert (home.pdfs / "p1.pdf").read_bytes() == server.pdf("2001.00001v2")


def test_the_earlier_version_that_is_here_is_not_fetched_again(
    server: Server, papers: Any, sync: Run, home: Home
) -> None:
    server.papers = {"2001.00001": Paper(version=1)}
    papers(listed(1))
    sync()
    server.papers["2001.00001"] = Paper(version=2, pdfs={1}, comment="Withdrawn: an error in section 3")
    summary = sync(refresh=True)
    assert server.paths().count("/pdf/2001.00001v1") == 1
    assert summary.notes[-1] == "p1: v2 has no PDF (withdrawn?); v1 is here"
    assert sync().requests == 0


def test_papers_that_arxiv_removed_keep_their_metadata(
    server: Server, papers: Any, sync: Run, home: Home
) -> None:
    papers(listed(2))
    sync()
    kept = (home.metadata / "p1.json").read_bytes()
    server.papers = {"2001.00002": Paper(title="A new title")}
    summary = sync(refresh=True)
    assert (summary.exit_code, summary.states) == (1, {"p1": "not found", "p2": "done"})
    assert (home.metadata / "p1.json").read_bytes() == kept
    assert json.loads((home.metadata / "p2.json").read_text())["title"] == "A new title"


def test_after_two_cut_files_the_link_that_arxiv_gave_is_used(
    server: Server, papers: Any, sync: Run, home: Home
) -> None:
    papers(listed(1))
    server.papers = {"2001.00001": Paper(link=f"{server.base}/own/link")}
    server.files["/own/link"] = pdf_bytes("own link")
    server.fail("00001v1", loopback.truncated, forever=True)
    endpoints = Endpoints.from_environment()
    assert not endpoints.links  # a mirror is used exclusively
    sync(endpoints=replace(endpoints, links=True))
    assert server.paths()[1:] == ["/pdf/2001.00001v1"] * 2 + ["/own/link"]
    assert (home.pdfs / "p1.pdf").read_bytes() == pdf_bytes("own link")


def test_a_link_that_leads_away_from_arxiv_is_not_used(
    server: Server, elsewhere: Server, papers: Any, sync: Run
) -> None:
    papers(listed(1))
    server.papers = {"2001.00001": Paper(link=f"{elsewhere.base}/own/link")}
    server.fail("00001v1", loopback.truncated, forever=True)
    sync(endpoints=replace(Endpoints.from_environment(), links=True))
    assert elsewhere.requests == []


# Other hosts


def test_sources_elsewhere_in_their_order(
    server: Server, elsewhere: Server, papers: Any, sync: Run, home: Home
) -> None:
    elsewhere.files.update({"/a.pdf": pdf_bytes("a"), "/b.pdf": pdf_bytes("b"), "/n.pdf": pdf_bytes("n")})
    base = elsewhere.base
    papers(
        {
            "first": f"- pdf: {base}/a.pdf\n- pdf: {base}/b.pdf",
            "mirror": f"- pdf: {base}/denied.pdf\n- pdf: {base}/b.pdf",
            "arxiv_first": f'- arxiv: "2001.00001"\n- pdf: {base}/a.pdf',
            "journal": f"- doi: 10.1000/x\n- pdf: {base}/n.pdf\n  note: a manuscript",
            "web": "- page: https://example.org/essay",
            "doi": "- doi: 10.1000/y",
            "beside": '- doi: 10.1000/z\n- arxiv: "2001.00009"\n  note: another work',
        }
    )
    elsewhere.fail("/denied.pdf", status(403), forever=True)
    server.fail("00001v1", status(404), forever=True)
    summary = sync()
    assert summary.exit_code == 0
    assert summary.of("web only") == {
        "web": "https://example.org/essay",
        "doi": "https://doi.org/10.1000/y",
        "beside": "https://doi.org/10.1000/z",
    }
    assert (home.pdfs / "first.pdf").read_bytes() == pdf_bytes("a")
    assert (home.pdfs / "mirror.pdf").read_bytes() == pdf_bytes("b")
    assert (home.pdfs / "arxiv_first.pdf").read_bytes() == pdf_bytes("a")
    assert (home.pdfs / "journal.pdf").read_bytes() == pdf_bytes("n")
    assert elsewhere.paths() == ["/a.pdf", "/denied.pdf", "/b.pdf", "/n.pdf"]  # /a.pdf once, then copied
    assert min(elsewhere.gaps()) > 0.999
    assert server.requests[0].ids == ["2001.00001"]
    assert sync().requests == 0


def test_denied_files_come_with_a_hint_to_use_a_browser(elsewhere: Server, papers: Any, sync: Run) -> None:
    elsewhere.fail("/a.pdf", page(403), forever=True)
    papers({"p": f"- pdf: {elsewhere.base}/a.pdf"})
    assert sync().headline == (
        f'p: failed: 127.0.0.1:{elsewhere.port} denied access (403, page "Just a moment..."); '
        f"open {elsewhere.base}/a.pdf, then: readtrack attach p FILE."
    )


def test_a_redirect_leads_to_a_private_host_only_from_one(
    server: Server, elsewhere: Server, papers: Any, sync: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere.files["/own.pdf"] = pdf_bytes("own")
    server.fail("00001v1", redirect(f"{elsewhere.base}/own.pdf"), forever=True)
    papers({"p": '- arxiv: "2001.00001"'})
    with monkeypatch.context() as patch:
        patch.setattr("readtrack.sync.transfer.is_private", lambda address: address[1] == elsewhere.port)
        assert "a public host points to 127.0.0.1, a private one" in sync().reasons["p"]
    assert elsewhere.requests == []
    assert sync().states["p"] == "done"  # a mirror on this machine may redirect to this machine


def test_after_a_403_only_requests_to_arxiv_stop(
    server: Server, elsewhere: Server, papers: Any, sync: Run, home: Home, tmp_path: Path
) -> None:
    elsewhere.files["/b.pdf"] = pdf_bytes("b")
    server.fail("/query", status(403), forever=True)
    papers({"a": '- arxiv: "2001.00001"', "b": f"- pdf: {elsewhere.base}/b.pdf"})
    summary = sync()
    assert summary.states == {"a": "failed", "b": "done"}
    assert "Listing, `attach` and `add` still work; no more requests until" in (summary.reasons["a"])
    sync()
    assert len(server.requests) == 1
    mine = tmp_path / "mine.pdf"
    mine.write_bytes(pdf_bytes("mine"))
    attach(home, "a", mine)
    assert (home.pdfs / "a.pdf").read_bytes() == mine.read_bytes()


def test_a_host_that_is_gone_does_not_stop_the_others(server: Server, papers: Any, sync: Run) -> None:
    papers({"gone": "- pdf: http://university.invalid/a.pdf", "p1": '- arxiv: "2001.00001"'})
    summary = sync()
    assert (summary.exit_code, summary.offline) == (1, False)
    assert summary.states == {"gone": "failed", "p1": "done"}
    assert "university.invalid cannot be found: the DNS lookup failed" in summary.reasons["gone"]


def test_a_proxy_from_the_environment_is_used(
    server: Server, papers: Any, sync: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    papers(listed(1))
    monkeypatch.setenv("HTTP_PROXY", server.base)
    monkeypatch.setenv("READTRACK_ARXIV_API", "http://export.arxiv.invalid/api/query")
    monkeypatch.setenv("READTRACK_ARXIV_PDF", "http://export.arxiv.invalid/pdf")
    summary = sync(pdf=False)
    assert summary.headline == "p1: done."
    assert [request.headers["host"] for request in server.requests] == ["export.arxiv.invalid"]


# One at a time


def test_two_syncs_at_once(server: Server, papers: Any, sync: Run, home: Home) -> None:
    from readtrack.sync.lock import AlreadyRunningError
    from readtrack.sync.lock import status as running

    papers(listed(1))
    seen: list[Any] = []

    def second(handler: loopback.Handler, request: loopback.Request) -> None:
        seen.append(running(home))
        with pytest.raises(AlreadyRunningError) as error:
            sync()
        seen.append(error.value)
        handler.serve(request)

    server.fail("/api/query", second)
    assert running(home) is None
    assert sync().exit_code == 0
    assert running(home) is None
    status, error = seen
    assert status.pid
    assert str(error).startswith(f"a sync is already running (process {status.pid}, since ")
    assert error.exit_code == 3
    assert server.counts() == {"api": 1, "pdf": 1}


def test_the_second_command_leaves_with_a_clear_text(
    server: Server, papers: Any, home: Home, capfd: pytest.CaptureFixture[str]
) -> None:
    from readtrack.cli.app import run as readtrack_command

    papers(listed(1))
    home.ensure(home.locks)
    script = (
        "import sys; from readtrack.home import Home; from readtrack.sync.lock import exclusive\n"
        "with exclusive(Home()): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        assert readtrack_command(["sync"]) == 3
        assert f"readtrack: a sync is already running (process {other.pid}, since" in capfd.readouterr().err
        assert server.requests == []
    finally:
        other.kill()
        other.wait()
    assert readtrack_command(["sync"]) == 0  # the lock ended with the process


# Others


def test_events_of_a_paper(server: Server, papers: Any, sync: Any) -> None:
    papers(listed(2))
    server.step = 4096
    sync()
    states = [event.state for event in sync.seen if event.paper == "p1"]
    assert states[0] == "metadata"
    assert states[-1] == "done"
    assert "downloading" in states
    sizes = [(e.bytes, e.total) for e in sync.seen if e.paper == "p1" and e.state == "downloading"]
    assert sizes == sorted(sizes)
    assert sizes[-1][0] == sizes[-1][1] == len(server.pdf("2001.00001v1"))
    etas = [event.eta for event in sync.seen if event.state == "downloading"]
    assert 5 < etas[0] < 10  # two papers, three seconds each
    assert etas[-1] < etas[0]


def test_an_unexpected_error_in_the_callback_ends_the_sync_and_frees_the_lock(
    server: Server, papers: Any, clock: Any, home: Home
) -> None:
    from readtrack.sync.engine import Sync
    from readtrack.sync.lock import status as running

    def report(progress: object) -> None:
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="own"):
        Sync(papers(listed(1)), clock=clock, report=report).run()
    assert running(home) is None
    assert Sync(papers(listed(1)), clock=clock).run().exit_code == 0


def test_importing_it_is_cheap() -> None:
    code = (
        "import sys, readtrack.sync.engine, readtrack.sync.add, readtrack.system, readtrack.cli.sync\n"
        "print([name for name in ('requests', 'arxiv', 'lxml', 'urllib3', 'yaml', 'rich', 'torch') "
        "if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_the_list_is_read_once(server: Server, papers: Any, sync: Run, home: Home) -> None:
    papers(listed(2))

    def edited_meanwhile(handler: loopback.Handler, request: loopback.Request) -> None:
        home.papers_yaml.write_text("title: [")
        handler.serve(request)

    server.fail("/api/query", edited_meanwhile)
    assert sync().headline == "2 papers: 2 fetched."


def test_no_thread_is_left(server: Server, papers: Any, sync: Run) -> None:
    papers(listed(2))
    server.fail("v1", loopback.incomplete, loopback.reset_midway)
    sync()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("readtrack")]
