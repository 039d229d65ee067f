"""Untrusted PDFs are read in a child process with limits, and unreadable ones only once."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from hostile_pdfs import form_laughs, make_pdf, objstm_bomb

from readtrack.cli import app
from readtrack.fulltext import pdf
from readtrack.home import Home
from readtrack.library import Library
from readtrack.notes import highlight
from readtrack.reading_list.load import shipped


@pytest.fixture
def bad(home: Home) -> Path:
    """A PDF that exceeds every deadline here."""
    path = home.ensure(home.pdfs) / "bert.pdf"
    path.write_bytes(form_laughs())
    return path


@pytest.fixture
def good(home: Home) -> Path:
    path = home.ensure(home.pdfs) / "gpt2.pdf"
    path.write_bytes(make_pdf("Zebras graze"))
    return path


def children() -> list[psutil.Process]:
    found = psutil.Process().children()
    alive = [one for one in found if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in alive if "pdf_child" in " ".join(one.cmdline())]


def gone_within(seconds: float, process: psutil.Process) -> bool:
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        return False
    return True


def test_a_pdf_that_takes_too_long_is_given_up_and_the_next_one_is_read(
    home: Home, bad: Path, good: Path
) -> None:
    began = time.monotonic()
    with pytest.raises(pdf.UnreadableError, match="could not be read in time"):
        pdf.pages(home, bad, 0.3)
    assert time.monotonic() - began < 2
    assert children() == []
    assert pdf.pages(home, good) == [(1, "Zebras graze")]
    assert pdf.page_count(home, good) == 1
    assert len(children()) == 1


def test_a_pdf_that_needs_too_much_memory_is_given_up(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pdf"
    path.write_bytes(objstm_bomb())
    with pytest.raises(pdf.UnreadableError, match="needs too much memory"):
        pdf.pages(home, path)


def test_failed_files_are_not_tried_again_until_they_change(
    home: Home, bad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(pdf.UnreadableError):
        pdf.pages(home, bad, 0.3)
    with monkeypatch.context() as patch:
        patch.setattr("readtrack.fulltext.pdf._start", lambda: pytest.fail("it was tried again"))
        with pytest.raises(pdf.UnreadableError, match="could not be read in time"):
            pdf.pages(home, bad)
    bad.write_bytes(make_pdf("whole now"))
    assert pdf.pages(home, bad) == [(1, "whole now")]


@pytest.mark.slow
def test_the_doctor_and_a_highlight_name_the_reason(
    home: Home, bad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(pdf.UnreadableError):
        pdf.pages(home, bad, 0.3)
    app.run(["doctor"])
    said = " ".join(capsys.readouterr().out.split())
    assert "bert.pdf could not be read in time" in said
    assert "readtrack attach bert FILE" in said
    with pytest.raises(pdf.UnreadableError, match="could not be read in time"):
        highlight(Library.open(home, shipped()), "bert", "any words")


def test_reading_can_be_cancelled(home: Home, bad: Path) -> None:
    event = threading.Event()
    threading.Timer(0.5, event.set).start()
    began = time.monotonic()
    with pdf.cancelled_by(event), pytest.raises(pdf.ExtractionCancelled):
        pdf.pages(home, bad)
    assert time.monotonic() - began < 2
    assert children() == []
    with pytest.raises(pdf.UnreadableError):  # it is not recorded as unreadable, but tried again
        pdf.pages(home, bad, 0.3)


def test_a_child_that_ended_during_a_request_is_replaced(
    home: Home, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    monkeypatch.setattr(pdf._child, "_process", leaving)
    assert pdf.page_count(home, good) == 1
    assert leaving.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_child_is_left_when_a_search_is_interrupted_or_killed(bad: Path, number: int) -> None:
    command = subprocess.Popen(
        [sys.executable, "-m", "readtrack", "search", "gating"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert command.stderr is not None
        assert command.stderr.readline() == "reading bert.pdf\n"
        while not (found := psutil.Process(command.pid).children()):
            time.sleep(0.02)
        time.sleep(0.5)  # while it is being read
        command.send_signal(number)
        assert command.wait(2) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        assert gone_within(2, found[0])
    finally:
        command.kill()
        command.communicate()


def test_no_pdf_is_parsed_in_the_process_that_searches(good: Path) -> None:
    code = (
        "import sys\nfrom readtrack.cli import app\n"
        "assert app.run(['search', 'zebras']) == 0\nassert app.run(['stats']) == 0\n"
        "assert 'pypdfium2' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
