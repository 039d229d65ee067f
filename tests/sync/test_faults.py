"""Every fault during a fetch: requests, pauses, messages, and the files on disk afterwards."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import loopback
import pytest
from loopback import Paper, Server, fresh, page, pdf_bytes, status

from readtrack.cli.app import run as readtrack
from readtrack.home import Home
from readtrack.library import Library

OLD, NEW = "2001.00009", ("2001.00001", "2001.00002", "2001.00003")
ALL = {"old", "one", "two", "three"}


@dataclass
class Machine:
    """The reader's machine, for scripts of faults."""

    server: Server
    clock: Any
    home: Home
    monkeypatch: pytest.MonkeyPatch


@dataclass(frozen=True)
class Case:
    """`api`, `pdf`: expected requests. `told`: expected parts of the output, in any order. `here`: papers
    whose PDF is in the library afterwards. `pauses`: minimum seconds of waiting in addition to the request
    rate.
    """

    name: str
    set_up: Callable[[Machine], Any]
    api: int = 1
    pdf: int = 3
    code: int = 0
    told: tuple[str, ...] = ("4 papers: 3 fetched, 1 up to date.",)
    here: frozenset[str] = frozenset(ALL)
    pauses: tuple[float, ...] = ()
    arguments: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)


def api(*faults: loopback.Fault, forever: bool = False) -> Callable[[Machine], None]:
    return lambda machine: machine.server.fail("/api/query", *faults, forever=forever)


def pdf(*faults: loopback.Fault, forever: bool = False, path: str = "00001v1") -> Callable[[Machine], None]:
    return lambda machine: machine.server.fail(path, *faults, forever=forever)


def hurried(fault: Callable[..., loopback.Fault], path: str, *, times: int = 1) -> Callable[[Machine], None]:
    """Speed up time while the server is slow."""

    def set_up(machine: Machine) -> None:
        def slow(handler: loopback.Handler, request: loopback.Request) -> None:
            with machine.clock.hurrying():
                fault()(handler, request)

        machine.server.fail(path, *[slow] * times)

    return set_up


def both(*set_ups: Callable[[Machine], Any]) -> Callable[[Machine], None]:
    def set_up(machine: Machine) -> None:
        for one in set_ups:
            one(machine)

    return set_up


def knows(**papers: Paper) -> Callable[[Machine], None]:
    """Change the server's data for the three new papers: one=Paper(...)."""

    def set_up(machine: Machine) -> None:
        known = {OLD: Paper(), **dict.fromkeys(NEW, Paper())}
        known.update({NEW[("one", "two", "three").index(name)]: paper for name, paper in papers.items()})
        machine.server.papers = known

    return set_up


def come_back_in(seconds: float) -> Callable[[Machine], None]:
    """A 429 response with the date until which to wait."""

    def set_up(machine: Machine) -> None:
        def fault(handler: loopback.Handler, request: loopback.Request) -> None:
            date = formatdate(machine.clock.wall() + seconds, usegmt=True)
            handler.answer(429, headers={"Retry-After": date})

        machine.server.fail("/api/query", fault)

    return set_up


def set_variable(name: str, value: str) -> Callable[[Machine], None]:
    return lambda machine: machine.monkeypatch.setenv(name, value.format(port=machine.server.port))


def limit(name: str, value: int) -> Callable[[Machine], None]:
    return lambda machine: machine.monkeypatch.setattr(f"readtrack.sync.files.{name}", value)


def disk_fills_up(machine: Machine) -> None:
    """The second part of a PDF does not fit on the disk."""
    real = Path.open

    def opened(path: Path, *arguments: Any, **options: Any) -> Any:
        file = real(path, *arguments, **options)
        if path.suffix == ".part" and "pdf" in path.name and arguments[:1] == ("wb+",):
            write, count = file.write, iter(range(100))

            class Full:
                def __getattr__(self, name: str) -> Any:
                    return getattr(file, name)

                def write(self, data: bytes) -> int:
                    if next(count) > 0:
                        raise OSError(errno.ENOSPC, "No space left on device")
                    return int(write(data))

            return Full()
        return file

    machine.monkeypatch.setattr(Path, "open", opened)


