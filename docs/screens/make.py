"""Makes the README's screenshots and recording: run `python docs/screens/make.py` after a change to the app.

The runs in `home` are real runs without their progress events. The recording replays them event by event,
faster than in reality: `asciinema play docs/screens/readtrack.cast`.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console
from textual.pilot import Pilot

from readtrack.home import Home
from readtrack.library import Library
from readtrack.runs.events import EventReader
from readtrack.runs.job import Job
from readtrack.runs.record import Record
from readtrack.runs.store import load
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.widgets import run_view
from readtrack.tui.widgets.line_view import LineView

HERE = Path(__file__).parent
SIZE = (116, 32)
FLASH, DREAM = "20261122-100044-flashattention-77ab", "20261122-092033-deepdream-fd8f"


async def first(app: ReadtrackApp, pilot: Pilot[int]) -> None:
    """The list, and a paper's details with the results of its runs."""
    app.main.checklist.go_to_subject("flashattention")


async def memory(app: ReadtrackApp, pilot: Pilot[int]) -> None:
    """FlashAttention's memory curve below that of the full attention matrix."""
    folder = app.library.home.runs / FLASH
    record = load(folder)
    app.main.checklist.go_to_subject("flashattention")
    app.main.show_run(record, folder)
    await pilot.press("z")
    while list(record.curves)[app.main.run_view.on_top(record)] != "peak bytes":
        await pilot.press("m")


async def dream(app: ReadtrackApp, pilot: Pilot[int]) -> None:
    """Photographs and their DeepDream versions."""
    folder = app.library.home.runs / DREAM
    app.main.checklist.go_to_subject("deepdream")
    app.main.show_run(load(folder), folder)
    await pilot.press("z")
    while run_view.TABS[app.main.run_view.tab] != "Artifacts":
        await pilot.press("]")
    await app.workers.wait_for_complete()


SCREENS: dict[str, Callable[[ReadtrackApp, Pilot[int]], Awaitable[None]]] = {
    "first": first,
    "memory": memory,
    "dream": dream,
}


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[ReadtrackApp, Pilot[int]]]:
    """The app with a copy of `home`, in the same state each time."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        shutil.copytree(HERE / "home", home.root)
        library = Library.open(home, home.papers_yaml)
        # Hide the shipped verdicts and plugins outside of the list, which change over time.
        runnable = {name: ref for name, ref in library.runnable().items() if name in library.catalog.papers}
        library.__dict__ |= {"_plugins": runnable, "shipped_verdicts": {}}
        app = ReadtrackApp(library)
        async with app.run_test(size=SIZE) as pilot:
            await app.workers.wait_for_complete()
            await pilot.pause()
            yield app, pilot


async def draw(name: str) -> str:
    """One screen as SVG."""
    async with opened() as (app, pilot):
        await SCREENS[name](app, pilot)
        await pilot.pause()
        app.main.clear_message()
        await pilot.pause()
        return app.export_screenshot(title="readtrack", simplify=True)


class Still(Record):
    """A run whose clock advances only with events, so that the recording is deterministic."""

    def silence(self) -> float:
        return 0.0


class Cast:
    """A recording of terminal output in asciinema's format, version 2."""

    def __init__(self, app: ReadtrackApp, pilot: Pilot[int]) -> None:
        self.app, self.pilot = app, pilot
        self._seconds = 0.0
        self._before = [""] * SIZE[1]
        self._console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor")
        facts = {"version": 2, "width": SIZE[0], "height": SIZE[1], "title": "readtrack"}
        self.lines = [json.dumps(facts), json.dumps([0.0, "o", "\x1b[?25l\x1b[2J"])]

    async def press(self, *keys: str, each: float = 0.15, then: float = 1.5) -> None:
        for key in keys:
            await self.pilot.press(key)
            await self.show(each)
        self._seconds += then

    async def show(self, seconds: float) -> None:
        """Record the changed lines of the screen, and show them for `seconds`."""
        await self.app.workers.wait_for_complete()
        await self.pilot.pause()
        while not all(page.whole for page in self.app.screen.query(LineView)):
            await self.pilot.pause(0.02)
        rows = [strip.render(self._console) for strip in self.app.screen._compositor.render_strips()]
        changed = (f"\x1b[{y + 1}H{row}" for y, row in enumerate(rows) if row != self._before[y])
        self.lines.append(json.dumps([round(self._seconds, 2), "o", "".join(changed)]))
        self._seconds += seconds
        self._before = rows

    async def replay(self, run_id: str, top: str, *, frames: int, each: float) -> None:
        """Replay a run: its events in `frames` portions, then its end. `top`: the curve to show."""
        folder = self.app.library.home.runs / run_id
        events = list(EventReader(folder).read_new())
        view = self.app.main.run_view
        for count in (*range(len(events) // frames, len(events), len(events) // frames), len(events)):
            record = Still.from_job(Job.read(folder))
            for event in events[:count]:
                record.apply(event)
            self.app.main.show_run(record, folder)
            while top in record.curves and list(record.curves)[view.on_top(record)] != top:
                await self.pilot.press("m")
            await self.show(each)
        self._seconds += 2.0


async def cast() -> Iterable[str]:
    """The whole recording: from the list to FlashAttention's memory curve and DeepDream's pictures."""
    async with opened() as (app, pilot):
        film = Cast(app, pilot)
        await film.show(2.0)
        await film.press("slash", *"flash", each=0.12, then=0.8)
        await film.press("enter", then=2.0)
        await film.replay(FLASH, "peak bytes", frames=14, each=0.35)
        await film.press("escape", "slash", *"dream", each=0.12, then=0.8)
        await film.press("enter", then=1.0)
        await film.replay(DREAM, "", frames=10, each=0.35)
        await film.press("z", then=0.5)
        while run_view.TABS[app.main.run_view.tab] != "Artifacts":
            await film.press("right_square_bracket", then=0.3)
        await film.show(4.0)
        return film.lines


def main() -> None:
    os.environ |= {"COLORTERM": "truecolor", "TERM": "xterm-256color"}
    os.environ.pop("NO_COLOR", None)
    for name in SCREENS:
        (HERE / f"{name}.svg").write_text(asyncio.run(draw(name)), encoding="utf-8")
    (HERE / "readtrack.cast").write_text("\n".join(asyncio.run(cast())) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
