"""How a sync treats existing files: its own, damaged ones, and the reader's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loopback
import pytest
from loopback import Paper, Server, pdf_bytes

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.sync import files
from readtrack.sync.files import Pdfs, attach
from readtrack.sync.report import SyncSummary

Run = Callable[..., SyncSummary]


def listed(count: int) -> dict[str, str]:
    return {f"p{number}": f'- arxiv: "2001.{number:05}"' for number in range(1, count + 1)}


def test_a_lost_and_a_damaged_pdf_are_repaired(server: Server, papers: Any, sync: Run, home: Home) -> None:
    papers(listed(3))
    sync()
    (home.pdfs / "p1.pdf").unlink()
    with (home.pdfs / "p2.pdf").open("r+b") as file:
        file.truncate(30_000)
    assert sync().repaired == ["p1"]  # PDFs are read only with --verify
    summary = sync(verify=True)
    assert summary.repaired == ["p2"]
    assert summary.headline == "3 papers: 1 fetched, 2 up to date. Repaired 1 file."
    assert all((home.pdfs / f"p{n}.pdf").read_bytes() == server.pdf(f"2001.0000{n}v1") for n in (1, 2, 3))
    assert server.counts() == {"api": 1, "pdf": 5}


def test_a_pdf_with_the_readers_marks_is_kept_next_to_the_new_one(
    server: Server, papers: Any, sync: Run, home: Home
) -> None:
    papers(listed(1))
    sync()
    marked = (home.pdfs / "p1.pdf").read_bytes() + b"% marks\nstartxref\n0\n%%EOF\n"
    (home.pdfs / "p1.pdf").write_bytes(marked)
    assert sync().requests == 0
    summary = sync(verify=True)
    assert (home.pdfs / "p1.kept-1.pdf").read_bytes() == marked
    assert (home.pdfs / "p1.pdf").read_bytes() == server.pdf("2001.00001v1")
    assert "p1: you had changed the PDF; your copy is now p1.kept-1.pdf" in summary.notes


def test_pdfs_of_the_readers_own_are_never_replaced(
    server: Server, papers: Any, sync: Run, home: Home, tmp_path: Path
) -> None:
    server.papers = {f"2001.0000{n}": Paper(version=1) for n in (1, 2, 3)}
    papers(listed(3))
    mine = tmp_path / "mine.pdf"
    mine.write_bytes(pdf_bytes("mine"))
    attach(home, "p1", mine)
    (home.pdfs / "p2.pdf").write_bytes(pdf_bytes("put here"))
    (home.pdfs / "p3.pdf").write_bytes(b"no PDF at all")
    summary = sync()
    assert summary.states == {"p1": "done", "p2": "done", "p3": "failed"}
    assert (
        "is damaged (the file is not a PDF) and was not fetched by a sync; move it" in summary.reasons["p3"]
    )
    server.papers["2001.00001"].version = server.papers["2001.00002"].version = 2
    sync(refresh=True, verify=True)
    assert (home.pdfs / "p1.pdf").read_bytes() == pdf_bytes("mine")
    assert (home.pdfs / "p2.pdf").read_bytes() == pdf_bytes("put here")
    assert (home.pdfs / "p3.pdf").read_bytes() == b"no PDF at all"
    assert server.counts() == {"api": 2}


@pytest.mark.parametrize("kind", ["device", "link to a device", "pipe", "folder"])
def test_only_a_regular_file_is_attached(papers: Any, home: Home, tmp_path: Path, kind: str) -> None:
    papers(listed(1))
    path = tmp_path / "a.pdf"
    if kind == "device":
        path = Path("/dev/zero")
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(ReadtrackError, match="is not a regular file"):
        attach(home, "p1", path)
    assert list(home.pdfs.iterdir()) == []


def test_no_larger_file_is_attached_than_a_sync_fetches(papers: Any, home: Home, tmp_path: Path) -> None:
    papers(listed(1))
    path = tmp_path / "a.pdf"
    with path.open("wb") as file:
        file.truncate(files.LIMIT + 1)
    with pytest.raises(ReadtrackError, match=r"the limit is 200\.0 MiB"):
        attach(home, "p1", path)
    assert list(home.pdfs.iterdir()) == []


def test_a_sync_that_starts_leaves_part_files_of_living_processes(
    papers: Any, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    papers(listed(1))
    mine = tmp_path / "mine.pdf"
    mine.write_bytes(pdf_bytes("mine"))
    dead = home.ensure(home.pdfs) / ".p2.pdf.4194305-0a1b2c3d.part"  # no process has such a high number
    dead.write_bytes(b"left")

    def copy(source: Any, target: Any) -> None:
        target.write(source.read())
        Pdfs(home).remove_partial_files()  # as a starting sync does

    monkeypatch.setattr("readtrack.sync.files.shutil.copyfileobj", copy)
    path, _ = attach(home, "p1", mine)
    assert path.read_bytes() == mine.read_bytes()
    assert not dead.exists()


def test_a_pdf_attached_while_it_is_fetched_wins(
    server: Server, papers: Any, sync: Run, home: Home, tmp_path: Path
) -> None:
    papers(listed(1))
    mine = tmp_path / "mine.pdf"
    mine.write_bytes(pdf_bytes("mine"))

    def attached_meanwhile(handler: loopback.Handler, request: loopback.Request) -> None:
        attach(home, "p1", mine)
        handler.serve(request)

    server.fail("00001v1", attached_meanwhile)
    assert sync().exit_code == 0
    assert (home.pdfs / "p1.pdf").read_bytes() == pdf_bytes("mine")


def test_part_files_of_killed_processes_go(server: Server, papers: Any, sync: Run, home: Home) -> None:
    papers(listed(1))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = [home.pdfs / f".p1.pdf.{ended.pid}-aa.part", home.metadata / f".p1.json.{ended.pid}-bb.part"]
    for path in left:
        home.ensure(path.parent)
        path.write_bytes(b"half")
    sync()
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize("renamed", [True, False])
def test_a_kill_between_the_pdf_and_its_record(
    renamed: bool, server: Server, papers: Any, sync: Run, home: Home
) -> None:
    server.papers = {"2001.00001": Paper(version=1)}
    papers(listed(1))
    sync()
    before, ready = (home.pdfs / "p1.json").read_text(), home.pdfs / ".p1.record"
    old = (home.pdfs / "p1.pdf").read_bytes()
    server.papers["2001.00001"].version = 2
    sync(refresh=True)
    (home.pdfs / "p1.json").rename(ready)
    (home.pdfs / "p1.json").write_text(before)
    if not renamed:
        (home.pdfs / "p1.pdf").write_bytes(old)
    summary = sync()
    assert summary.requests == (0 if renamed else 1)
    assert Pdfs(home).record("p1").version == 2  # type: ignore[union-attr]
    assert sorted(path.name for path in home.pdfs.iterdir()) == ["p1.json", "p1.pdf"]


def test_an_old_id_with_its_subject(server: Server, papers: Any, sync: Run, home: Home) -> None:
    """arXiv answers math.GT/0309136 with math/0309136v1."""
    papers({"p": "- arxiv: math.GT/0309136"})
    server.fail("/api/query", lambda handler, request: handler.feed(["math/0309136"]))
    assert sync().headline == "p: done."
    assert server.requests[0].ids == ["math.GT/0309136"]
    assert server.paths()[1:] == ["/pdf/math/0309136v1"]


def test_damaged_metadata_is_fetched_again(server: Server, papers: Any, sync: Run, home: Home) -> None:
    papers(listed(3))
    sync()
    (home.metadata / "p1.json").write_text('{"title": "cut')
    (home.metadata / "p2.json").write_text("[]")
    assert sync().states == {"p1": "done", "p2": "done", "p3": "up to date"}
    assert server.requests[-1].ids == ["2001.00001", "2001.00002"]


def test_another_source_in_the_list_brings_another_pdf(
    server: Server, elsewhere: Server, papers: Any, sync: Run, home: Home
) -> None:
    elsewhere.files["/other.pdf"] = pdf_bytes("other")
    papers({"p": '- arxiv: "2001.00001"'})
    sync()
    papers({"p": '- arxiv: "2001.00002"'})
    assert sync().states == {"p": "done"}
    assert (home.pdfs / "p.pdf").read_bytes() == server.pdf("2001.00002v1")
    papers({"p": f"- pdf: {elsewhere.base}/other.pdf"})
    assert sync().states == {"p": "done"}
    assert (home.pdfs / "p.pdf").read_bytes() == pdf_bytes("other")
