"""A sync in the app, with the loopback arXiv or a scripted engine."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import message, status, until
from textual.pilot import Pilot

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.present.plain_ascii import one_column
from readtrack.sync.clock import Clock, SyncCancelled
from readtrack.sync.lock import exclusive
from readtrack.sync.report import State, SyncProgress, SyncSummary
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.screens.library import LibraryScreen
from readtrack.tui.screens.sync import SyncScreen
from readtrack.tui.widgets.line_view import LineView

sys.path.insert(0, str(Path(__file__).parents[1] / "sync"))

import loopback
from loopback import Paper, Server

ALL = ("sgd", "adam", "hessian", "attention", "flash")
Screen = Callable[[ReadtrackApp], str]


class Engine:
    """A fake sync with scripted reports, which ends on request or when cancelled."""

    made: list[Engine]

    def __init__(
        self,
        library: Library,
        papers: tuple[str, ...],
        *,
        report: Callable[[SyncProgress], None],
        cancel: threading.Event,
    ) -> None:
        self.home = library.home
        self.papers = papers
        self.report = report
        self.cancel = cancel
        self.done = threading.Event()
        self.outcome: SyncSummary | Exception = SyncSummary(dict.fromkeys(papers, "up to date"))
        self.began, self.over = threading.Event(), threading.Event()
        self.stubborn = False
        self.made.append(self)

    def run(self) -> SyncSummary:
        self.began.set()
        while not self.done.wait(0.01):
            if self.cancel.is_set() and not self.stubborn:
                self.over.set()
                return SyncSummary(dict.fromkeys(self.papers, "cancelled"), cancelled=True)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def say(self, paper: str, state: State, **fields: Any) -> None:
        self.report(SyncProgress(paper=paper, state=state, **fields))

    def end(self, states: dict[str, State], reasons: dict[str, str] | None = None, **fields: Any) -> None:
        for paper, state in states.items():
            self.say(paper, state, message=(reasons or {}).get(paper, ""))
        self.outcome = SyncSummary(states, reasons or {}, **fields)
        self.done.set()


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Engine]]:
    Engine.made = []
    monkeypatch.setattr("readtrack.sync.engine.Sync", Engine)
    yield Engine.made
    for engine in Engine.made:
        engine.cancel.set()


class NoWaiting(Clock):
    def __init__(self) -> None:
        self._skipped = 0.0

    def now(self) -> float:
        return time.monotonic() + self._skipped

    def wall(self) -> float:
        return time.time() + self._skipped

    def sleep(self, seconds: float, cancel: threading.Event) -> None:
        if cancel.is_set():
            raise SyncCancelled
        self._skipped += max(0.0, seconds)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    clock = NoWaiting()
    monkeypatch.setattr("readtrack.sync.engine.Clock", lambda: clock)
    with Server(clock.now) as server:
        monkeypatch.setenv("READTRACK_ARXIV_API", f"{server.base}/api/query")
        monkeypatch.setenv("READTRACK_ARXIV_PDF", f"{server.base}/pdf")
        yield server


async def ended(pilot: Pilot[int], app: ReadtrackApp) -> None:
    await until(pilot, lambda: app.syncs.last and app.syncs.last.ended, "the end of the sync")
    await pilot.pause()


async def begin(pilot: Pilot[int], app: ReadtrackApp, subject: str = "attention", key: str = "s") -> None:
    await pilot.pause()
    assert app.main.checklist.go_to_subject(subject)
    await pilot.pause()
    await pilot.press(key)
    await pilot.pause()


def strip(app: ReadtrackApp) -> str:
    line = app.main.query_one("#sync")
    return str(line.render()) if line.display else ""


def sync_page(app: ReadtrackApp) -> str:
    assert isinstance(app.screen, SyncScreen)
    return "\n".join(line.content.plain.rstrip() for line in app.screen.query_one(LineView).lines)


# Over the loopback server


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_s_fetches_the_paper_and_the_open_page_shows_it(
    app: ReadtrackApp, home: Home, server: Server, screen_text: Screen, size: tuple[int, int]
) -> None:
    server.papers = {"1706.03762": Paper(abstract="[red]Attention[/red] is \x07enough.", version=7)}
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("attention")
        await pilot.press("enter", "G")
        await pilot.pause()
        assert "Not downloaded. Press s" in screen_text(app)
        await pilot.press("s")
        await ended(pilot, app)
        assert "attention: done" in status(app)
        await pilot.press("G")
        await pilot.pause()
        assert "[red]Attention[/red] is enough." in screen_text(app)
        assert (home.pdfs / "attention.pdf").read_bytes().startswith(b"%PDF-")
        assert str(home.pdfs)[:20] in "\n".join(line.content.plain for line in app.main.paper.lines)
        assert list(home.metadata.iterdir()) == [home.metadata / "attention.json"]
        await pilot.press("p")
        assert "attention.pdf" in app.clipboard
        await pilot.press("escape", "/", *"enough", "enter")
        assert "attention" in (app.main.checklist.found or ())  # its abstract can be searched immediately
    assert server.counts() == {"api": 1, "pdf": 1}


async def test_S_fetches_the_whole_list_and_again_asks_for_nothing(
    app: ReadtrackApp, home: Home, server: Server
) -> None:
    async with app.run_test() as pilot:
        await begin(pilot, app, key="S")
        await ended(pilot, app)
        assert {path.stem for path in home.pdfs.glob("*.pdf")} == {"adam", "attention", "flash"}
        assert "5 papers: 3 fetched, 2 on the web only." in status(app)
        asked = len(server.requests)
        await pilot.press("S")
        await until(pilot, lambda: "3 up to date" in status(app), "the end of the second sync")
        assert len(server.requests) == asked
        assert not app._notifications


async def test_failed_downloads_are_named_with_the_reason(
    app: ReadtrackApp, server: Server, screen_text: Screen
) -> None:
    server.papers = {"1706.03762": Paper(), "1412.6980": Paper(pdfs=set())}
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await begin(pilot, app, key="S")
        await ended(pilot, app)
        told = message(app)
        assert told.startswith("Some papers could not be fetched.\n")
        assert "flash: arXiv does not know 2205.14135" in told
        assert "adam: " in told
        await until(pilot, lambda: app.screen.query("Toast"), "the notification")
        await pilot.pause()
        assert app.screen.query_one("Toast").region.y >= app.main.query_one("#hints").region.bottom
        await pilot.press("w")
        await pilot.pause()
        shown = sync_page(app)
        assert shown.index("Failed") < shown.index("Web only")
        assert "! flash                arXiv does not know 2205.14135" in shown
        assert max(map(len, screen_text(app).splitlines())) <= 80


async def test_a_row_and_a_section_stand_for_their_papers(app: ReadtrackApp, engines: list[Engine]) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("s")  # the cursor starts on a row with two papers
        assert engines[-1].papers == ("sgd", "adam")
        engines[-1].done.set()
        await ended(pilot, app)
        await pilot.press("}", "s")
        assert engines[-1].papers == ("attention", "flash")
        engines[-1].done.set()
        await ended(pilot, app)
        await pilot.press("G", "s", "s")  # a row that is a link
        assert len(engines) == 2
        assert "isn't linked to a paper" in status(app)


# Display during a sync


@pytest.mark.parametrize("size", [(80, 24), (120, 30)])
async def test_the_line_and_the_page_of_a_sync_that_is_alive(
    app: ReadtrackApp,
    engines: list[Engine],
    screen_text: Screen,
    golden: Callable[[str, str], None],
    size: tuple[int, int],
) -> None:
    async with app.run_test(size=size) as pilot:
        assert strip(app) == ""
        await begin(pilot, app, key="S")
        (engine,) = engines
        assert engine.papers == ALL
        assert "sync 0/5" in strip(app)
        for paper in ("adam", "attention", "flash"):
            engine.say(paper, "metadata")
        await until(pilot, lambda: "asking arXiv for abstracts" in strip(app), "the metadata")
        engine.say("sgd", "web only", message="https://doi.org/10.1214/aoms/1177729586")
        engine.say("hessian", "web only", message="https://doi.org/10.1162/neco.1994.6.1.147")
        for paper in ("adam", "attention", "flash"):
            engine.say(paper, "waiting")
        engine.say("adam", "downloading", bytes=1 << 20, total=3 << 20, eta=94.0)
        await until(pilot, lambda: "adam 1.0 MiB of 3.0 MiB" in strip(app), "the download")
        assert "sync 2/5  about 1 min" in strip(app)
        engine.say("", "waiting", message="arXiv asks to wait; \x1b[31mtrying [b]again[/b] in 30 s")
        await until(pilot, lambda: "trying [b]again[/b] in 30 s" in strip(app), "the notice")
        engine.say("adam", "downloading", bytes=2 << 20, total=3 << 20, eta=5430.0)  # half a minute to spare
        await until(pilot, lambda: "2.0 MiB" in strip(app), "the next piece")
        screens = [screen_text(app)]
        assert "about 1 h 30 min left" in strip(app)
        await pilot.press("w")
        await pilot.pause()
        screens.append(screen_text(app))
        engine.say("adam", "done")
        await until(pilot, lambda: "Arrived  1" in sync_page(app), "the paper on the page")
        engine.end(
            {
                "sgd": "web only",
                "adam": "done",
                "hessian": "web only",
                "attention": "not found",
                "flash": "failed",
            },
            {
                "attention": "arXiv does not know 1706.03762 (asked twice)",
                "flash": "arXiv asks for peace until 03:10; sync again then",
            },
            not_before="2026-01-02T03:10:00+00:00",
            notes=["adam: newer version v9 (v8 before)"],
        )
        await ended(pilot, app)
        assert strip(app) == ""
        assert "No requests to arXiv before 03:10 on 02 January" in message(app)
        app.clear_notifications()
        await pilot.pause()
        screens.append(screen_text(app))
        assert one_column("\n".join(screens)).isascii()
        text = ("\n" + "═" * size[0] + "\n").join(screens)
        shipped = Path(__file__).parents[2] / "plugins" / "attention" / "__init__.py"
        count = len(shipped.read_text(encoding="utf-8").splitlines())
        golden(f"sync-{size[0]}", re.sub(rf"(?<=[−│]){count},", "NN,", text))


async def test_reading_filtering_and_notes_go_on(app: ReadtrackApp, engines: list[Engine]) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await begin(pilot, app, key="S")
        await pilot.press("j", "2")
        assert app.library.state("flash") == "reading"
        await pilot.press("/", *"sSwc", "escape")
        assert isinstance(app.screen, LibraryScreen)
        assert not engines[0].cancel.is_set()
        app.main.checklist.go_to_subject("flash")
        await pilot.pause()
        await pilot.press("n")
        await pilot.pause()
        await pilot.press("s", "S", "escape")
        await pilot.pause()
        assert app.library.note("flash") == "sS"
        assert "sync 0/5" in strip(app)
        assert len(engines) == 1


async def test_only_the_papers_own_page_is_drawn_again(app: ReadtrackApp, engines: list[Engine]) -> None:
    async with app.run_test(size=(160, 50)) as pilot:
        await begin(pilot, app, key="S")
        drawn: list[str] = []
        rebuild = app.main.paper.rebuild
        app.main.paper.rebuild = lambda **how: (drawn.append("again"), rebuild(**how))  # type: ignore
        engines[0].say("adam", "metadata")
        await until(pilot, lambda: "asking" in strip(app), "another paper")
        assert not drawn
        engines[0].say("attention", "waiting")
        await until(pilot, lambda: drawn, "the paper itself")


@pytest.mark.parametrize(
    "keys", [("s", "s"), ("S", "S"), ("s", "S", "s", "w", "w"), ("S", "w", "s", "S", "w")]
)
async def test_a_second_press_shows_the_sync_and_starts_no_other(
    app: ReadtrackApp, engines: list[Engine], keys: tuple[str, ...]
) -> None:
    async with app.run_test() as pilot:
        await begin(pilot, app, key=keys[0])
        for number, key in enumerate(keys[1:]):
            await pilot.press(key)
            await pilot.pause()
            assert isinstance(app.screen, SyncScreen) == (number % 2 == 0)
        assert len(engines) == 1


async def test_w_before_any_sync_shows_the_keys_that_start_one(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("w", "w")
        assert "Press s to fetch this paper, S for the whole list" in status(app)


async def test_enter_on_the_page_goes_to_the_paper(app: ReadtrackApp, engines: list[Engine]) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await begin(pilot, app, key="S")
        engines[0].end({**dict.fromkeys(ALL, "up to date"), "flash": "failed"}, {"flash": "no"})
        await ended(pilot, app)
        await pilot.press("w")
        await pilot.pause()
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, LibraryScreen)
        assert app.entry is not None
        assert app.entry.subject == "flash"
        assert app.main.on_right


async def test_a_click_on_the_line_opens_the_page(app: ReadtrackApp, engines: list[Engine]) -> None:
    async with app.run_test() as pilot:
        await begin(pilot, app, key="S")
        await pilot.click("#sync")
        await pilot.pause()
        assert isinstance(app.screen, SyncScreen)


# End of a sync


@pytest.mark.timing
@pytest.mark.parametrize("where", ["list", "page"])
async def test_c_stops_it_within_a_file_and_it_continues_later(
    app: ReadtrackApp, home: Home, server: Server, where: str
) -> None:
    server.fail("2205.14135v1", loopback.drip())
    async with app.run_test() as pilot:
        await begin(pilot, app, key="S")
        await until(pilot, lambda: "flash" in strip(app), "the slow download")
        if where == "page":
            await pilot.press("w")
            await pilot.pause()
        began = time.monotonic()
        await pilot.press("c")
        await ended(pilot, app)
        assert time.monotonic() - began < 4.0  # tests/sync requires a second; this test also draws
        assert app.syncs.last.summary.states["flash"] == "cancelled"  # type: ignore[union-attr]
        assert "Cancelled; 4 of 5." in status(app)
        assert "The next sync continues from here." in status(app)
        assert not app._notifications
        assert {path.stem for path in home.pdfs.glob("*.pdf")} == {"adam", "attention"}
        if where == "page":
            assert "Cancelled  1" in sync_page(app)
            await pilot.press("escape")
        await pilot.press("S")
        await until(pilot, lambda: "1 fetched" in status(app), "the rest")
        assert not list(home.root.rglob("*.part"))


async def test_it_reports_that_it_is_stopping(app: ReadtrackApp, engines: list[Engine]) -> None:
    async with app.run_test() as pilot:
        await begin(pilot, app, key="S")
        engines[0].stubborn = True
        await pilot.press("c", "c")
        assert "stopping ..." in strip(app)
        engines[0].stubborn = False
        await ended(pilot, app)
        await pilot.press("c")
        assert "Nothing is running" in status(app)


@pytest.mark.timing
@pytest.mark.parametrize("key", ["q", "ctrl+q", "ctrl+c"])
async def test_leaving_stops_it_without_a_question(
    app: ReadtrackApp, engines: list[Engine], key: str
) -> None:
    async with app.run_test() as pilot:
        await begin(pilot, app, key="S")
        await until(pilot, engines[0].began.is_set, "the thread")
        began = time.monotonic()
        await pilot.press(key)
        await pilot.pause()
    assert app.return_value == 0
    assert engines[0].cancel.is_set()
    assert engines[0].over.wait(1)
    assert time.monotonic() - began < 4.0


async def test_a_sync_elsewhere_is_reported_with_its_process_and_time(app: ReadtrackApp, home: Home) -> None:
    async with app.run_test() as pilot:
        with exclusive(home) as folder:
            holder = json.loads((folder / "sync.json").read_text(encoding="utf-8"))
            since = time.strftime("%H:%M", time.localtime(holder["since"]))
            await begin(pilot, app, key="S")
            await ended(pilot, app)
            assert message(app) == (
                "Could not start a sync.\n"
                f"Why: a sync is already running (process {holder['pid']}, since {since}). "
                "Start this one when it has finished.\n"
                "Next step: press ctrl+r to see what it has fetched."
            )
            assert app.syncs.alive is None


async def test_offline_gives_a_short_message(app: ReadtrackApp, engines: list[Engine]) -> None:
    async with app.run_test(size=(160, 50)) as pilot:
        await begin(pilot, app, key="S")
        why = "offline: no name service answers for export.arxiv.org"
        engines[0].end(
            dict.fromkeys(ALL, "failed"), dict.fromkeys(ALL, why), offline=True, stopped=why, here=2
        )
        await ended(pilot, app)
        assert not app._notifications
        assert status(app).startswith("Offline. 2 papers fetched earlier.  The next sync")
        await pilot.press("w")
        await pilot.pause()
        assert "!" not in sync_page(app)
        assert sync_page(app).count("name service") <= 1


@pytest.mark.parametrize(
    "error", [ReadtrackError("the disk is [b]full[/b]"), RuntimeError("a fault of ours")]
)
async def test_a_sync_that_cannot_begin_gives_the_reason(
    app: ReadtrackApp, engines: list[Engine], error: Exception
) -> None:
    async with app.run_test() as pilot:
        await begin(pilot, app, key="s")
        engines[0].outcome = error
        engines[0].done.set()
        await ended(pilot, app)
        assert message(app).startswith(f"Could not sync.\nWhy: {error}.\nNext step: ")
        await pilot.press("w")
        await pilot.pause()
        assert str(error) in sync_page(app)
        assert app.is_running
