"""`readtrack sync`, `attach` and `open`, through the installed command."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from loopback import Paper, Server, page, pdf_bytes, status

from readtrack import system
from readtrack.cli.app import run as readtrack
from readtrack.home import Home
from readtrack.library import Library
from readtrack.sync.files import Pdfs

LISTED = {
    "one": '- arxiv: "2001.00001"',
    "two": '- arxiv: "2001.00002"',
    "web": "- page: https://example.org/a",
}


def test_plain_lines(server: Server, papers: Any, home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    papers(LISTED)
    server.fail("00002v1", page(), forever=True)
    assert readtrack(["sync"]) == 1
    printed, told = capfd.readouterr()
    assert printed.splitlines() == [
        "done       one",
        (
            'failed     two                   a web page ("Just a moment...") instead of a PDF; '
            "open https://arxiv.org/abs/2001.00002, then: readtrack attach two FILE"
        ),
        "3 papers: 1 fetched, 1 on the web only, 1 did not arrive.",
    ]
    assert told == ""


def test_json_lines(server: Server, papers: Any, home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    papers(LISTED)
    server.fail("/api/query", status(503))
    assert readtrack(["sync", "--json", "one", "web"]) == 0
    printed, told = capfd.readouterr()
    *events, summary = map(json.loads, printed.splitlines())
    assert {event["event"] for event in events} == {"progress"}
    assert next(e["message"] for e in events if not e["paper"]).startswith(
        "server error at arXiv (503); trying"
    )
    assert [e["state"] for e in events if e["paper"] == "one"][-1] == "done"
    assert summary["event"] == "summary"
    assert summary["states"] == {"one": "done", "web": "web only"}
    assert summary["reasons"] == {"web": "https://example.org/a"}
    assert (summary["exit_code"], summary["requests"], summary["not_before"]) == (0, 3, None)
    assert told == ""


def test_no_pdf_and_unknown_papers(
    server: Server, papers: Any, home: Home, capfd: pytest.CaptureFixture[str]
) -> None:
    papers(LISTED)
    assert readtrack(["sync", "--no-pdf"]) == 0
    assert server.counts() == {"api": 1}
    assert readtrack(["sync", "nobody"]) == 2
    assert "There is no paper 'nobody'" in capfd.readouterr().err
    assert server.counts() == {"api": 1}


def test_the_help_lists_the_exit_codes(capfd: pytest.CaptureFixture[str]) -> None:
    assert readtrack(["sync", "--help"]) == 0
    printed = capfd.readouterr().out
    assert "3    not now: offline" in printed
    assert "READTRACK_ARXIV_API" in printed


def test_a_bad_mirror_is_a_usage_error(
    papers: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    papers(LISTED)
    monkeypatch.setenv("READTRACK_ARXIV_API", "arxiv.org/api")
    assert readtrack(["sync"]) == 2
    assert "READTRACK_ARXIV_API is 'arxiv.org/api'; it must be a link" in capfd.readouterr().err


def test_a_bug_in_the_sync_reaches_the_reader(
    server: Server,
    papers: Any,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    papers(LISTED)

    def broken(*arguments: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr("readtrack.sync.metadata.fetch", broken)
    assert readtrack(["sync"]) == 1
    assert "this is a bug in readtrack: RuntimeError: no such luck" in capfd.readouterr().err


@pytest.mark.timing
def test_a_closed_pipe_ends_the_sync(server: Server, papers: Any, home: Home) -> None:
    papers(LISTED)
    command = f"{Path(sys.executable).with_name('readtrack')} sync --json | head -n 1"
    began = time.monotonic()
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert time.monotonic() - began < 6
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
    assert server.counts()["pdf"] == 0  # it ended during the preceding pause


def test_on_a_terminal(server: Server, papers: Any, home: Home) -> None:
    papers(LISTED)
    server.papers = {"2001.00001": Paper(), "2001.00002": Paper(version=2, pdfs=set(), comment="withdrawn")}
    server.pause = 0.05
    printed = in_terminal("sync")
    assert "asking arXiv for abstracts" in printed
    assert "about" in printed
    assert "0 of 2 papers" in printed or "1 of 3 papers" in printed
    assert "of 60." in printed  # KiB of the PDF
    assert "✓ one" in printed
    assert "3 papers: 1 fetched, 1 on the web only, 1 withdrawn." in printed
    assert "two: withdrawn by its authors (v2); no PDF is offered" in printed
    assert printed.count("\x1b[?25l") <= printed.count("\x1b[?25h")  # the cursor is visible at the end


def in_terminal(*arguments: str) -> str:
    """The output of the command on a terminal of 80 columns, without colours."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="80", LINES="24")
        os.execv(Path(sys.executable).with_name("readtrack"), ["readtrack", *arguments])
    written, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        written += data
    os.close(terminal)
    _, outcome = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(outcome) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", written.decode())


# attach and open


def test_attach_and_open(papers: Any, home: Home, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    papers(LISTED)
    mine = tmp_path / "down load.pdf"
    mine.write_bytes(pdf_bytes("mine"))
    assert readtrack(["open", "web"]) == 0
    printed, told = capfd.readouterr()
    assert printed == "https://example.org/a\n"
    assert "readtrack sync" not in told  # there is no link to a PDF
    assert readtrack(["attach", "web", str(mine)]) == 0
    assert capfd.readouterr().out == f"web: {home.pdfs / 'web.pdf'}\n"
    assert readtrack(["open", "web"]) == 0
    assert capfd.readouterr() == (f"{home.pdfs / 'web.pdf'}\n", "")
    assert (home.pdfs / "web.pdf").read_bytes() == pdf_bytes("mine")
    record = Pdfs(home).record("web")
    assert record
    assert (record.origin, record.source) == ("attached", "down load.pdf")
    assert Library.open(home).pdf("web")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"<!doctype html><title>Log in</title>", 'a web page ("Log in") instead of a PDF'),
        (pdf_bytes("x")[:30_000], "the file ends early, after 29.3 KiB"),
        (b"", "the file is not a PDF"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_is_not_a_pdf_is_not_attached(
    data: bytes | None, told: str, papers: Any, home: Home, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    papers(LISTED)
    file = tmp_path / "a.pdf"
    if data is not None:
        file.write_bytes(data)
    assert readtrack(["attach", "one", str(file)]) == 2
    assert told in capfd.readouterr().err
    assert list(home.pdfs.iterdir()) == []


def test_attaching_over_a_pdf_of_the_readers_own_keeps_it(
    papers: Any, home: Home, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    papers(LISTED)
    for name in ("first", "second", "third"):
        (tmp_path / name).write_bytes(pdf_bytes(name))
        assert readtrack(["attach", "one", str(tmp_path / name)]) == 0
    assert "the previous PDF is now" in capfd.readouterr().err
    kept = {path.name: path.read_bytes() for path in home.pdfs.glob("one*.pdf")}
    assert kept == {
        "one.pdf": pdf_bytes("third"),
        "one.kept-1.pdf": pdf_bytes("first"),
        "one.kept-2.pdf": pdf_bytes("second"),
    }


def test_the_viewer_is_given_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\nprintf %s "$1" > {seen}.part && mv {seen}.part {seen}\n')
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(system.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not system.open_with_system(tmp_path / "a b.pdf")  # no display, no viewer
    monkeypatch.setenv("DISPLAY", ":0")
    assert system.open_with_system(tmp_path / "a b.pdf")
    end = time.monotonic() + 10
    while not seen.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert seen.read_text() == str(tmp_path / "a b.pdf")
