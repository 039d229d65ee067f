"""A hostile home: control sequences, wrong types, huge numbers, torn and missing files."""

from __future__ import annotations

import json
import struct
import wave
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from readtrack.home import Home
from readtrack.runs import store

NASTY = (
    "\x1b]0;title\x07\x1b[2J[red]no markup[/red] \u202eright to left \x9b31m 日本語 e\u0301 \ud800".encode(
        "utf-8", "surrogatepass"
    ).decode("utf-8", "replace")
)
HUGE = 10**400  # larger than any float
NEWEST = "20260103-000000-adam-aaaa"

_CLAIM = {"name": "a claim", "kind": "measured", "sentence": NASTY, "rule": [], "breaks": []}
# Each is one line of a run's events with wrong types, excessive sizes or control sequences.
EVENTS: list[dict[str, Any]] = [
    {"event": "environment", "device": [NASTY], "device_name": {"a": 1}, "threads": HUGE, "torch": NASTY},
    {"event": "metric", "name": NASTY, "value": None, "step": 3, "arm": [1]},
    {"event": "metric", "name": "loss", "value": "text", "step": {}},
    *({"event": "metric", "name": "x" * 300, "value": 10.0**at, "step": at, "arm": NASTY} for at in range(9)),
    *({"event": "metric", "name": "far", "value": value, "step": HUGE + value} for value in range(3)),
    {"event": "metric", "name": "endless", "value": float("inf"), "step": float("-inf")},
    {"event": "metric", "name": "endless", "value": float("nan"), "step": 1},
    {"event": "metric", "name": "large", "value": HUGE},
    {"event": "metric", "name": "large", "value": 1.7e308, "step": 1},
    {"event": "metric", "name": "large", "value": -1.7e308, "step": 2},
    {"event": "claim", "claim": {"name": NASTY}, "values": {"x": None}, "verdict": "exact"},
    {"event": "claim", "claim": _CLAIM, "values": {}, "verdict": NASTY, "at_least": 7, "edges": 3},
    {
        "event": "claim",
        "claim": {**_CLAIM, "name": "b"},
        "values": {"x": HUGE},
        "verdict": "held",
        "ours": [],
    },
    {"event": "claims", "claims": [{"name": NASTY, "breaks": "none", "rule": 7}]},
    {"event": "claims", "claims": [{"name": "b", "breaks": [{"name": NASTY, "takes_away": [NASTY]}, 3]}]},
    {"event": "measurement", "case": 1, "axes": {"n": None}, "t_ns": {"value": "fast"}, "flags": 0},
    {"event": "measurement", "case": NASTY, "axes": {NASTY: NASTY}, "t_ns": {"value": 3, "ci95": [HUGE, 1]}},
    {"event": "measurement", "case": "c", "axes": {"n": HUGE}, "variant": "v", "t_ns": {"value": 1e300}},
    {
        "event": "measurement",
        "case": "c",
        "axes": {"n": 1},
        "mem": {"peak_bytes": float("inf")},
        "flags": [{}],
    },
    {"event": "measurement", "case": "c", "axes": [], "t_ns": {"value": float("nan")}, "pct_ceiling": 1e9},
    {"event": "measurement", "case": "c", "axes": {"n": 2}, "vs_naive": HUGE, "pct_ceiling": float("nan")},
    {"event": "headline", "metric": {"a": NASTY}},
    {"event": "phase", "name": NASTY, "t": -1e300},
    {"event": "phase", "name": ["train"], "t": 1e300},
    {"event": "progress", "label": NASTY, "done": -5, "total": 0, "t": "later"},
    {"event": "progress", "label": NASTY, "done": HUGE, "total": 3, "eta": float("nan")},
    {"event": "progress", "label": NASTY, "done": float("inf"), "total": 3, "eta": 1},
    {"event": "axes", "metric": "loss", "x": [NASTY], "y": None},
    {"event": "error", "kind": 1, "type": None, "message": NASTY, "phase": [], "traceback": NASTY},
    {"event": "heartbeat", "rss": -1, "cpu": "much"},
    {"event": "heartbeat", "rss": HUGE, "cpu": float("inf")},
    {"event": "warning", "text": [NASTY] * 9},
    {"event": "log", "text": NASTY * 500},
    {"event": "log", "text": {"a": "x" * 70_000}},
    {"event": "metric", "name": "loss", "value": 1, "step": 1, "seq": float("inf"), "t": HUGE},
]
# Tables from plugins, and files that pretend to be tables.
TABLES: dict[str, Any] = {
    "lists": {
        "columns": ["a", "b"],
        "rows": [[[1, [NASTY]], {"x": NASTY}], [None, True], ["", float("nan")]],
    },
    "numbers": {
        "columns": ["a", NASTY],
        "rows": [[HUGE, 1e308], [float("-inf"), float("nan")], [-0.0, 1e-320]],
    },
    "wide": {"columns": ["x" * 99] * 300, "rows": [["y" * 2000] * 300] * 30},
    "uneven": {"columns": ["a"], "rows": [[1], [1, 2]]},
    "no rows": {"columns": ["a"], "rows": []},
    "no columns": {"columns": [], "rows": [[], []]},
    "a text": {"columns": "abc", "rows": ["abc", "def"]},
    "a mapping": {"columns": {"a": 1}, "rows": {"a": 1}},
    "a number": 7,
    "nothing": None,
}


