"""Random keys and clicks in every screen, over a completely hostile home.

READTRACK_MONKEY=5000 sends 5,000 keys in each screen, and READTRACK_MONKEY_SEED=1 sends other keys.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import hostile
import pytest
from textual import events
from textual.errors import NoWidget
from textual.pilot import OutOfBounds, Pilot

from readtrack.home import Home
from readtrack.library import Library
from readtrack.plugins.check import Inspection
from readtrack.present.actions import ACTIONS
from readtrack.runs import store
from readtrack.runs.job import Job
from readtrack.runs.record import Record
from readtrack.sync.report import State, SyncProgress, SyncSummary
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.controllers import breaks
from readtrack.tui.run_follower import RunFollower
from readtrack.tui.widgets.run_view import TABS

COUNT = int(os.environ.get("READTRACK_MONKEY", "40"))
SEED = os.environ.get("READTRACK_MONKEY_SEED", "")
BURST = 20  # keys and clicks at a time
VISIT = 100  # until the screen is opened again
OTHERS = (
    "tab",
    "shift+tab",
    "ctrl+p",
    "f1",
    "delete",
    "ctrl+a",
    "ctrl+e",
    "ctrl+k",
    "ctrl+v",
    "ctrl+z",
    "ctrl+s",
)
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
KEYS = sorted({key for one in ACTIONS for key in one.keys} | set("abcxyz0189 .,:'\"äß日") | set(OTHERS))


class Start(NamedTuple):
    """A screen: the keys that open it from the list, its class, the tab of a run, the terminal's size."""

    keys: tuple[str, ...]
    screen: str = "LibraryScreen"
    size: tuple[int, int] = (100, 30)
    tab: str = ""


STARTS = {
    "list": Start((), size=(80, 24)),
    "list, narrow": Start((), size=(40, 12)),
    "filter": Start(("/", "a"), size=(120, 30)),
    "paper": Start(("enter",), size=(80, 24)),
    **{
        f"run, {tab}": Start(("v", *"]" * number), tab=tab, size=(80 + 30 * number, 24))
        for number, tab in enumerate(TABS)
    },
    "run, all curves": Start(("v", "M"), tab="Overview", size=(180, 50)),
    "run, whole screen": Start(("v", "z"), tab="Overview", size=(160, 40)),
    "run, alive": Start(("V",), tab="Overview", size=(120, 40)),
    "all runs": Start(("H",), "RunsScreen"),
    "filter of runs": Start(("H", "/"), "InputDialog"),
    "two runs": Start(("H",), "Paged"),
    "code": Start(("i",), "CodeScreen", (160, 40)),
    "sync": Start(("S", "w"), "SyncScreen"),
    "lineage": Start(("b",), "Paged"),
    "history": Start(("D",), "Paged", (80, 24)),
    "help": Start(("?",), "Help"),
    "palette": Start(("ctrl+p",), "Palette"),
    "options": Start(("R",), "RunOptions", (80, 24)),
    "breaks": Start(("x",), "ChooseBreak"),
    "note": Start(("n",), "NoteScreen", (80, 24)),
    "tags": Start(("t",), "InputDialog", (80, 24)),
    "stars": Start(("*",), "ChoiceDialog"),
    "add": Start(("a",), "InputDialog"),
    "attach": Start(("A",), "InputDialog"),
    "leave": Start(("q",), "ChoiceDialog"),
}


class RudeSync:
    """A fake sync that reports arbitrary states of every paper until it is stopped or finished."""

    def __init__(
        self,
        library: Library,
        papers: tuple[str, ...],
        *,
        report: Callable[[SyncProgress], None],
        cancel: threading.Event,
    ) -> None:
        self._papers, self._report, self._cancel = papers, report, cancel

    def run(self) -> SyncSummary:
        said: dict[str, State] = dict(zip(self._papers, get_args(State) * 9, strict=False))
        for paper, state in said.items():
            self._report(SyncProgress(paper=paper, state="downloading", bytes=10**30, total=1, eta=1e300))
            self._report(SyncProgress(paper="", state="waiting", message=hostile.NASTY))
            self._report(SyncProgress(paper=paper, state=state, bytes=-1, total=0, message=hostile.NASTY * 9))
            self._cancel.wait(0.1)
        if self._cancel.is_set():
            raise RuntimeError(hostile.NASTY)
        reasons = dict.fromkeys(said, hostile.NASTY)
        return SyncSummary(said, reasons, stopped=hostile.NASTY, notes=[hostile.NASTY] * 9)


class RudeProcess:
    """A fake live run that writes invalid events and ends after three cancel requests."""

    attempt = 1

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder, self.run_id = folder, folder.name
        self.contact = ""
        self.stop_level = None
        self._asked = 0
        self._chance = chance

    def poll(self) -> store.Outcome | None:
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as file:
            for event in self._chance.choices(hostile.EVENTS, k=3):
                file.write(json.dumps({"v": 1, "seq": 1, "t": 1.0, **event}) + "\n")
        self.contact = self._chance.choice(["", "", "", hostile.NASTY])
        return "cancelled" if self._asked > 2 else None

    def cancel(self) -> str:
        self._asked += 1
        return ("asked", "interrupted", "terminated", "killed")[min(self._asked, 3)]

    def detach(self) -> None: ...


