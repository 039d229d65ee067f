"""Random keys and clicks in every screen, over a home in which everything is hostile.

READTRACK_MONKEY=5000 presses that many keys in each screen.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import OutOfBounds

from readtrack.home import Home
from readtrack.library import Library
from readtrack.runs import store
from readtrack.tui.actions import ACTIONS
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.controllers.breaks import Breaks

COUNT = int(os.environ.get("READTRACK_MONKEY", "40"))
NASTY = (
    "\x1b]0;title\x07\x1b[2J[red]no markup[/red] \u202eright to left \x9b31m 日本語 e\u0301 \ud800".encode(
        "utf-8", "surrogatepass"
    ).decode("utf-8", "replace")
)
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
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
KEYS = sorted({key for one in ACTIONS for key in one.keys} | set("abcxyz0189 .,:'\"äß日") | set(OTHERS))
# What is open first: the list, or what this key opens; and the size of the terminal.
STARTS = [
    ("", (80, 24)),
    ("i", (160, 40)),
    ("H", (100, 30)),
    ("v", (80, 24)),
    ("?", (100, 30)),
    ("R", (80, 24)),
    ("n", (100, 30)),
    ("/", (120, 30)),
]


@pytest.fixture
def hostile(home: Home, papers_yaml: Path, recorded: Callable[..., Path]) -> Library:
    """Texts that would steer a terminal, in the list, the metadata, the notes, a plugin and three runs."""
    text = papers_yaml.read_text(encoding="utf-8")
    papers_yaml.write_text(
        text.replace("Small noisy steps find the root.", json.dumps(NASTY)), encoding="utf-8"
    )
    for folder in (home.metadata, home.notes, home.plugins):
        home.ensure(folder)
    for paper in ("sgd", "adam"):
        (home.metadata / f"{paper}.json").write_text(json.dumps({"abstract": NASTY * 30 + "$\\frac{1}{$"}))
        (home.notes / f"{paper}.md").write_bytes(b"# \xff\xfe " + NASTY.encode("utf-8", "replace") * 9)
    (home.plugins / "adam.py").write_text(f"'''{NASTY!r}'''\nclass A(:\n" + "x = 1  # " + "long " * 300)
    (home.plugins / "sgd.py").write_text("")
    recorded()
    broken = recorded(until=6.0, run_id="20260103-000000-adam-aaaa")
    wrong = [
        {"event": "metric", "name": NASTY, "value": None, "step": 3, "arm": [1]},
        {"event": "metric", "name": "loss", "value": "text", "step": {}},
        {"event": "claim", "claim": {"name": NASTY}, "values": {"x": None}, "verdict": "exact"},
        {"event": "claims", "claims": [{"name": NASTY, "breaks": "none", "rule": 7}]},
        {"event": "measurement", "case": 1, "axes": {"n": None}, "t_ns": {"value": "fast"}, "flags": 0},
        {"event": "artifact", "name": NASTY, "path": "../../../../etc/passwd", "kind": "text"},
        {"event": "artifact", "name": "x", "path": "artifacts", "kind": "image", "caption": NASTY},
        {"event": "progress", "label": NASTY, "done": -5, "total": 0, "t": "later"},
        {"event": "axes", "metric": "loss", "x": [NASTY], "y": None},
        {"event": "error", "kind": 1, "type": None, "message": NASTY, "phase": [], "traceback": NASTY},
        {"event": "heartbeat", "rss": -1, "cpu": "much"},
        {"event": "log", "text": NASTY * 500},
    ]
    with (broken / "events.jsonl").open("a", encoding="utf-8") as file:
        for event in wrong:
            file.write(json.dumps({"v": 1, "seq": 900, "t": 6.0, **event}) + "\n")
        file.write("{torn")
    store.write_end_event(broken, "failed", NASTY)
    (broken / "note.md").write_text(NASTY, encoding="utf-8")
    torn = home.runs / "20260104-000000-adam-bbbb"
    torn.mkdir()
    (torn / "result.json").write_text("[]")
    return Library.open(home, papers_yaml)


@pytest.mark.parametrize(("start", "size"), STARTS)
async def test_nothing_that_is_pressed_ends_the_app_draws_on_it_or_is_lost(
    hostile: Library,
    start: str,
    size: tuple[int, int],
    screen_text: Callable[[ReadtrackApp], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = ReadtrackApp(hostile)
    copied: list[str] = []
    started: list[object] = []
    # What leaves the app, starts a process or asks the network is no part of this.
    monkeypatch.setattr(app, "exit", lambda *_: None)
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    monkeypatch.setattr(app.notes, "edit_file", lambda *_: None)
    monkeypatch.setattr(app.runs, "start", started.append)
    monkeypatch.setattr(app.syncs, "start", lambda *_: None)
    monkeypatch.setattr(app._adding, "_add", lambda *_: None)
    monkeypatch.setattr(Breaks, "choose", lambda *_: None)
    chance = random.Random(f"{start} {size}")
    before = hostile.list_path.read_bytes()
    async with app.run_test(size=size) as pilot:
        await app.workers.wait_for_complete()
        await pilot.pause()
        app.main.checklist.go_to_subject("adam")
        await pilot.press(*start)
        for _ in range(COUNT // 10):
            await pilot.press(*chance.choices(KEYS, k=9))
            place = chance.randrange(size[0]), chance.randrange(size[1])
            try:
                await pilot.click(offset=place)
            except OutOfBounds:
                continue
            shown = screen_text(app)
            assert not UNSAFE.search(shown)
            assert len(app.screen_stack) < 12
        assert app.is_running
        await app.workers.wait_for_complete()
    assert hostile.list_path.read_bytes() == before
    again = Library.open(hostile.home, hostile.list_path)
    assert not again.problems
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "".join(copied))
