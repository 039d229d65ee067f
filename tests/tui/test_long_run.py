"""A run of 100,000 events and 1,000 artifacts in the app: no key is delayed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import until
from rich.console import RenderableType
from textual.screen import Screen

from readtrack.tui.app import ReadtrackApp
from readtrack.tui.widgets import line_view
from readtrack.tui.widgets.run_view import TABS

PATIENCE = line_view._PATIENCE
MOST = 50  # ms of CPU time per key
ONCE = 75  # limit for the first visit of a page, which is then cached
KEYS = (
    ("j", "k"),
    ("G", "g"),
    ("ctrl+d", "ctrl+u"),
    ("ctrl+f", "ctrl+b"),
    ("z",),
    ("m",),
)


def lengthen(folder: Path) -> None:
    events: list[dict[str, object]] = []
    for number in range(1000):
        kind, end = (("text", "txt"), ("table", "json"), ("image", "png"))[number % 3]
        path = f"artifacts/{number}.{end}"
        events.append({"event": "artifact", "name": f"{kind} {number}", "path": path, "kind": kind})
        if kind == "table":
            rows = [[step, 1 / (step + 1), "some words"] for step in range(50)]
            (folder / path).write_text(json.dumps({"columns": ["step", "loss", "note"], "rows": rows}))
        elif kind == "text":
            (folder / path).write_text("some words " * 400)
        else:
            shutil.copy(folder / "artifacts" / "filters.png", folder / path)
    events += [{"event": "log", "text": f"line {number} " + "word " * 30} for number in range(2000)]
    events += [
        {
            "event": "metric",
            "name": f"metric {at % 20}",
            "arm": f"arm {at % 3}",
            "step": step,
            "value": 1 / step,
        }
        for step in range(1, 1618)
        for at in range(60)
    ]
    with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        for seq, event in enumerate(events, 200):
            file.write(json.dumps({"v": 1, "seq": seq, "t": 9.0, **event}) + "\n")


@pytest.mark.timing
async def test_no_key_waits_for_a_long_run(
    app: ReadtrackApp, recorded: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[float] = []  # time of each frame, in CPU seconds of this thread
    display = ReadtrackApp._display

    def displayed(self: ReadtrackApp, screen: Screen[object], frame: RenderableType | None) -> None:
        display(self, screen, frame)
        if frame is not None:
            shown.append(time.thread_time())

    monkeypatch.setattr(ReadtrackApp, "_display", displayed)
    monkeypatch.setattr(line_view, "_PATIENCE", PATIENCE)
    lengthen(recorded())
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.pause()  # results are read after the first frame
        await app.workers.wait_for_complete()

        async def took(key: str) -> float:
            """Milliseconds from this key to the first frame. Later work is interrupted by the next key."""
            began = time.thread_time()
            shown.clear()
            await pilot.press(key)
            return ((shown or [time.thread_time()])[0] - began) * 1e3

        assert app.main.checklist.go_to_subject("adam")
        await pilot.press("v")
        await until(pilot, lambda: app.main.on_run, "the run")
        record = app.main.run_view.record
        assert record is not None
        assert (len(record.curves) > 20, len(record.artifacts) > 1000) == (True, True)
        each: dict[tuple[str, ...], float] = {}
        each["Overview", "M, first"] = await took("M")
        await pilot.press("M")
        for place, tab in enumerate(TABS):
            for keys in KEYS if tab == "Overview" else KEYS[:-1]:
                for key in keys:
                    each[tab, key] = sorted([await took(key) for _ in range(5)])[2]
                    await pilot.press(*keys)
            each[tab, "to the next"] = await took("]")
            assert app.main.run_view.tab == (place + 1) % len(TABS)
        print({keys: round(one, 1) for keys, one in each.items()})
        assert {keys: one for keys, one in each.items() if one > (ONCE if " " in keys[1] else MOST)} == {}