class Monkey:
    """An app over the hostile home that cannot be quit, starts no process and uses no network."""

    def __init__(self, library: Library, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.start = STARTS[name]
        self.chance = random.Random(f"{name} {SEED}")
        self.app = app = ReadtrackApp(library)
        self.copied: list[str] = []
        self.written: set[str] = set()  # subjects with a changed note
        self._alive = name in ("run, alive", "leave")
        monkeypatch.setattr(app, "exit", lambda *_: None)
        monkeypatch.setattr(app, "copy_to_clipboard", self.copied.append)
        monkeypatch.setattr(app, "open_address", lambda *_: None)
        monkeypatch.setattr(app.notes, "edit_file", lambda *_: None)
        monkeypatch.setattr(app.runs, "start", lambda *_: None)
        monkeypatch.setattr(app._adding, "_add", lambda *_: None)
        monkeypatch.setattr(store, "delete", lambda *_: None)
        monkeypatch.setattr(breaks, "examine", lambda *_: Inspection(hostile.NASTY))
        monkeypatch.setattr("readtrack.sync.engine.Sync", RudeSync)
        save = library.save_note
        monkeypatch.setattr(library, "save_note", lambda one, note: self.written.add(one) or save(one, note))

    async def visit(self, pilot: Pilot[int]) -> None:
        """Return to the list with escape only, and open the screen from there."""
        app, main = self.app, self.app.main
        for _ in range(20):
            if app.screen is main and not (main.on_right or main.on_run or main.filter.value):
                break
            await pilot.press("escape")
        assert app.screen is main
        assert main.checklist.go_to_subject("adam")
        main.run_view.record = None  # a run starts with its first tab
        app.library.home.papers_yaml.unlink(missing_ok=True)  # so that there is one to create
        plugin = app.library.home.plugins / "adam.py"
        if not plugin.exists():  # it was reverted, and these tests see no shipped plugins
            plugin.write_text("x = 1\n")
            app.action_reload()
        app.runs.leaving = False
        if self._alive and app.runs.alive is None:
            folder = app.library.home.root / "alive"
            job = Job.read(app.library.home.runs / hostile.NEWEST)
            app.runs.follow(RunFollower(RudeProcess(folder, self.chance), Record.from_job(job)))
        for key in self.start.keys:
            await pilot.press(key)
            await self.loaded()
        if self.start.screen == "Paged":
            app.screen._chosen = [hostile.NEWEST, "20260102-030405-adam-00ff"]
            await pilot.press("=")
            await self.loaded()
        await pilot.pause()
        assert type(app.screen).__name__ == self.start.screen
        if self.start.tab:
            assert TABS[main.run_view.tab] == self.start.tab

    async def loaded(self) -> None:
        """A run is read in the background, and keys in the meantime go to the list."""
        for worker in [one for one in self.app.workers if one.group != "follow"]:
            await worker.wait()

    async def hit(self, pilot: Pilot[int]) -> None:
        """Send keys, one after another or all at once like held keys, and a click."""
        keys = self.chance.choices(KEYS, k=BURST - 1)
        if self.chance.random() < 0.1:
            await pilot.press(*keys)
        else:
            for key in keys:
                self.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await pilot.pause()
        place = self.chance.randrange(self.start.size[0]), self.chance.randrange(self.start.size[1])
        try:
            await pilot.click(offset=place)
        except (OutOfBounds, NoWidget):
            await pilot.pause()


@pytest.fixture
def library(home: Home, papers_yaml: Path, recorded: Callable[..., Path]) -> Iterator[Library]:
    hostile.fill(home, papers_yaml, recorded)
    (home.root / "alive").mkdir()
    return Library.open(home, papers_yaml)


def files(library: Library) -> dict[Path, bytes]:
    """All of the reader's files with their content."""
    folders = (library.home.notes, library.home.metadata, library.home.pdfs, library.home.runs)
    found = [library.list_path, *(path for folder in folders for path in folder.rglob("*"))]
    return {path: path.read_bytes() for path in found if path.is_file()}


def rows(data: bytes) -> list[str]:
    """The lines of a list without the links of its rows, which K and enter change."""
    return [line for line in data.decode().splitlines() if not line.lstrip().startswith("papers: [")]


@pytest.mark.slow
@pytest.mark.timeout(60 + COUNT)
@pytest.mark.parametrize("name", STARTS)
async def test_no_key_ends_the_app_draws_on_it_or_is_lost(
    library: Library,
    name: str,
    screen_text: Callable[[ReadtrackApp], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkey = Monkey(library, monkeypatch, name)
    app = monkey.app
    async with app.run_test(size=monkey.start.size) as pilot:
        await pilot.pause()  # the home is read after the first frame
        await monkey.loaded()
        before, entries = files(library), library.home.journal.read_bytes()
        for done in range(0, COUNT, BURST):
            if done % VISIT == 0:
                await monkey.visit(pilot)
            await monkey.hit(pilot)
            assert not UNSAFE.search(screen_text(app).replace("\n", ""))
            assert len(app.screen_stack) < 12
            assert app.is_running
        app.runs.keep_running() if app.runs.alive is not None else None
        app.syncs.leave()
        await app.workers.wait_for_complete()
    after = files(library)
    changed = {path for path, data in before.items() if after.get(path) != data}
    assert {path.stem for path in changed if path.parent == library.home.notes} <= monkey.written
    assert rows(after[library.list_path]) == rows(before[library.list_path])
    # The reader may change a run's note and pin.
    changed -= {library.list_path}
    assert not [path for path in changed if path.parent != library.home.notes and path.name != "note.md"]
    assert library.home.journal.read_bytes().startswith(entries)
    again = Library.open(library.home, library.list_path)
    assert again.problems == library.problems
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "".join(monkey.copied))