def too_long(handler: loopback.Handler, request: loopback.Request) -> None:
    """A PDF without an announced length that exceeds the limit."""
    handler.begin(200, {"Connection": "close"})
    handler.wfile.write(pdf_bytes("long", 90_000))
    handler.drop()


def no_space(machine: Machine) -> None:
    usage = shutil.disk_usage(machine.home.root)._replace(free=1000)
    machine.monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def folder_is_a_file(machine: Machine) -> None:
    """Not even root can create files in it."""
    machine.home.metadata.rename(machine.home.root / "elsewhere")
    machine.home.metadata.write_text("not a folder")


ONLY_OLD = frozenset({"old"})
NOT_ONE = frozenset(ALL - {"one"})
DONE = "4 papers: 3 fetched, 1 up to date."
ONE_FAILED = "4 papers: 2 fetched, 1 up to date, 1 did not arrive."
ALL_FAILED = "4 papers: 1 up to date, 3 did not arrive."

CASES = [
    Case("nothing is wrong", lambda machine: None),
    # 429, 403, 5xx, 400
    Case(
        "429 with Retry-After",
        api(status(429, Retry_After="45")),
        api=2,
        told=(DONE, "arXiv asks us to wait (429); trying again in 45 s"),
        pauses=(45,),
    ),
    Case("429 with Retry-After as a date", come_back_in(50), api=2, pauses=(48,)),
    Case("429 without Retry-After", pdf(*[status(429)] * 3), pdf=6, pauses=(30, 60, 120)),
    Case(
        "429 without end",
        pdf(status(429), forever=True),
        pdf=4,
        code=3,
        told=(ALL_FAILED, "arXiv asks us to wait; no more requests until"),
        here=ONLY_OLD,
        pauses=(30, 60, 120),
    ),
    Case(
        "429 for an hour",
        pdf(fresh, path="00001v1") and pdf(status(429, Retry_After="3600"), path="00002v1"),
        pdf=2,
        code=3,
        told=(
            "4 papers: 1 fetched, 1 up to date, 2 did not arrive.",
            "arXiv asks us to wait; no more requests until",
        ),
        here=frozenset({"old", "one"}),
    ),
    Case(
        "429 for five minutes, with --wait",
        pdf(status(429, Retry_After="300")),
        pdf=4,
        pauses=(300,),
        arguments=("--wait",),
    ),
    Case(
        "403 from the API",
        api(status(403)),
        pdf=0,
        code=3,
        told=(ALL_FAILED, "arXiv denied access; do not retry, see https://info.arxiv.org/help/contact.html"),
        here=ONLY_OLD,
    ),
    Case(
        "403 for a PDF",
        pdf(status(403)),
        pdf=1,
        code=3,
        told=(ALL_FAILED, "arXiv denied access; do not retry"),
        here=ONLY_OLD,
    ),
    Case("503 once", api(status(503)), api=2, told=(DONE, "server error at arXiv (503)"), pauses=(5,)),
    Case("503 with Retry-After", pdf(status(503, Retry_After="20")), pdf=4, pauses=(20,)),
    Case(
        "503 for a PDF without end",
        pdf(*[status(503)] * 5),
        pdf=7,
        code=1,
        told=(ONE_FAILED, "one                   server error at arXiv (503), 5 times"),
        here=NOT_ONE,
        pauses=(5, 10, 20, 40),
    ),
    Case(
        "500 for everything without end",
        both(api(status(500), forever=True), pdf(status(500), path="v1", forever=True)),
        api=5,
        pdf=0,  # without metadata, their versions are unknown
        code=1,
        told=(ALL_FAILED, "server error at arXiv (500), 5 times"),
        here=ONLY_OLD,
        pauses=(5, 10, 20, 40),
    ),
    Case(
        "502 for every PDF without end",
        pdf(status(502), path="v1", forever=True),
        pdf=15,
        code=1,
        told=(ALL_FAILED, "after 3 such failures in a row, requests to arXiv were stopped"),
        here=ONLY_OLD,
        pauses=(5, 10, 20, 40) * 3,
    ),
    Case(
        "400 that names an id of the batch",
        api(status(400, loopback.BAD_ID.format(id=NEW[0]).encode())),
        api=2,
        pdf=2,
        code=1,
        told=(ONE_FAILED, "papers.yaml:20: bad arXiv id '2001.00001'; arXiv does not accept this id"),
        here=NOT_ONE,
    ),
    Case(
        "400 that names nothing",
        lambda machine: machine.server.fail(
            "/api/query",
            status(400),  # one, two, three
            status(400),  # one
            fresh,  # two, three
        ),
        api=3,
        pdf=2,
        code=1,
        told=(ONE_FAILED, "papers.yaml:20: bad arXiv id '2001.00001'"),
        here=NOT_ONE,
    ),
    # Invalid feeds
    Case("an empty feed once", api(loopback.short_feed(0)), api=2),
    Case(
        "an empty feed always",
        api(loopback.short_feed(0), forever=True),
        api=2,
        pdf=0,
        code=1,
        told=(ALL_FAILED, "not found  one                   arXiv does not know 2001.00001 (asked twice)"),
        here=ONLY_OLD,
    ),
    Case("a short feed", api(loopback.short_feed(1)), api=2),
    Case(
        "an id that arXiv does not know",
        lambda machine: setattr(machine.server, "papers", {OLD: Paper(), NEW[1]: Paper(), NEW[2]: Paper()}),
        api=2,
        pdf=2,
        code=1,
        told=(ONE_FAILED, "arXiv does not know 2001.00001 (asked twice)"),
        here=NOT_ONE,
    ),
    Case("a cut feed once", api(loopback.cut_feed), api=2),
    Case(
        "a cut feed always",
        api(loopback.cut_feed, forever=True),
        api=2,
        pdf=0,
        code=1,
        told=(ALL_FAILED, "arXiv's answer was cut short"),
        here=ONLY_OLD,
    ),
    Case("a feed with doubles, and a total that is too large", api(loopback.doubled_feed), api=2),
    Case("a web page in place of the feed once", api(page()), api=2),
    Case(
        "a web page in place of the feed always",
        api(page(), forever=True),
        api=2,
        pdf=0,
        code=1,
        told=(ALL_FAILED, 'arXiv sent a web page ("Just a moment...") instead of an answer'),
        here=ONLY_OLD,
    ),
    # Invalid PDFs
    Case(
        "a web page in place of a PDF",
        pdf(page()),
        code=1,
        told=(
            ONE_FAILED,
            'a web page ("Just a moment...") instead of a PDF; open https://arxiv.org/abs/2001.00001',
            "readtrack attach one FILE",
        ),
        here=NOT_ONE,
    ),
    Case(
        "404 for a PDF",
        pdf(status(404), forever=True),
        code=1,
        told=(ONE_FAILED, "not found  one", "/pdf/2001.00001v1 (404)"),
        here=NOT_ONE,
    ),
    Case("a PDF shorter than announced, three times", pdf(*[loopback.truncated] * 3), pdf=6),
    Case(
        "a PDF shorter than announced, always",
        pdf(loopback.truncated, forever=True),
        pdf=6,
        code=1,
        told=(ONE_FAILED, "was interrupted, 4 times"),
        here=NOT_ONE,
    ),
    Case("a PDF without its end, twice", pdf(*[loopback.incomplete] * 2), pdf=5),
    Case(
        "a PDF without its end, always",
        pdf(loopback.incomplete, forever=True),
        pdf=5,
        code=1,
        told=(ONE_FAILED, "the file ends early, after 30.1 KiB, 3 times"),
        here=NOT_ONE,
    ),
    Case("a broken chunk", pdf(loopback.broken_chunk), pdf=4),
    Case(
        "a slow drip",
        hurried(loopback.drip, "00001v1"),
        code=1,
        told=(ONE_FAILED, "too slow: gave up after"),
        here=NOT_ONE,
    ),
    Case(
        "larger than allowed, as announced",
        pdf(loopback.announce(300 * 1024**2)),
        code=1,
        told=(ONE_FAILED, "larger than allowed (300.0 MiB; at most 200.0 MiB)"),
        here=NOT_ONE,
    ),
    Case(
        "larger than allowed, not announced",
        both(limit("PdfSink.limit", 70_000), pdf(too_long)),
        code=1,
        told=(ONE_FAILED, "larger than allowed (at most 68.4 KiB)"),
        here=NOT_ONE,
    ),
    # Network
    Case("a reset", api(loopback.reset_at_once), api=2),
    Case("a dropped connection, twice", pdf(*[loopback.drop_at_once] * 2), pdf=5),
    Case("a reset in mid-file", pdf(loopback.reset_midway), pdf=4),
    Case(
        "resets without end",
        pdf(loopback.reset_at_once, path="v1", forever=True),
        pdf=9,
        code=1,
        told=(ALL_FAILED, "the connection to arXiv failed", "requests to arXiv were stopped"),
        here=ONLY_OLD,
    ),
    Case(
        "silence before the answer",
        hurried(loopback.hang, "/api/query"),
        api=2,
        told=(DONE, "arXiv sent nothing"),
    ),
    Case(
        "silence without end",
        hurried(loopback.hang, "00001v1", times=3),
        pdf=5,
        code=1,
        told=(ONE_FAILED, "arXiv sent nothing for 1 min 10 s, 3 times"),
        here=NOT_ONE,
    ),
    Case(
        "no name service",
        set_variable("READTRACK_ARXIV_API", "http://export.arxiv.invalid/api/query"),
        api=0,
        pdf=0,
        code=3,
        told=("Offline. 1 paper fetched earlier.", "arXiv cannot be found: the DNS lookup failed"),
        here=ONLY_OLD,
    ),
    Case(
        "no TLS where TLS should be",
        set_variable("READTRACK_ARXIV_API", "https://127.0.0.1:{port}/api/query"),
        api=0,
        pdf=0,
        code=1,
        told=(ALL_FAILED, "cannot be trusted", "REQUESTS_CA_BUNDLE"),
        here=ONLY_OLD,
    ),
    Case(
        "redirects",
        lambda machine: (
            machine.server.fail("00001v1", loopback.redirect("/pdf/2001.00001v1?again")),
            machine.server.fail("00002v1", loopback.redirect("/pdf/2001.00002v1"), forever=True),
        ),
        pdf=2 + 6 + 1,
        code=1,
        told=(ONE_FAILED, "arXiv redirects more than 5 times"),
        here=frozenset(ALL - {"two"}),
    ),
    Case(
        "a redirect to a file",
        pdf(loopback.redirect("file:///etc/passwd")),
        code=1,
        told=(ONE_FAILED, "redirects to file:///etc/passwd, which is not followed"),
        here=NOT_ONE,
    ),
    # Feeds larger than the ids justify
    Case(
        "a feed of too many entries",
        api(loopback.crowded_feed),
        pdf=0,
        code=1,
        told=(ALL_FAILED, "arXiv's answer has 100 entries; 3 papers were requested"),
        here=ONLY_OLD,
    ),
    Case(
        "a feed of too many bytes",
        api(loopback.padded_feed),
        pdf=0,
        code=1,
        told=(ALL_FAILED, "larger than allowed (1.9 MiB; at most 1.4 MiB)"),
        here=ONLY_OLD,
    ),
    Case(
        "a feed that drips for ever",
        both(
            lambda machine: machine.monkeypatch.setattr("readtrack.sync.client.Bytes.deadline", 1.0),
            api(loopback.dripping_feed),
        ),
        pdf=0,
        code=1,
        told=(ALL_FAILED, "too slow: gave up after"),
        here=ONLY_OLD,
    ),
    # Disk
    Case(
        "a full disk, seen before",
        no_space,
        pdf=1,
        code=1,
        told=(ALL_FAILED, "the disk is full: 32.1 MiB needed", "1000 B free"),
        here=ONLY_OLD,
    ),
    Case(
        "a full disk, while writing",
        disk_fills_up,
        pdf=1,
        code=1,
        told=(ALL_FAILED, "the disk is full"),
        here=ONLY_OLD,
    ),
    Case(
        "a folder that cannot be written to",
        folder_is_a_file,
        api=0,
        pdf=0,
        code=2,
        told=("cannot write to", "/metadata (", "Set READTRACK_HOME"),
        here=ONLY_OLD,
    ),
    # Kinds of papers
    Case("a feed without the link to the PDF", knows(one=Paper(link=None))),
    Case(
        "withdrawn, with an earlier version",
        knows(one=Paper(version=3, pdfs={1, 2}, comment="Withdrawn by the authors")),
        pdf=4,
        told=(DONE, "one: v3 has no PDF (withdrawn?); v2 is here"),
    ),
    Case(
        "withdrawn for good",
        knows(one=Paper(version=2, pdfs=set(), comment="This paper has been withdrawn")),
        pdf=4,
        told=("4 papers: 2 fetched, 1 up to date, 1 withdrawn.", "withdrawn by its authors (v2)"),
        here=NOT_ONE,
    ),
    Case(
        "withdrawn, and a web page says so",
        both(
            knows(one=Paper(version=2, comment="withdrawn")),
            pdf(page(), path="00001v2"),
        ),
        pdf=4,
        told=(DONE, "v1 is here"),
    ),
    Case(
        "a hostile title",
        knows(
            one=Paper(
                title="Bold \u009b31m[bold]\u202etxet[/bold] \u0085\x7f", abstract="[link=evil]x[/link]\u202e"
            )
        ),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fault(
    case: Case,
    server: Server,
    clock: Any,
    home: Home,
    papers: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    papers({"old": f'- arxiv: "{OLD}"'})
    assert readtrack(["sync"]) == 0
    earlier = {path: path.read_bytes() for folder in (home.pdfs, home.metadata) for path in folder.iterdir()}
    new = dict(zip(("one", "two", "three"), NEW, strict=True))
    papers({"old": f'- arxiv: "{OLD}"', **{name: f'- arxiv: "{id_}"' for name, id_ in new.items()}})
    case.set_up(Machine(server, clock, home, monkeypatch))
    before, slept = len(server.requests), len(clock.slept)
    capfd.readouterr()

    code = readtrack(["sync", *case.arguments])

    printed = "".join(capfd.readouterr())
    monkeypatch.undo()  # look at the real library
    requests = server.requests[before:]
    assert code == case.code, printed
    for part in case.told:
        assert part in printed
    counts = [sum(r.path.startswith(start) for r in requests) for start in ("/api/query", "/pdf/")]
    assert counts == [case.api, case.pdf]
    assert all(gap > 2.999 for gap in server.gaps())
    assert all(request.others == 0 for request in requests)
    long = [seconds for seconds in clock.slept[slept:] if seconds > 3.0]
    assert len(long) == len(case.pauses)
    assert all(given <= seconds <= 1.26 * given + 1 for given, seconds in zip(case.pauses, long, strict=True))
    assert {path.stem for path in home.pdfs.glob("*.pdf")} == case.here
    for path in home.pdfs.glob("*.pdf"):
        assert path.read_bytes() in [server.pdf(f"{id_}v{v}") for id_ in (OLD, *NEW) for v in (1, 2)], path
    if home.metadata.is_dir():
        assert all(path.read_bytes() == data for path, data in earlier.items())
        assert all(Library.open(home).metadata(path.stem) for path in home.metadata.iterdir())
    assert not list(home.root.rglob("*.part"))
    assert "\x1b" not in printed
    assert "\u202e" not in printed