def fill(home: Home, list_path: Path, recorded: Callable[..., Path]) -> None:
    """Make the list, metadata, notes, journal, PDFs, plugins and runs of a home hostile."""
    told = list_path.read_text(encoding="utf-8")
    told = told.replace("Small noisy steps find the root.", json.dumps(NASTY))
    told = told.replace('"Fast Exact Multiplication by the Hessian"', json.dumps("Hessian " * 600 + NASTY))
    list_path.write_text(told.replace("Barak A. Pearlmutter", json.dumps(NASTY * 20)), encoding="utf-8")
    for folder in (home.metadata, home.notes, home.plugins, home.pdfs, home.runs):
        home.ensure(folder)
    for paper in ("sgd", "adam"):
        (home.metadata / f"{paper}.json").write_text(json.dumps({"abstract": NASTY * 30 + "$\\frac{1}{$"}))
        (home.notes / f"{paper}.md").write_bytes(b"# \xff\xfe " + NASTY.encode("utf-8", "replace") * 9)
    (home.metadata / "hessian.json").write_text("{torn")
    (home.metadata / "attention.json").write_text("[" * 100_000)
    (home.metadata / "flash.json").write_text(json.dumps({"abstract": [NASTY], "title": 7, "authors": None}))
    (home.notes / "hessian.md").mkdir()
    (home.plugins / "adam.py").write_text(f"'''{NASTY!r}'''\nclass A(:\n" + "x = 1  # " + "long " * 300)
    (home.plugins / "sgd.py").write_text("")
    (home.plugins / "flash").mkdir()
    (home.plugins / "flash" / "__init__.py").write_bytes(b"\x00\xff" + NASTY.encode("utf-8", "replace"))
    (home.pdfs / "adam.pdf").write_bytes(b"%PDF-1.4\n\x1b[2J rubbish")
    (home.pdfs / "sgd.pdf").symlink_to("nowhere.pdf")
    (home.pdfs / "flash.pdf").mkdir()
    home.journal.write_text(
        json.dumps({"v": 1, "at": "2026-01-01T00:00:00+00:00", "paper": "adam", "tags": [NASTY]})
        + "\n{torn\n"
    )
    recorded()
    _runs(home, recorded)


def _runs(home: Home, recorded: Callable[..., Path]) -> None:
    broken = recorded(until=6.0, run_id=NEWEST)
    with (broken / "events.jsonl").open("a", encoding="utf-8") as file:
        for event in [*EVENTS, *_artifacts(broken)]:
            file.write(json.dumps({"v": 1, "seq": 900, "t": 6.0, **event}) + "\n")
        file.write('{"event": "metric", "value": 1' + "0" * 5000 + "}\n" + "[" * 100_000 + "\n{torn")
    (broken / "log.txt").write_bytes(NASTY.encode() * 900 + b"\n\xff\xfe\x00")
    store.write_end_event(broken, "failed", NASTY)
    (broken / "note.md").write_text(NASTY, encoding="utf-8")
    torn = home.runs / "20260104-000000-adam-bbbb"
    torn.mkdir()
    (torn / "result.json").write_text("[]")
    whole = json.loads((broken / "result.json").read_text(encoding="utf-8"))
    job = json.loads((broken / "job.json").read_text(encoding="utf-8"))
    results: list[dict[str, Any]] = [
        {**whole, "duration": float("inf"), "seed": float("inf")},
        {**whole, "duration": float("nan"), "device": [NASTY], "claims": [[NASTY, 1, None]] * 60},
        {**whole, "started": 7, "paper": NASTY, "headline": "x" * 9000},
        {**whole, "claims": [[1]], "outcome": []},
    ]
    for number, result in enumerate(results):
        folder = home.runs / f"2026010{number}-000000-adam-cccc"
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps(result))
    jobs: list[dict[str, Any]] = [
        {**job, "created": 7, "seed": [1], "settings": NASTY},
        {**job, "budget": {"a": NASTY}, "broken": 3, "place": [1], "timeout": "soon"},
        {**job, "paper": NASTY, "created": "9999-99-99"},
    ]
    for number, one in enumerate(jobs):
        folder = home.runs / f"2026010{number}-000000-adam-dddd"
        folder.mkdir()
        (folder / "job.json").write_text(json.dumps(one))


def _artifacts(run: Path) -> list[dict[str, Any]]:
    """Invalid or missing pictures, sounds and tables, with the events that name them."""
    folder = run / "artifacts"
    for name, table in TABLES.items():
        (folder / f"{name}.json").write_text(json.dumps(table))
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "long.txt").write_text(NASTY * 9000)
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00" * 40)
    (folder / "bomb.png").write_bytes(_picture(60_000, 60_000))
    (folder / "thin.png").write_bytes(_picture(1, 20_000))
    (folder / "bad.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVEfmt ")
    with wave.open(str(folder / "none.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
    named = [("table", f"{name}.json") for name in [*TABLES, "deep"]]
    named += [("text", "long.txt"), ("text", "gone.txt"), ("text", ""), ("text", "../../../../../etc/passwd")]
    named += [("image", name) for name in ("bad.png", "bomb.png", "thin.png", "gone.png", "long.txt", "a\0b")]
    named += [("audio", name) for name in ("bad.wav", "none.wav", "gone.wav")]
    events: list[dict[str, Any]] = [
        {
            "event": "artifact",
            "name": f"{kind} {name}",
            "path": f"artifacts/{name}",
            "kind": kind,
            "caption": NASTY,
        }
        for kind, name in named
    ]
    return [
        *events,
        {"event": "artifact", "name": NASTY, "path": "/etc/passwd", "kind": "text"},
        {"event": "artifact", "name": ["x"], "path": ["artifacts"], "kind": {"a": 1}, "caption": 7},
        {"event": "artifact"},
        *({"event": "artifact", "name": f"{NASTY}{number}", "path": NASTY} for number in range(90)),
    ]


def _picture(width: int, height: int) -> bytes:
    """A grey PNG that claims this size but has one line."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    line = zlib.compress(b"\x00" * (width + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", line) + chunk(b"IEND", b"")
